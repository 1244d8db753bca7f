// The clear fields of a message: reply, attachment and thumbnail are stored and delivered as they were sent. [S-7]
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes } from '../../proto/ids.ts'
import type { Client } from '../support/client.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

const { ErrorCode, Priority } = sealpost.v1

let relay: TestRelay
let alice: Client
let bob: Client
let conversation: string
beforeAll(async () => {
  relay = await testRelay()
  ;({ alice, bob, conversation } = await pair(relay))
})
afterAll(() => relay.close())

const URLS = {
  attachmentUrl: 'https://files.example/a b?x="1",{\\}&é=☃#\'',
  thumbnailUrl: 'https://files.example/t,{}"null"',
}

it('a reply names the message it answers, live and from the queue', async () => {
  const [from, to] = [await alice.live(), await bob.live()]
  const first = (await from.send(conversation, [bob.to()])).messageAccepted!
  const reply = (await from.send(conversation, [bob.to()], { replyToMessageId: first.messageId! })).messageAccepted!
  const [one, two] = [await to.next('envelope'), await to.next('envelope')]
  expect(one.ciphertext?.replyToMessageId).toEqual(Buffer.alloc(0))
  expect(two.ciphertext?.replyToMessageId).toEqual(first.messageId)
  expect((await to.sync()).messages).toEqual([one, two])
  const [row] = await relay.db.database.sql`
    select reply_to_message_id from messages where message_id = ${uuidFromBytes(reply.messageId!)}`
  expect(row!.reply_to_message_id).toBe(uuidFromBytes(first.messageId!))
  await to.drain()
  await Promise.all([from.close(), to.close()])
})

it('attachment_url and thumbnail_url arrive character by character, live and from the queue', async () => {
  const [from, to] = [await alice.live(), await bob.live()]
  const more = { ...URLS, messageType: 32767, urgent: false, priority: Priority.PRIORITY_LOW }
  const accepted = (await from.send(conversation, [{ ...bob.to(), iv: Buffer.alloc(64, 7) }], more)).messageAccepted!
  const envelope = await to.next('envelope')
  expect(envelope.ciphertext).toMatchObject({ ...URLS, messageType: 32767, urgent: false, iv: Buffer.alloc(64, 7) })
  expect((await to.sync()).messages).toEqual([envelope])
  const [row] = await relay.db.database.sql`
    select attachment_url, thumbnail_url, message_type, urgent from messages where message_id = ${uuidFromBytes(accepted.messageId!)}`
  expect(row).toEqual({
    attachment_url: URLS.attachmentUrl,
    thumbnail_url: URLS.thumbnailUrl,
    message_type: 32767,
    urgent: false,
  })
  await to.drain()
  await Promise.all([from.close(), to.close()])
})

it('texts that look like SQL arrays or NULL stay texts', async () => {
  const [from, to] = [await alice.live(), await bob.live()]
  const texts = ['null', 'NULL', '{}', '{a,b}', '"', '\\', ' ', "';--", '\u0001', '👩‍👩‍👧']
  await Promise.all(
    texts.map((text) => from.send(conversation, [bob.to()], { attachmentUrl: text, thumbnailUrl: text })),
  )
  const got = await Promise.all(texts.map(() => to.next('envelope')))
  expect(got.map((each) => each.ciphertext?.attachmentUrl)).toEqual(texts)
  expect(got.map((each) => each.ciphertext?.thumbnailUrl)).toEqual(texts)
  await Promise.all([from.close(), to.close()])
})

it('a NUL character is refused by the name of its field, before it comes near the database', async () => {
  const from = await alice.live()
  for (const [field, more] of [
    ['attachment_url', { attachmentUrl: 'https://files.example/\0' }],
    ['thumbnail_url', { thumbnailUrl: '\0' }],
  ] as const) {
    const { error } = await from.send(conversation, [bob.to()], more)
    expect(error?.code).toBe(ErrorCode.ERROR_CODE_INVALID_REQUEST)
    expect(error?.message).toContain(field)
  }
  expect(relay.logged.filter((line) => JSON.parse(line).level >= 40)).toEqual([])
  await from.close()
})
