// Chance that can be repeated: the same seed, the same numbers.

export type Chance = {
  /** 0 up to, not including, 1. */
  next(): number
  /** 0 up to, not including, `below`. */
  upTo(below: number): number
  /** One of them. */
  of<T>(all: readonly T[]): T
  /** So many different whole numbers from `from` up to, not including, `below`. */
  places(count: number, from: number, below: number): Set<number>
}

/** Mulberry32. @param seed a whole number. */
export function seeded(seed: number): Chance {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const upTo = (below: number) => Math.floor(next() * below)
  return {
    next,
    upTo,
    of: (all) => all[upTo(all.length)]!,
    places: (count, from, below) => {
      const found = new Set<number>()
      while (found.size < Math.min(count, below - from)) found.add(from + upTo(below - from))
      return found
    },
  }
}
