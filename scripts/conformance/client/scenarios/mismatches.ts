// DEVICE_MISMATCH, and bundles that are not to be believed. [S-4] [S-6] [K-4.5]
import { uuidToBytes } from '../../../../proto/ids.ts'
import { type Check, hold, same } from '../../check.ts'
import { DeviceKeys } from '../../keys.ts'
import { PREKEY, WHISPER } from '../../peer.ts'
import type { Recipient } from '../../socket.ts'
import { mismatch } from '../line.ts'
import type { Person, PersonDevice } from '../person.ts'
import type { Reply, Sent } from '../relay.ts'
import type { Stage } from '../stage.ts'

const MAX_ROUNDS = 5

/** What was addressed to a device in an accepted message. */
const to = (sent: Sent, { entry }: PersonDevice): Recipient | undefined =>
  (sent.message.recipients ?? []).find(
    (each) => Buffer.compare(each.userId!, uuidToBytes(entry.userId)) === 0 && each.deviceId === entry.deviceId,
  )

/** Asked for a bundle of that device, in whatever way. */
const asked = (stage: Stage, { entry }: PersonDevice): number =>
  stage.relay.requests.filter(
    ({ path, json }) =>
      path.startsWith('/v1/keys/') &&
      (path === `/v1/keys/${entry.userId}/${entry.deviceId}` ||
        path === `/v1/keys/${entry.userId}/*` ||
        (json?.targets ?? []).some(
          (each: { user_id: string; device_id: number }) =>
            each.user_id === entry.userId && each.device_id === entry.deviceId,
        )),
  ).length

/** Changes every bundle of one device on its way to the client. */
function tamper(
  stage: Stage,
  { entry }: PersonDevice,
  change: (bundle: { [name: string]: unknown }, user: { [name: string]: unknown }) => void,
): void {
  stage.relay.script.answered = ({ path }, reply: Reply) => {
    if (!path.startsWith('/v1/keys/') || reply.status !== 200) return reply
    const body = structuredClone(reply.body) as { bundles?: object[]; devices?: object[] }
    for (const user of (body.bundles ?? [body]) as { user_id: string; devices?: { device_id: number }[] }[])
      for (const bundle of user.devices ?? [])
        if (user.user_id === entry.userId && bundle.device_id === entry.deviceId) change(bundle as never, user as never)
    return { ...reply, body }
  }
}

const flipped = (key: { signature: string }): object => {
  const bytes = Buffer.from(key.signature, 'base64')
  bytes[10]! ^= 1
  return { ...key, signature: bytes.toString('base64') }
}

/** Bob's second device has a bundle that must not be used; his first one must not suffer. */
async function distrusted(
  stage: Stage,
  change: Parameters<typeof tamper>[2],
): Promise<{ reason: number; bob: Person }> {
  const { bob, conversation } = await stage.talk()
  const laptop = bob.link()
  tamper(stage, laptop, change)
  const sent = await stage.say(conversation, 'to whom it may concern')
  const [phone, other] = [to(sent, bob.device), to(sent, laptop)]
  same((await bob.device.read(await stage.at(bob))).text, 'to whom it may concern', 'at the device that is known')
  hold(phone?.content?.length, 'a ciphertext for the known device', 'none')
  same(other?.content?.length ?? 0, 0, 'for the device with the wrong bundle, as bytes of content')
  hold((other?.withheld ?? 0) > 0, 'the device addressed with a withheld reason', other)
  return { reason: other?.withheld ?? 0, bob }
}

const REASONS = ['', 'UNTRUSTED_IDENTITY', 'NO_COMPATIBLE_KEYS', 'NOT_IN_ROSTER']

export const mismatches: Check<Stage>[] = [
  {
    clauses: ['S-4.4', 'S-4.5', 'S-4.1', 'S-2.2'],
    title: 'missing: the new device is met, the sessions with the others stay, the id stays',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const laptop = bob.link()
      const before = asked(stage, bob.device)
      const ids = new Set<string>()
      stage.relay.script.frame = (_line, { signalMessage }) => {
        if (signalMessage?.scope === 1) ids.add(Buffer.from(signalMessage.clientMessageId!).toString('hex'))
        return false
      }
      const sent = await stage.say(conversation, 'to both of you')
      same(to(sent, bob.device)?.ciphertextType, WHISPER, 'for the known device, as ciphertext type')
      same(to(sent, laptop)?.ciphertextType, PREKEY, 'for the new device, as ciphertext type')
      for (const at of [0, 1])
        same((await bob.devices[at]!.read(await stage.at(bob, at))).text, 'to both of you', `at device ${at + 1}`)
      same(asked(stage, bob.device), before, 'as count of bundles asked of the known device')
      same(ids.size, 1, 'as count of client_message_ids')
      return 'a whisper for the known device, a first message for the new one, one id'
    },
  },
  {
    clauses: ['S-4.4', 'S-4.3'],
    title: 'extra: the device is left out of this send',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const laptop = bob.link()
      await stage.say(conversation, 'both')
      bob.unlink(laptop)
      await stage.at(bob)
      const sent = await stage.say(conversation, 'only you')
      same((sent.message.recipients ?? []).length, 1, 'as count of devices addressed')
      same((await bob.device.read(await stage.at(bob))).text, 'only you', 'at the device that stayed')
      return 'accepted without it'
    },
  },
  {
    clauses: ['S-4.4', 'S-4.3', 'K-8.1'],
    title: 'stale: a new session with the device that started over',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const fresh = bob.startOver()
      const sent = await stage.say(conversation, 'welcome back')
      const recipient = to(sent, fresh)
      same(
        [recipient?.ciphertextType, recipient?.registrationId],
        [PREKEY, fresh.entry.registrationId],
        'as ciphertext type and registration id',
      )
      same((await fresh.read(await stage.at(bob))).text, 'welcome back', 'at the device')
      return 'a first message under the new registration id, readable'
    },
  },
  {
    clauses: ['S-4.5'],
    title: 'a mismatch that does not end: it gives up after a few rounds and goes on with the rest',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      let rounds = 0
      let first = ''
      relay.script.frame = (line, { signalMessage, requestId }) => {
        const id = Buffer.from(signalMessage?.clientMessageId ?? []).toString('hex')
        if (!signalMessage || (first && id !== first)) return false
        first = id
        rounds++
        const { userId, deviceId, registrationId } = bob.device.entry
        const stale = [
          { userId: uuidToBytes(userId), deviceId, registrationId: 1 + ((registrationId + rounds) % 16_383) },
        ]
        line.send({ requestId: requestId ?? 0, error: mismatch({ stale }) } as never)
        return true
      }
      const id = await stage.post(conversation, 'never right')
      await relay.when(() => rounds > 0, 'a message')
      await stage.pass(20_000, () => rounds > 12)
      hold(rounds <= 12, `at most about ${MAX_ROUNDS} rounds`, rounds)
      await stage.stateOf(conversation, id, 'failed')
      delete relay.script.frame
      await stage.say(conversation, 'right again')
      same((await bob.device.read(await stage.at(bob))).text, 'right again', 'at the peer, as next message')
      return `${rounds} rounds, failed; the session still works`
    },
  },
  {
    clauses: ['S-4.6', 'S-6', 'S-6.1', 'V-2.3'],
    title: 'a user whom no member added gets nothing: NOT_IN_ROSTER, and the others do not wait',
    async run(stage) {
      const { relay } = stage
      await stage.join()
      const [bob, carol, ghost] = [stage.person(), stage.person(), stage.person()]
      const conversation = await stage.conversation('group', [bob, carol])
      await stage.say(conversation, 'we are three')
      for (const person of [bob, carol])
        same((await person.device.read(await stage.at(person))).text, 'we are three', 'at a member')
      relay.ghosts.set(conversation, [ghost.userId])
      const room = relay.rooms.all.get(conversation)!
      relay.change(room, {
        change: 'members_added',
        actor: relay.device.userId,
        subjects: [ghost.userId],
        role: 0,
        signedChange: null,
      })
      await stage.acked()
      const sent = await stage.say(conversation, 'still three')
      const recipient = to(sent, ghost.device)
      same(
        [recipient?.content?.length ?? 0, REASONS[recipient?.withheld ?? 0]],
        [0, 'NOT_IN_ROSTER'],
        'for the ghost, as bytes and reason',
      )
      for (const person of [bob, carol])
        same((await person.device.read(await stage.at(person))).text, 'still three', 'at a member')
      return 'NOT_IN_ROSTER for the ghost, ciphertexts for the members'
    },
  },
  {
    clauses: ['S-4.6', 'S-6.1', 'K-4.5', 'U-5'],
    title: 'a new device under another identity key gets nothing: UNTRUSTED_IDENTITY',
    async run(stage) {
      const mallory = new DeviceKeys()
      const signed = mallory.signed(9)
      const kyber = mallory.kyber(9)
      const json = (key: { keyId: number; publicKey: Uint8Array; signature: Uint8Array }) => ({
        ...{ key_id: key.keyId, public_key: Buffer.from(key.publicKey).toString('base64') },
        signature: Buffer.from(key.signature).toString('base64'),
      })
      const { reason } = await distrusted(stage, (bundle, user) => {
        user.identity_key = Buffer.from(mallory.identityKey).toString('base64')
        Object.assign(bundle, { signed_prekey: json(signed), kyber_prekey: json(kyber), one_time_prekey: null })
      })
      same(REASONS[reason], 'UNTRUSTED_IDENTITY', 'as reason')
      return 'UNTRUSTED_IDENTITY for it, a ciphertext for the known device'
    },
  },
  {
    clauses: ['K-4.5', 'S-6.1'],
    title: 'a bundle whose signed prekey is not signed by the identity key is not used',
    async run(stage) {
      const { reason } = await distrusted(stage, (bundle) => {
        bundle.signed_prekey = flipped(bundle.signed_prekey as never)
      })
      return `withheld as ${REASONS[reason]}, the known device was served`
    },
  },
  {
    clauses: ['K-4.5', 'S-6.1'],
    title: 'a bundle whose Kyber key is not signed by the identity key is not used',
    async run(stage) {
      const { reason } = await distrusted(stage, (bundle) => {
        bundle.kyber_prekey = flipped(bundle.kyber_prekey as never)
      })
      return `withheld as ${REASONS[reason]}, the known device was served`
    },
  },
  {
    clauses: ['K-4.5', 'S-4.6'],
    title: 'a bundle of another device than asked for is not used',
    async run(stage) {
      const { reason } = await distrusted(stage, (bundle) => {
        bundle.device_id = 77
      })
      return `withheld as ${REASONS[reason]}, the known device was served`
    },
  },
  {
    clauses: ['K-4.2', 'S-6.1', 'S-6'],
    title: 'a device without a Kyber key gets NO_COMPATIBLE_KEYS and holds nobody up',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const old = bob.link({ kyber: false })
      const sent = await stage.say(conversation, 'to those who can')
      const recipient = to(sent, old)
      same(
        [recipient?.content?.length ?? 0, REASONS[recipient?.withheld ?? 0]],
        [0, 'NO_COMPATIBLE_KEYS'],
        'for it, as bytes and reason',
      )
      same((await bob.device.read(await stage.at(bob))).text, 'to those who can', 'at the other device')
      return 'NO_COMPATIBLE_KEYS for it, a ciphertext for the other'
    },
  },
  {
    clauses: ['K-5.5', 'K-4.2'],
    title: 'a bundle without one-time keys is complete',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const laptop = bob.link({ oneTime: 0, kyberOneTime: 0 })
      await stage.say(conversation, 'without')
      same((await laptop.read(await stage.at(bob, 1))).text, 'without', 'at the device')
      return 'a session from signed and last-resort prekeys'
    },
  },
  {
    clauses: ['V-5', 'K-4.5'],
    title: 'IdentityChanged alone changes nothing: the known key stays the one it encrypts for',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const other = new DeviceKeys()
      stage.relay.deliver({
        systemEvent: { identityChanged: { userId: uuidToBytes(bob.userId), identityKey: other.identityKey } },
      })
      await stage.acked()
      const id = await stage.post(conversation, 'who are you?')
      await stage.later(
        () => stage.relay.sent.find((each) => each.clientMessageId === id.replaceAll('-', '')),
        'the message',
        30_000,
      )
      const recipient = to(stage.sent(id), bob.device)
      if (recipient?.withheld) return `withheld as ${REASONS[recipient.withheld]} until its user decides`
      same((await bob.device.read(await stage.at(bob))).text, 'who are you?', 'at the device with the known key')
      return 'encrypted for the known key'
    },
  },
]
