// The scenarios of a chat: online, offline, twice, to nowhere.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { Client } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

describe('a direct conversation', () => {
  it('delivers online, at once, in order, and nothing is left after the ack', async () => {
    const [alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
    const conversation = await alice.direct(bob)
    const [from, to] = [await alice.live(), await bob.live()]
    const content = Buffer.from('hello')
    const answer = await from.send(conversation, [bob.to(content)])
    expect(answer.messageAccepted?.duplicate).toBe(false)
    const envelope = await to.next('envelope')
    expect(envelope.ciphertext?.content).toEqual(content)
    expect(envelope.messageId).toEqual(answer.messageAccepted?.messageId)
    await to.ack(envelope.messageId)
    expect((await to.sync()).messages).toEqual([])
    await Promise.all([from.close(), to.close()])
  })

  it('keeps what comes while the recipient is away', async () => {
    const [alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
    const conversation = await alice.direct(bob)
    await (await bob.live()).close()
    const from = await alice.live()
    for (let i = 0; i < 3; i++) await from.send(conversation, [bob.to(Buffer.from(`m${i}`))])
    const to = await bob.connect()
    expect(to.hello.queueWaiting).toBe(true)
    const page = await to.sync()
    expect(page.messages?.map((each) => Buffer.from(each.ciphertext!.content!).toString())).toEqual(['m0', 'm1', 'm2'])
    await to.next('queueEmpty')
    await Promise.all([from.close(), to.close()])
  })

  it('answers a repeated send with the first message id and delivers it once', async () => {
    const [alice, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
    const conversation = await alice.direct(bob)
    const [from, to] = [await alice.live(), await bob.live()]
    const clientMessageId = uuidToBytes(uuidV7(Date.now()))
    const first = await from.send(conversation, [bob.to()], { clientMessageId })
    const second = await from.send(conversation, [bob.to()], { clientMessageId })
    expect(second.messageAccepted?.duplicate).toBe(true)
    expect(second.messageAccepted?.messageId).toEqual(first.messageAccepted?.messageId)
    await to.fence()
    expect(to.envelopes().length).toBe(1)
    await Promise.all([from.close(), to.close()])
  })

  it('refuses an unknown conversation on a connection that stays usable', async () => {
    const alice = await Client.register(relay)
    const from = await alice.live()
    const answer = await from.send('00000000-0000-4000-8000-000000000000', [alice.to()])
    expect(answer.error?.code).toBe(sealpost.v1.ErrorCode.ERROR_CODE_INVALID_REQUEST)
    await from.fence()
    await from.close()
  })
})
