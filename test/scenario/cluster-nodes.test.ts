// Three nodes as one deployment: sender and recipient on different ones, and a node cut off from Redis.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Client } from '../support/client.ts'
import { type TestCluster, testCluster } from '../support/cluster.ts'
import { send } from '../support/signals.ts'

let cluster: TestCluster
beforeAll(async () => {
  cluster = await testCluster()
})
afterAll(() => cluster?.close())

it('what is sent on one node comes to another in order, as hints and without them', async () => {
  const [one, two] = [cluster.nodes[0]!, cluster.nodes[1]!]
  const [ann, bob] = await Promise.all([Client.register(one), Client.register(two)])
  const conversation = await ann.direct(bob)
  const [from, to] = [await ann.live(), await two.from(bob).live()]
  /** Sequences that node two was told of. */
  const told = new Set<number>()
  two.loses = (hint) => {
    if (hint.kind === 'committed') told.add(hint.sequence)
    return false
  }
  const come = async (count: number): Promise<number[]> => {
    const came: number[] = []
    for (let i = 0; i < count; i++) await send(from, conversation, bob)
    while (came.length < count) came.push((await to.next('envelope')).sequence!)
    expect(came).toEqual(came.map((_, i) => came[0]! + i))
    return came
  }
  const hinted = await come(10)
  // Now and then its own look was faster.
  while (!hinted.some((each) => told.has(each))) await new Promise((resolve) => setImmediate(resolve))

  await two.cutOff()
  const unhinted = await come(3)
  expect(unhinted.filter((each) => told.has(each))).toEqual([])
  // Still in service, and said so.
  const ready = await fetch(`${two.url}/readyz`)
  expect([ready.status, await ready.json()]).toEqual([200, { ready: true, missing: [], degraded: ['redis'] }])
  await two.rejoin()
  expect(await (await fetch(`${two.url}/readyz`)).json()).toEqual({ ready: true, missing: [] })
  await come(3)
  expect(cluster.reported).toEqual([])
  await Promise.all([from.close(), to.close()])
})
