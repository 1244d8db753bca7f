// The same frames nobody meant, one per request, and questions nobody meant for the queue: always one frame, a code of the list, never
// 5xx; between them the endpoints work. I15 [C-9]
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { Client } from '../support/client.ts'
import { frameVectors, makeWorld } from '../support/frame-vectors.ts'
import { kinds, poll, post, postBytes } from '../support/http-frames.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { mangled } from './mangle.ts'
import { runs, within } from './runs.ts'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void
const { ErrorCode } = sealpost.v1
const MiB = 1024 * 1024
const UNSAID = [ErrorCode.ERROR_CODE_UNSPECIFIED, ErrorCode.ERROR_CODE_INTERNAL]

const valid = frameVectors('valid')
const sources = [...valid, ...frameVectors('invalid')].map((each) => each.frame).filter((frame) => frame.length < 8192)

let relay: TestRelay
let sender: Client
beforeAll(async () => {
  relay = await testRelay()
  sender = await Client.register(relay)
  await makeWorld(relay.db.database.sql, sender, valid[0]!.world)
})
afterAll(() => relay.close())

async function exchange(bytes: Uint8Array): Promise<void> {
  const { status, frame } = await postBytes(sender, bytes)
  expect(status).toBeLessThan(500)
  expect(frame === null).toBe(status === 204)
  if (!frame) return
  const { error } = frame
  expect(error ? status >= 400 : status === 200).toBe(true)
  if (!error) return
  expect(UNSAID).not.toContain(error.code)
  expect(ErrorCode[error.code!]).toMatch(/^ERROR_CODE_/)
  expect(error.message).not.toBe('')
}
/** Nothing surprised the relay, and it works. */
async function calm(): Promise<void> {
  expect(relay.logged.splice(0).filter((line) => JSON.parse(line).level >= 50)).toEqual([])
  expect((await post(sender, { ack: {} })).frame!.ackCommitted).toBeTruthy()
  expect(kinds((await poll(sender)).frames).slice(0, 2)).toEqual(['hello', 'syncResponse'])
}

it(
  'random bytes, and bytes near a frame',
  async () => {
    const bytes = fc.oneof(fc.uint8Array({ maxLength: 300, size: 'max' }), { weight: 3, arbitrary: mangled(sources) })
    await fc.assert(fc.asyncProperty(bytes, exchange), runs(600))
    await calm()
  },
  within(30_000),
)

it(
  'any question for the queue',
  async () => {
    const value = fc.oneof(
      fc.uuid(),
      fc.integer({ min: -2, max: 130 }).map(String),
      fc.string({ unit: 'grapheme', maxLength: 30 }),
      fc.constantFrom('', '0', '00', '1e2', '+1', '0x10', ' 1', '1.0', '٣', '9'.repeat(400), 'NaN', '1&limit=1'),
    )
    // It would wait, which is no surprise.
    const seconds = value.filter((text) => !/^0*[1-9]\d{0,3}$/.test(text) || Number(text) > 60)
    const name = fc.constantFrom('last_message_id', 'limit', 'cursor', 'Limit', '__proto__')
    const field = fc.oneof(fc.tuple(name, value), fc.tuple(fc.constant('wait_seconds'), seconds))
    const asked = fc
      .array(field, { maxLength: 5 })
      .map((fields) => fields.map((each) => each.map(encodeURIComponent).join('=')).join('&'))
    await fc.assert(
      fc.asyncProperty(asked, async (query) => {
        const { status, frames } = await poll(sender, query)
        if (status === 200) expect(kinds(frames).slice(0, 2)).toEqual(['hello', 'syncResponse'])
        else
          expect([status, kinds(frames), frames[0]!.error!.code]).toEqual([
            ...[400, ['error'], ErrorCode.ERROR_CODE_INVALID_REQUEST],
          ])
      }),
      runs(300),
    )
    await calm()
  },
  within(20_000),
)

it(
  'memory stays flat',
  async () => {
    const round = async (seed: number): Promise<number> => {
      await fc.assert(fc.asyncProperty(mangled(sources), exchange), { ...runs(200), seed })
      for (let i = 0; i < 50; i++) await poll(sender)
      relay.logged.length = 0
      gc()
      return process.memoryUsage().heapUsed + process.memoryUsage().external
    }
    await round(1)
    const before = await round(2)
    expect((await round(3)) - before).toBeLessThan(8 * MiB)
  },
  within(30_000),
)
