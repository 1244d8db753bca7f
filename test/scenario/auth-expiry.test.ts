// A socket lives as long as its token: Reauthenticate, the goodbye before the end, and shutdown. [C-6] [C-8]
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { commitUnannounced } from '../support/backlog.ts'
import { Client, type Socket } from '../support/client.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode, GoingAwayReason } = sealpost.v1
const HOUR_MS = 3600 * 1000

let nowMs = Date.now()
let relay: TestRelay
let users: Pair
let to: Socket
beforeAll(async () => {
  relay = await testRelay({ clock: () => nowMs })
})
afterAll(() => relay.close())
beforeEach(async () => {
  // Proofs of identity are made under the real clock.
  nowMs = Date.now()
  users = await pair(relay)
  to = await users.bob.live()
})

/** Resolves when the re-poll, which also looks at the ends of tokens, has been by since now. */
async function repolled(): Promise<void> {
  const { alice, bob, conversation } = users
  await commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count: 1 })
  await to.ack((await to.next('envelope')).messageId)
}
const goodbyes = (): unknown[] => to.frames.filter((frame) => frame.goingAway)

it('without it: GoingAway once from 30 s before the end, then 4401', async () => {
  nowMs += HOUR_MS - 40_000
  await repolled()
  expect(goodbyes()).toEqual([])
  nowMs += 15_000
  const goodbye = await to.next('goingAway')
  expect(goodbye.reason).toBe(GoingAwayReason.GOING_AWAY_REASON_TOKEN_EXPIRED)
  nowMs += 10_000
  await repolled()
  await repolled()
  expect(goodbyes()).toEqual([])
  nowMs += 20_000
  expect(await to.end()).toBe(4401)
})

it('Reauthenticate with a fresh token of the same device moves the end', async () => {
  nowMs += HOUR_MS - 20_000
  await to.next('goingAway')
  const token = await users.bob.refresh()
  const { reauthenticated } = await to.ask({ reauthenticate: { token } })
  expect(reauthenticated!.expiresAtMs! - nowMs).toBeGreaterThan(HOUR_MS - 2_000)
  nowMs += 60_000
  await repolled()
  expect(to.closed).toBe(null)
  // The new end is announced again.
  nowMs += HOUR_MS - 80_000
  await to.next('goingAway')
  nowMs += 60_000
  expect(await to.end()).toBe(4401)
})

it('a bad token or one of another device is UNAUTHENTICATED, and the connection keeps its old end', async () => {
  const sibling = await users.bob.link()
  for (const token of ['', 'x.y.z', users.alice.token, sibling.token]) {
    const { error } = await to.ask({ reauthenticate: { token } })
    expect(error?.code).toBe(ErrorCode.ERROR_CODE_UNAUTHENTICATED)
    expect(error?.message).not.toContain(token || 'x.y.z')
  }
  await to.fence()
  expect(to.closed).toBe(null)
  nowMs += HOUR_MS + 1_000
  expect(await to.end()).toBe(4401)
})

it('an expired token changes nothing, not even back', async () => {
  const old = users.bob.token
  nowMs += HOUR_MS - 20_000
  await to.ask({ reauthenticate: { token: await users.bob.refresh() } })
  nowMs += 21_000
  expect((await to.ask({ reauthenticate: { token: old } })).error?.code).toBe(ErrorCode.ERROR_CODE_UNAUTHENTICATED)
  await repolled()
  expect(to.closed).toBe(null)
})

it('shutdown: GoingAway with a time to wait, then 1001; what was accepted before is kept', async () => {
  const own = await testRelay()
  const { alice, bob, conversation } = await pair(own)
  const [from, there] = [await alice.live(), await bob.live()]
  const accepted = await from.send(conversation, [bob.to()])
  expect(accepted.messageAccepted).toBeTruthy()
  const closing = own.close()
  for (const socket of [from, there]) {
    const goodbye = await socket.next('goingAway')
    expect(goodbye.reason).toBe(GoingAwayReason.GOING_AWAY_REASON_SHUTDOWN)
    expect(await socket.end()).toBe(1001)
  }
  await closing
  await expect(Client.register(own)).rejects.toThrow()
})
