// A device's queue as a client has to take it: pages, duplicates, gaps, acks. to [Q-8] [C-2.5]
import { randomBytes } from 'node:crypto'
import { type Check, hold, same } from '../../check.ts'
import { refuse } from '../endpoints.ts'
import type { Line } from '../line.ts'
import type { Stage, Talk } from '../stage.ts'

const hex = (bytes: Uint8Array | null | undefined): string => Buffer.from(bytes ?? []).toString('hex')

/** Off and on again, with something waiting meanwhile. */
async function away(stage: Stage, meanwhile: (talk: Talk) => Promise<unknown>): Promise<{ talk: Talk; line: Line }> {
  const talk = await stage.talk()
  await stage.call('disconnect')
  await stage.relay.when(() => stage.relay.line === null, 'the client to disconnect')
  await meanwhile(talk)
  return { talk, line: await stage.connect() }
}

/** A field no version of the protocol has, and a body none has. */
const UNKNOWN_FIELD = Buffer.from([0xa2, 0x1f, 0x03, 1, 2, 3])
const UNKNOWN_BODY = Buffer.from([0xc2, 0x3e, 0x03, 1, 2, 3])

const count = (texts: (string | null)[], text: string): number => texts.filter((each) => each === text).length

export const receiving: Check<Stage>[] = [
  {
    clauses: ['Q-1', 'Q-3', 'Q-3.1', 'Q-3.3', 'Q-4.1', 'Q-5'],
    title: 'reads what waits page by page, in order, one request at a time',
    async run(stage) {
      const { relay } = stage
      relay.limits.pageMessages = 3
      const texts = Array.from({ length: 8 }, (_, at) => `number ${at + 1}`)
      const { talk, line } = await away(stage, async ({ bob, conversation }) => {
        for (const text of texts) await bob.say(conversation, text)
      })
      await stage.shown(talk.conversation, texts.at(-1)!)
      await stage.acked()
      same((await stage.texts(talk.conversation)).slice(-8), texts, 'as what is shown')
      const syncs = line.frames.filter((each) => each.syncRequest)
      hold(syncs.length >= 3, 'a request for each page', syncs.length)
      return `${syncs.length} requests, ${texts.length} messages in order`
    },
  },
  {
    clauses: ['Q-3.3', 'Q-4.2', 'Q-4.1'],
    title: 'goes on after an empty page that says there is more, and asks for no page while one is under way',
    async run(stage) {
      const { relay } = stage
      let open = 0
      let most = 0
      let pages = 0
      const { talk } = await away(stage, async ({ bob, conversation }) => {
        for (const text of ['one', 'two']) await bob.say(conversation, text)
        relay.script.frame = (line, { syncRequest, requestId }) => {
          if (!syncRequest) return false
          most = Math.max(most, ++open)
          pages++
          const first = pages === 1
          setTimeout(() => {
            open--
            if (first) line.send({ requestId: requestId ?? 0, syncResponse: { messages: [], hasMore: true } })
            else line.page(requestId ?? 0, syncRequest)
          }, 30)
          return true
        }
      })
      await stage.shown(talk.conversation, 'two')
      same(most, 1, 'as most pages under way at a time')
      hold(pages >= 2, 'another request after the empty page', pages)
      return `${pages} requests, never two at a time`
    },
  },
  {
    clauses: ['Q-6', 'Q-6.3', 'Q-6.4'],
    title: 'an envelope that comes twice is shown once and acked both times',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      const envelope = await bob.say(conversation, 'twice')
      await stage.shown(conversation, 'twice')
      await stage.acked()
      const acks = () => relay.acked.filter((each) => each === hex(envelope.messageId)).length
      const before = acks()
      relay.say({ envelope })
      relay.say({ envelope })
      await bob.say(conversation, 'after that')
      await stage.shown(conversation, 'after that')
      await stage.acked()
      await relay.when(() => acks() > before, 'an ack of the repeated envelope')
      same(count(await stage.texts(conversation), 'twice'), 1, 'as count of such messages shown')
      return 'shown once, acked again'
    },
  },
  {
    clauses: ['Q-6.4', 'Q-6.5'],
    title: 'an ack that was lost: the envelope comes again on the next connection, is shown once and acked again',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      relay.script.frame = (line, { ack }) => {
        if (!ack || (ack.messageIds ?? []).length === 0) return false
        line.close(1001)
        return true
      }
      await bob.say(conversation, 'again and again')
      await stage.shown(conversation, 'again and again')
      const before = relay.lines.length
      await relay.when(() => relay.line === null || relay.lines.length > before, 'an ack')
      delete relay.script.frame
      await stage.later(() => relay.lines.length >= before && relay.line?.isLive, 'a new connection', 60_000)
      await stage.acked()
      same(count(await stage.texts(conversation), 'again and again'), 1, 'as count of such messages shown')
      return 'acked on the second connection, shown once'
    },
  },
  {
    clauses: ['Q-6.1', 'Q-6.4'],
    title: 'AckCommitted may be late or never come: nothing waits for it',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      relay.script.frame = (_line, { ack }) => (ack?.messageIds ?? []).length > 0
      for (const text of ['first', 'second', 'third']) await bob.say(conversation, text)
      await stage.shown(conversation, 'third')
      await stage.say(conversation, 'and mine')
      delete relay.script.frame
      return 'three messages shown and one sent without an AckCommitted'
    },
  },
  {
    clauses: ['Q-6.4'],
    title: 'the same message in another envelope is shown once',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      const first = await bob.say(conversation, 'one message')
      await stage.shown(conversation, 'one message')
      const { ciphertext, conversationId } = first
      relay.deliver({ conversationId: conversationId!, ciphertext: ciphertext! })
      const clientMessageId = ciphertext!.clientMessageId!
      await bob.say(conversation, 'one message', { clientMessageId })
      await bob.say(conversation, 'another')
      await stage.shown(conversation, 'another')
      await stage.acked()
      same(count(await stage.texts(conversation), 'one message'), 1, 'as count of such messages shown')
      return 'by sender and client_message_id: the old bytes and new ones, shown once'
    },
  },
  {
    clauses: ['Q-6.3'],
    title: 'what cannot be decrypted is acked too and holds nothing up',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      for (const type of [2, 3, 7, 8, 55])
        relay.deliver(bob.device.envelope(conversation, randomBytes(16), type, randomBytes(80)))
      await bob.say(conversation, 'readable')
      await stage.shown(conversation, 'readable')
      await stage.acked()
      return 'random bytes of types 2, 3, 7, 8 and 55 acked; the next message shown'
    },
  },
  {
    clauses: ['Q-2.5'],
    title: 'missing sequence numbers are no fault',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      relay.skip(40)
      await bob.say(conversation, 'after the hole')
      await stage.shown(conversation, 'after the hole')
      await stage.acked()
      same(relay.lines.length, 1, 'as count of connections')
      return '40 sequences skipped, shown and acked'
    },
  },
  {
    clauses: ['C-2.5'],
    title: 'unknown bodies and fields are ignored',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      const line = relay.line!
      line.raw(UNKNOWN_BODY)
      line.raw(Buffer.concat([UNKNOWN_FIELD]))
      await bob.say(conversation, 'you missed nothing')
      await stage.shown(conversation, 'you missed nothing')
      await stage.acked()
      relay.deliver({ systemEvent: {} })
      relay.deliver({})
      await bob.say(conversation, 'nor here')
      await stage.shown(conversation, 'nor here')
      await stage.acked()
      same(relay.lines.length, 1, 'as count of connections')
      return 'a body, a field and two empty envelopes of the future; the connection stayed'
    },
  },
  {
    clauses: ['Q-8', 'Q-8.4', 'Q-8.5'],
    title: 'a gap is acked by its id, and its user is told',
    async run(stage) {
      const { relay } = stage
      const gapId = randomBytes(16)
      await away(stage, async ({ bob, conversation }) => {
        relay.gap = { gapId, overflowed: 3, expired: 2, sinceMs: relay.now() - 1000 }
        await bob.say(conversation, 'what is left')
      })
      await relay.when(() => relay.gap === null, 'an ack of gap_id')
      const { notices } = await stage.call('notices')
      const told = (notices ?? []).some((each: { what: string }) => each.what === 'gap')
      hold(told, 'a notice of the gap', notices)
      return 'acked, and told'
    },
  },
  {
    clauses: ['S-6.2'],
    title: 'a withheld envelope is acked, and that a message exists is shown',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      const envelope = bob.device.envelope(conversation, randomBytes(16), 0, new Uint8Array(0))
      envelope.ciphertext!.withheld = 1
      relay.deliver(envelope)
      await bob.say(conversation, 'and this one you get')
      await stage.shown(conversation, 'and this one you get')
      await stage.acked()
      hold(
        (await stage.messages(conversation)).some((each) => each.withheld),
        'a message shown as withheld',
        'none',
      )
      return 'shown as withheld'
    },
  },
  {
    clauses: ['Q-3', 'S-9.5'],
    title: 'a refused SyncRequest is asked again',
    async run(stage) {
      const { relay } = stage
      let refusals = 0
      const { talk } = await away(stage, async ({ bob, conversation }) => {
        await bob.say(conversation, 'in the end')
        relay.script.frame = (line, { syncRequest, requestId }) => {
          if (!syncRequest || refusals > 0) return false
          refusals++
          line.send({ requestId: requestId ?? 0, error: { code: 10, message: 'no', retryAfterMs: 300 } })
          return true
        }
        setTimeout(() => void stage.pass(20_000, () => relay.queue.length === 0, 500).catch(() => {}), 50)
      })
      await stage.shown(talk.conversation, 'in the end')
      same(refusals, 1, 'as count of refusals')
      return 'OVERLOADED once, then the page'
    },
  },
  {
    clauses: ['E-2', 'H-2'],
    title: 'HTTP that refuses or breaks is no end of the connection',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      relay.script.http = ({ path }) => (path.startsWith('/v1/') ? refuse(503, 'UNAVAILABLE', 1000) : null)
      await bob.say(conversation, 'still here')
      await stage.shown(conversation, 'still here')
      await stage.say(conversation, 'me too')
      delete relay.script.http
      same(relay.lines.length, 1, 'as count of connections')
      return 'a message each way while every endpoint answered 503'
    },
  },
]
