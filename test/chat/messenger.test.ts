// The messenger without its screen, on real devices and a relay that lies now and then: what went wrong is said, kept, and can be mended.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { Desk, WITHIN_MS } from '../support/desk.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, say, until } from '../support/sdk.ts'

const { ErrorCode } = sealpost.v1

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

it('what failed says why, and goes out with the same bytes when it is sent again', async () => {
  const [alice, bob] = [await Desk.open(relay, 'alice.11'), await joined(relay)]
  await bob.usernames.claim('bob.11')
  alice.enter('/chat bob.11')
  await alice.see('')
  alice.wire.frames = (frame) =>
    frame.messageAccepted
      ? [
          new sealpost.v1.ServerFrame({
            requestId: frame.requestId,
            error: { code: ErrorCode.ERROR_CODE_FORBIDDEN, message: 'a lie' },
          }),
        ]
      : [frame]
  await expect.poll(() => alice.messenger.state.open, { timeout: WITHIN_MS }).not.toBeNull()
  alice.enter('is this allowed?')
  await alice.see(
    /you +is this allowed\?\n +✗ not sent: they have not accepted yet, and take no more until then\. Ctrl\+R sends it again\./,
  )
  alice.wire.frames = null
  alice.enter('/retry')
  await alice.see(/you +is this allowed\? ✓/)
  alice.enter('/retry')
  await alice.see('Nothing failed here.')
  await Promise.all([alice.close(), bob.close()])
})

it('what cannot be read, what does not belong, and what was lost is said in place, and still known after a restart', async () => {
  const [alice, bob] = [await Desk.open(relay, 'alice.12'), await joined(relay)]
  await bob.usernames.claim('bob.12')
  const conversation = await bob.conversations.direct(alice.device.userId)
  // What came before may come again in a page, and is no news then: the first news is spoilt.
  const came = new Set<string>()
  let spoils = false
  alice.wire.frames = (frame) => {
    for (const { ciphertext } of [frame.envelope ?? {}, ...(frame.syncResponse?.messages ?? [])]) {
      const { content, clientMessageId } = ciphertext ?? {}
      const id = Buffer.from(clientMessageId ?? []).toString('hex')
      if (!content || came.has(id)) continue
      came.add(id)
      if (!spoils) continue
      spoils = false
      content[content.length - 9]! ^= 1
    }
    return [frame]
  }
  await say(bob, conversation, 'first')
  await expect.poll(() => alice.messenger.state.chats.length, { timeout: WITHIN_MS }).toBe(1)
  alice.messenger.open(conversation)
  await alice.see('bob.12 first')
  // Until he has heard of her, his messages open a session anew, and not every byte of such a one matters.
  const answered = until(bob, 'message')
  alice.enter('who is there?')
  await answered

  spoils = true
  // Looked for from before on: it is on the screen only until the copy that was asked for has come.
  const told = alice.see('a message from bob.12 could not be decrypted; asked for it again')
  await say(bob, conversation, 'spoilt on the way')
  await told
  await alice.see('bob.12 spoilt on the way')

  // A relay that swaps the ids: the content says where it belongs.
  alice.wire.frames = (frame) => {
    for (const { ciphertext } of [frame.envelope ?? {}, ...(frame.syncResponse?.messages ?? [])])
      if (ciphertext?.clientMessageId) ciphertext.clientMessageId = new Uint8Array(16).fill(7)
    return [frame]
  }
  await say(bob, conversation, 'moved')
  await alice.see('a message from bob.12 is not shown: the content is of another message')
  expect(alice.text).not.toContain('moved')

  alice.wire.frames = (frame) => {
    if (frame.syncResponse)
      frame.syncResponse.gap = { gapId: new Uint8Array(16).fill(1), overflowed: 3, expired: 2, sinceMs: 1 }
    return [frame]
  }
  alice.device.disconnect()
  alice.device.connect()
  await alice.see('5 messages were lost: 3 because too much was waiting, 2 because they waited too long')
  alice.wire.frames = null

  alice.messenger.stop()
  alice.begin()
  for (const kept of ['could not be decrypted', 'is not shown', '5 messages were lost']) await alice.see(kept)
  alice.enter('/problems')
  await alice.see(/Lost, unreadable, refused\n5 messages lost since[\s\S]*bob\.12 could not be decrypted/)
  await Promise.all([alice.close(), bob.close()])
})

it('whom the relay delivers to without a member’s word is shown, and gets nothing', async () => {
  const [alice, bob, mallory] = [await Desk.open(relay, 'alice.13'), await joined(relay), await joined(relay)]
  await bob.usernames.claim('bob.13')
  alice.enter('/chat bob.13')
  await expect.poll(() => alice.messenger.state.open, { timeout: WITHIN_MS }).not.toBeNull()
  alice.enter('first')
  await alice.see(/first ✓/)
  let asked = false
  alice.wire.frames = (frame) => {
    if (asked || !frame.messageAccepted) return [frame]
    asked = true
    const missing = [{ userId: Buffer.from(mallory.userId.replaceAll('-', ''), 'hex'), deviceId: 1, registrationId: 1 }]
    const error = { code: ErrorCode.ERROR_CODE_DEVICE_MISMATCH, message: 'a lie', deviceMismatch: { missing } }
    return [new sealpost.v1.ServerFrame({ requestId: frame.requestId, error })]
  }
  alice.enter('second')
  await alice.see(/the relay delivers to unnamed-\w{6}, whom no member added/)
  await alice.see(/second ✓|second\n +✗/)
  alice.enter('/members')
  await alice.see(/In bob\.13[\s\S]*added by nobody/)
  await Promise.all([alice.close(), bob.close(), mallory.close()])
})
