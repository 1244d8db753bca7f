// The messenger without its screen, on real devices and a relay that lies now and then: what went wrong is said, kept, and can be mended.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Device, MemoryStorage } from '../../client/index.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { Actions } from '../../scripts/chat/actions.ts'
import { Messenger } from '../../scripts/chat/messenger.ts'
import { openChat, type State } from '../../scripts/chat/model.ts'
import { Notebook } from '../../scripts/chat/notebook.ts'
import { transcript } from '../../scripts/chat/transcript.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, say } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

const { ErrorCode } = sealpost.v1
const WITHIN_MS = 20_000

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** What the open conversation, the line above the input and the page show. */
function textOf(state: State): string {
  const chat = openChat(state)
  const lines = chat ? transcript(state, chat, 200).map((line) => line.map(({ text }) => text).join('')) : []
  const page = state.panel ? [state.panel.title, ...state.panel.lines.map(({ text }) => text)] : []
  return [...lines, state.toast?.text ?? '', ...page].join('\n')
}

/** A messenger whose screen is a text that can be waited for. */
class Desk {
  readonly storage = new MemoryStorage()
  readonly wire = new Tamper()
  readonly device: Device
  messenger!: Messenger
  private actions!: Actions
  private looking: (() => void)[] = []

  private constructor() {
    this.device = device(relay, { storage: this.storage, transport: this.wire })
  }

  static async open(username: string): Promise<Desk> {
    const desk = new Desk()
    await desk.device.register()
    await desk.device.usernames.claim(username)
    desk.begin()
    return desk
  }

  /** As after a restart: another messenger on the same store. */
  begin(): void {
    this.messenger = new Messenger({
      ...{
        device: this.device,
        notebook: new Notebook(this.storage),
        relay: 'relay.test',
        hasColours: true,
        now: Date.now,
      },
      show: () => {
        for (const look of [...this.looking]) look()
      },
    })
    this.actions = new Actions(this.messenger, () => {})
    this.messenger.start({ columns: 80, rows: 24 })
  }

  enter(line: string): void {
    this.messenger.edit({ do: 'insert', text: line })
    this.actions.enter()
  }

  see(wanted: string | RegExp): Promise<void> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no ${wanted} in:\n${textOf(this.messenger.state)}`)), WITHIN_MS)
      const look = () => {
        const text = textOf(this.messenger.state)
        if (typeof wanted === 'string' ? !text.includes(wanted) : !wanted.test(text)) return
        clearTimeout(late)
        this.looking = this.looking.filter((each) => each !== look)
        resolve()
      }
      this.looking.push(look)
      look()
    })
  }

  async close(): Promise<void> {
    this.messenger.people.stop()
    await this.device.close()
  }
}

it('what failed says why, and goes out with the same bytes when it is sent again', async () => {
  const [alice, bob] = [await Desk.open('alice.11'), await joined(relay)]
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
    /you +is this allowed\?\n +✗ not sent: you are not in this conversation any more\. Ctrl\+R sends it again\./,
  )
  alice.wire.frames = null
  alice.enter('/retry')
  await alice.see(/you +is this allowed\? ✓/)
  alice.enter('/retry')
  await alice.see('Nothing failed here.')
  await Promise.all([alice.close(), bob.close()])
})

it('what cannot be read, what does not belong, and what was lost is said in place, and still known after a restart', async () => {
  const [alice, bob] = [await Desk.open('alice.12'), await joined(relay)]
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
  expect(textOf(alice.messenger.state)).not.toContain('moved')

  alice.wire.frames = (frame) => {
    if (frame.syncResponse)
      frame.syncResponse.gap = { gapId: new Uint8Array(16).fill(1), overflowed: 3, expired: 2, sinceMs: 1 }
    return [frame]
  }
  alice.device.disconnect()
  alice.device.connect()
  await alice.see('5 messages were lost: 3 because too much was waiting, 2 because they waited too long')
  alice.wire.frames = null

  alice.messenger.people.stop()
  alice.begin()
  for (const kept of ['could not be decrypted', 'is not shown', '5 messages were lost']) await alice.see(kept)
  alice.enter('/problems')
  await alice.see(/Lost, unreadable, refused\n5 messages lost since[\s\S]*bob\.12 could not be decrypted/)
  await Promise.all([alice.close(), bob.close()])
})

it('whom the relay delivers to without a member’s word is shown, and gets nothing', async () => {
  const [alice, bob, mallory] = [await Desk.open('alice.13'), await joined(relay), await joined(relay)]
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
