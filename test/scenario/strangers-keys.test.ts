// Keys are for those who share a conversation; to anybody else a user is nobody. [K-4.8] I13
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { Client } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { must } from '../support/request.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ config: { strangers: 'ask' } })
})
afterAll(() => relay.close())

/** Ann, who writes; Bob, who does not know her. */
let ann: Client
let bob: Client
let direct = ''
beforeEach(async () => {
  ;[ann, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  direct = await ann.direct(bob)
})

const bundles = (client: Client, ...of: Client[]) =>
  client.post('/v1/keys/bundles', { targets: of.map((each) => ({ user_id: each.userId, device_id: 1 })) })

it('a stranger is told of nobody, in the words for those who do not exist', async () => {
  const eve = await Client.register(relay)
  const nobody = randomUUID()
  for (const id of ['1', '*']) {
    const [real, none] = [await eve.get(`/v1/keys/${bob.userId}/${id}`), await eve.get(`/v1/keys/${nobody}/${id}`)]
    expect([real.status, real.body]).toEqual([none.status, none.body])
    expect(real.status).toBe(404)
  }
  expect(must(await bundles(eve, bob, ann)).body).toEqual({ bundles: [] })
})

it('either side of a direct conversation gets them, before it is accepted', async () => {
  for (const [who, of] of [
    [ann, bob],
    [bob, ann],
  ] as const)
    expect(must(await bundles(who, of)).body.bundles).toHaveLength(1)
  must(await ann.post(`/v1/conversations/${direct}/archive`))
  expect(must(await bundles(ann, bob)).body.bundles).toEqual([])
})

it('whoever is invited is known to nobody, and may know the members', async () => {
  const cy = await Client.register(relay)
  const group = await ann.group([bob, cy])
  expect(must(await bundles(ann, cy)).body.bundles).toEqual([])
  expect(must(await bundles(bob, cy)).body.bundles).toEqual([])
  expect(must(await bundles(cy, ann)).body.bundles).toHaveLength(1)
  must(await cy.post(`/v1/conversations/${group}/accept`))
  expect(must(await bundles(ann, cy)).body.bundles).toHaveLength(1)
})
