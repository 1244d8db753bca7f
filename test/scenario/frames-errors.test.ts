// Errors are a closed list; what nobody expected is logged in full and told as INTERNAL. I15
import { afterEach, beforeEach, expect, it } from 'vitest'
import { ERROR_CODES } from '../../proto/errors.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { commitUnannounced } from '../support/backlog.ts'
import { request } from '../support/client.ts'
import { type Pair, pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode } = sealpost.v1
const INTERNAL = { code: ErrorCode.ERROR_CODE_INTERNAL, message: 'internal error', retryAfterMs: 0 }

let relay: TestRelay
let users: Pair
beforeEach(async () => {
  relay = await testRelay()
  users = await pair(relay)
})
afterEach(() => relay.close())

const rename = (from: string, to: string) => relay.db.database.sql.unsafe(`alter table ${from} rename to ${to}`)
const logged = () => relay.logged.filter((line) => JSON.parse(line).level >= 50)

it('the codes on the wire are those of the list, by name and number', () => {
  const names = Object.keys(ErrorCode).filter((name) => Number.isNaN(Number(name)))
  expect(names).toEqual(['ERROR_CODE_UNSPECIFIED', ...ERROR_CODES.map((code) => `ERROR_CODE_${code}`)])
})

it('a send into a broken database: INTERNAL without its text; the connection is usable, and works again when it is mended', async () => {
  const { alice, bob, conversation } = users
  const from = await alice.live()
  await from.send(conversation, [bob.to()])
  await rename('messages', 'gone')
  const { error } = await from.send(conversation, [bob.to()])
  expect(error).toMatchObject(INTERNAL)
  expect(logged().join()).toContain('relation \\"messages\\" does not exist')
  await from.fence()
  await rename('gone', 'messages')
  expect((await from.send(conversation, [bob.to()])).messageAccepted?.duplicate).toBe(false)
  await from.close()
})

it('a sync and an ack into a broken database: INTERNAL, and the sync can be asked again', async () => {
  const { alice, bob, conversation } = users
  const [id] = await commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count: 1 })
  const to = await bob.connect()
  await rename('gaps', 'gone')
  expect((await to.ask({ syncRequest: {} })).error).toMatchObject(INTERNAL)
  expect((await to.ask({ ack: { messageIds: [new Uint8Array(16)] } })).error).toMatchObject(INTERNAL)
  expect(logged().length).toBeGreaterThanOrEqual(2)
  await rename('gone', 'gaps')
  const [envelope] = (await to.sync()).messages!
  expect(Buffer.from(envelope!.messageId!).toString('hex')).toBe(id!.replaceAll('-', ''))
  await to.ack(envelope!.messageId)
  await to.close()
})

it('HTTP into a broken database: 500 INTERNAL without its text', async () => {
  const { alice } = users
  await rename('conversations', 'gone')
  const answer = await alice.get('/v1/conversations')
  expect([answer.status, answer.body]).toEqual([
    500,
    { error: { code: 'INTERNAL', message: 'internal error', retry_after_ms: 0 } },
  ])
  expect(logged().join()).toContain('relation \\"conversations\\" does not exist')
})

it('a live session whose reads fail is not told; it goes on when they work again', async () => {
  const { alice, bob, conversation } = users
  const to = await bob.live()
  await rename('gaps', 'gone')
  await commitUnannounced(relay.db.database.sql, { from: alice, to: bob, conversation, count: 3 })
  while (!relay.logged.some((line) => line.includes('queue read failed'))) await to.fence()
  await rename('gone', 'gaps')
  for (let i = 0; i < 3; i++) await to.next('envelope')
  expect(to.closed).toBe(null)
  await to.close()
})

it('a database that is away is UNAVAILABLE with a time to wait, on HTTP and on the socket', async () => {
  const { alice, bob, conversation } = users
  const { sql } = relay.db.database
  const from = await alice.live()
  const cut = () => sql`select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and application_name = 'sealpost-writer'`
  // The writer's statement waits for the lock and is cut off, again and again, until the relay gives up or gets through.
  let answer: Promise<unknown> | null = null
  await sql.begin(async (tx) => {
    await tx`set local idle_in_transaction_session_timeout = 0`
    await tx`lock table messages in access exclusive mode`
    let settled = false
    const asked = from.send(conversation, [bob.to()]).then((it) => {
      settled = true
      return it
    })
    answer = asked
    while (!settled) {
      await cut()
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  })
  const { error } = (await answer!) as { error?: { code: number; retryAfterMs: number } }
  expect(error?.code).toBe(ErrorCode.ERROR_CODE_UNAVAILABLE)
  expect(error?.retryAfterMs).toBeGreaterThan(0)
  await from.fence()
  await from.close()
}, 60_000)

it('refusals on HTTP carry code, message and retry_after_ms, and Retry-After where there is a wait', async () => {
  const answer = await request(relay.url, 'GET', '/v1/nowhere')
  expect(answer.status).toBe(404)
  expect(answer.body).toEqual({ error: { code: 'NOT_FOUND', message: expect.any(String), retry_after_ms: 0 } })
})
