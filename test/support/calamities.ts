// What can happen to Redis, or to the way there.

export const CALAMITIES = [
  'killed',
  'flushed',
  'one node cut off',
  'all nodes cut off',
  'clients dropped',
  'overrun',
] as const
export type Calamity = (typeof CALAMITIES)[number]
