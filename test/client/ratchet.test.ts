// What keeps sessions turning without a word of people: empty encrypted messages between devices, which nobody is shown.
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Device, HttpRequest, Transport } from '../../client/index.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes } from '../../proto/ids.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { joined, quiet, say, shown, texts } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

const { Scope } = sealpost.v1
const [PREKEY, WHISPER] = [3, 2]

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** Sends that are meant for single devices, as this device made them. */
const subsets = (wire: Tamper) =>
  wire.sent
    .map(({ signalMessage }) => signalMessage)
    .filter((message) => message?.scope === Scope.SCOPE_SUBSET)
    .map((message) => message!.recipients!)

/** Resolves when the next ciphertext that comes was stored and acked: with its type. */
function taken(wire: Tamper): Promise<number> {
  return new Promise((resolve) => {
    wire.frames = (frame) => {
      const { messageId, ciphertext } = frame.envelope ?? {}
      if (ciphertext) {
        wire.frames = null
        const isIt = (id: Uint8Array) => uuidFromBytes(id) === uuidFromBytes(messageId!)
        void wire.asked(({ ack }) => !!ack?.messageIds?.some(isIt)).then(() => resolve(ciphertext.ciphertextType!))
      }
      return [frame]
    }
  })
}

const bye = (...all: Device[]) => Promise.all(all.map((each) => each.close()))

it('the first message of a session is answered by a heartbeat: encrypted, to its sender’s device alone, shown to nobody', async () => {
  const [hers, wire] = [new Tamper(), new Tamper()]
  const [alice, bob] = [await joined(relay, { transport: hers }), await joined(relay, { transport: wire })]
  const conversation = await alice.conversations.direct(bob.userId)
  const heartbeat = taken(hers)
  await say(alice, conversation, 'hello')
  await shown(bob, conversation, 'hello')
  await quiet(bob)
  const [heartbeats] = subsets(wire)
  expect(subsets(wire)).toHaveLength(1)
  expect(heartbeats).toHaveLength(1)
  expect(heartbeats![0]).toMatchObject({ deviceId: alice.deviceId, ciphertextType: WHISPER })
  expect(uuidFromBytes(heartbeats![0]!.userId!)).toBe(alice.userId)
  // A block of padding and what libsignal puts around it: no room for words.
  expect(heartbeats![0]!.content!.length).toBeLessThan(400)
  expect(await heartbeat).toBe(WHISPER)
  expect(texts(alice, conversation)).toEqual(['hello'])
  // The session is established both ways: what follows carries no keys any more.
  const next = taken(wire)
  await say(alice, conversation, 'and now without keys')
  expect(await next).toBe(WHISPER)
  await bye(alice, bob)
})

it('50 messages without a word of ours: one heartbeat, and the next after 50 more', async () => {
  const wire = new Tamper()
  const [alice, bob] = [await joined(relay), await joined(relay, { transport: wire })]
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'first')
  await shown(bob, conversation, 'first')
  await quiet(bob)
  let heartbeats = subsets(wire).length
  expect(heartbeats).toBe(1)
  const talk = async (count: number) => {
    for (let i = 0; i < count; i++) alice.send(conversation, { text: `m${i}` })
    await say(alice, conversation, `end of ${count}`)
    await shown(bob, conversation, `end of ${count}`)
    await quiet(bob)
  }
  await talk(48)
  expect(subsets(wire)).toHaveLength(heartbeats)
  await talk(0)
  expect(subsets(wire)).toHaveLength(++heartbeats)
  // A word of ours is as good as a heartbeat: counting begins anew.
  await talk(30)
  await say(bob, conversation, 'I am listening')
  await talk(48)
  expect(subsets(wire)).toHaveLength(heartbeats)
  await talk(1)
  expect(subsets(wire)).toHaveLength(++heartbeats)
  expect(
    subsets(wire)
      .flat()
      .some(({ ciphertextType }) => ciphertextType === PREKEY),
  ).toBe(false)
  await bye(alice, bob)
})

it('a heartbeat waits until the roster is known: a member is no ghost, and nobody is shown an empty message', async () => {
  const wire = new Tamper()
  let open = () => {}
  const barrier = new Promise<void>((resolve) => {
    open = resolve
  })
  const [alice, bob] = [await joined(relay), await joined(relay)]
  // Carol cannot learn Alice's key, and so not who is in the group that Alice made.
  const isHeld = ({ url }: HttpRequest) => url.includes(`/v1/keys/${alice.userId}`)
  const slow: Transport = {
    open: wire.open.bind(wire),
    request: async (request) => {
      if (isHeld(request)) await barrier
      return wire.request(request)
    },
  }
  const carol = await joined(relay, { transport: slow })
  const ghosts: string[] = []
  carol.on('ghost', ({ userId }) => ghosts.push(userId))
  const group = await alice.conversations.group([bob.userId, carol.userId])
  const came = taken(wire)
  await say(bob, group, 'who is here?')
  await came
  // The relay was asked for a sign of life and gave it: a heartbeat would have left before.
  for (let i = 0; i < 2; i++) await wire.heard()
  open()
  await shown(carol, group, 'who is here?')
  await quiet(carol)
  await quiet(bob)
  expect(
    subsets(wire)
      .flat()
      .map(({ withheld }) => withheld ?? 0),
  ).toEqual([0])
  expect(texts(bob, group)).toEqual(['who is here?'])
  expect(ghosts).toEqual([])
  expect(carol.conversations.get(group)!.ghosts).toEqual([])
  await bye(alice, bob, carol)
})
