// The log holds the required events and nothing that must not be in it (I16).
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { expositionOf, type Observe, openObserve } from '../../server/observe.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await testDatabase()
})
afterAll(() => db.close())

const recorded = (level: 'info' | 'debug' = 'info'): { observe: Observe; lines: string[] } => {
  const lines: string[] = []
  return { lines, observe: openObserve({ level, format: 'json', write: (line) => lines.push(line) }) }
}

test('single messages are logged at debug only', () => {
  const event = { userId: randomUUID(), deviceId: 1, messageId: randomUUID(), sequence: 1 }
  const [quiet, chatty] = [recorded('info'), recorded('debug')]
  quiet.observe.events.deliver(event)
  chatty.observe.events.deliver(event)
  expect(quiet.lines).toEqual([])
  expect(JSON.parse(chatty.lines[0]!)).toMatchObject({ event: 'deliver', ...event })
})

test('fields that hold secrets are redacted at every depth anybody logs them at', () => {
  const { observe, lines } = recorded()
  observe.log.info({
    token: 's3cret-1',
    headers: { authorization: 's3cret-2' },
    request: { body: { content: 's3cret-3' }, device_secret: 's3cret-4' },
    device: { identity_key: 's3cret-5' },
    permit: {
      recoveryCode: 's3cret-6',
      oldSignature: 's3cret-7',
      recovery_code: 's3cret-8',
      old_signature: 's3cret-9',
    },
    enrolled: { deviceSecret: 's3cret-10' },
  })
  expect(lines[0]).toContain('[redacted]')
  expect(lines.join()).not.toContain('s3cret')
})

test('a database error is logged without the values the client sent', async () => {
  const { observe, lines } = recorded()
  const hash = Buffer.alloc(32, 0xab)
  const insert = () => db.database.sql`insert into invitations (token_hash, expires_at) values (${hash}, now())`
  await insert()
  const duplicate = await insert().catch((error: unknown) => error)
  const invalid = await db.database.sql`select ${'s3cret'}::text::uuid`.catch((error: unknown) => error)
  observe.log.error({ err: duplicate }, 'insert failed')
  observe.log.error({ err: invalid }, 'select failed')
  expect(JSON.parse(lines[0]!).err).toMatchObject({ code: '23505', constraint: 'invitations_pkey' })
  expect(JSON.parse(lines[1]!).err).toMatchObject({ code: '22P02', message: 'data error' })
  expect(lines.join()).not.toMatch(/abab|s3cret/)
})

test('what several workers counted is one exposition: each has its series, nothing is added up or left out', async () => {
  const workers = [1, 2].map((worker) => openObserve({ level: 'silent', format: 'json', write: () => {}, worker }))
  workers[0]!.metrics.accepted.inc(3)
  workers[1]!.metrics.accepted.inc(4)
  workers[1]!.metrics.appendSeconds.observe(0.003)
  const snapshots = await Promise.all(workers.map((each) => each.snapshot()))
  const { text, contentType } = await expositionOf(structuredClone(snapshots))
  expect(contentType).toMatch(/^text\/plain/)
  for (const line of [
    'sealpost_messages_accepted_total{worker="1"} 3',
    'sealpost_messages_accepted_total{worker="2"} 4',
    'sealpost_append_seconds_bucket{le="0.005",worker="2"} 1',
  ])
    expect(text.split('\n')).toContain(line)
  // Averages and minima of the default metrics would say nothing of either, and starts would be left out.
  for (const name of ['nodejs_eventloop_lag_mean_seconds', 'process_start_time_seconds'])
    expect(text.match(new RegExp(`^${name}\\{`, 'gm'))).toHaveLength(2)
  expect(text.match(/^# TYPE sealpost_messages_accepted_total /gm)).toHaveLength(1)
})

test('two relays in one process have metrics of their own', async () => {
  const [one, two] = [recorded().observe, recorded().observe]
  one.metrics.accepted.inc()
  one.metrics.framesRefused.inc({ kind: 'send', code: 'FORBIDDEN' })
  const text = (await one.exposition()).text
  expect(text).toContain('sealpost_messages_accepted_total 1')
  expect(text).toContain('sealpost_frames_refused_total{kind="send",code="FORBIDDEN"} 1')
  expect(text).toContain('nodejs_eventloop_lag_seconds')
  expect((await two.exposition()).text).toContain('sealpost_messages_accepted_total 0')
})
