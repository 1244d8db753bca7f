// Every frame vector is sent to a real relay and answered as its file says.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { Client, type Socket } from '../support/client.ts'
import { type FrameVector, frameVectors, makeWorld } from '../support/frame-vectors.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode } = sealpost.v1

let relay: TestRelay
let socket: Socket
const [valid, invalid] = [frameVectors('valid'), frameVectors('invalid')]
beforeAll(async () => {
  relay = await testRelay()
  const sender = await Client.register(relay)
  await makeWorld(relay.db.database.sql, sender, valid[0]!.world)
  socket = await sender.live()
})
afterAll(async () => {
  await socket.close()
  await relay.close()
})

/** What a frame is answered with; the connection is asked for a sign of life behind it. */
async function answerTo({ frame, answer: expected }: FrameVector): Promise<FrameVector['answer']> {
  socket.ws.send(frame)
  if (expected.kind === 'none') {
    await socket.fence()
    expect(socket.frames.splice(0).filter((each) => !each.queueEmpty)).toEqual([])
    return expected
  }
  do await socket.fence()
  while (!socket.frames.some((each) => !each.queueEmpty))
  const [answer, ...more] = socket.frames.splice(0).filter((each) => !each.queueEmpty)
  expect(more).toEqual([])
  const { requestId = 0, error, body } = answer!
  const kind = body!.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
  return error
    ? { kind, code: ErrorCode[error.code!]!.replace('ERROR_CODE_', ''), request_id: requestId }
    : { kind, request_id: requestId }
}

describe('valid', () => {
  it('there are some', () => expect(valid.length).toBeGreaterThan(30))
  it.each(valid)('$file: $reason [$clause]', async (vector) => expect(await answerTo(vector)).toEqual(vector.answer))
})

describe('invalid', () => {
  it('there are some', () => expect(invalid.length).toBeGreaterThan(50))
  it.each(invalid)('$file: $reason [$clause]', async (vector) => {
    const waiting = async () =>
      (await relay.db.database.sql<[{ n: number }]>`select count(*) as n from message_deliveries_waiting`)[0].n
    const before = await waiting()
    expect(await answerTo(vector)).toEqual(vector.answer)
    expect(await waiting()).toBe(before)
  })
})
