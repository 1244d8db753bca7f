// Two users in a direct conversation: what most stories begin with.

import { deviceKeyOf } from './backlog.ts'
import { Client } from './client.ts'
import type { TestRelay } from './relay.ts'

export type Pair = { alice: Client; bob: Client; conversation: string; bobKey: number }

/** Alice and Bob with one device each and a direct conversation; Bob's queue is empty. */
export async function pair(relay: TestRelay): Promise<Pair> {
  const [alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  const conversation = await alice.direct(bob)
  await (await bob.live()).close()
  return { alice, bob, conversation, bobKey: await deviceKeyOf(relay.db.database.sql, bob) }
}
