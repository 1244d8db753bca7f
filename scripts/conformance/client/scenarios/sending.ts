// What a client sends, and what it does when the answer is late, lost or a refusal. [S-2] [S-7] [S-9] [P-1] [P-2] [P-3] [P-4]
import { uuidFromBytes } from '../../../../proto/ids.ts'
import { type Check, hold, same, show } from '../../check.ts'
import { v1 } from '../../socket.ts'
import { rosterHash } from '../content.ts'
import type { Line } from '../line.ts'
import type { ScriptedRelay } from '../relay.ts'
import type { Stage } from '../stage.ts'

type Message = NonNullable<Line['frames'][number]['signalMessage']>

const isText = (relay: ScriptedRelay, message: Message): boolean =>
  message.scope === v1.Scope.SCOPE_ALL && !relay.sent.some((each) => each.message === message)
const hexOf = (message: Message): string => Buffer.from(message.clientMessageId!).toString('hex')
/** The same bytes for the same devices. */
const bytesOf = (message: Message): string =>
  show(
    (message.recipients ?? []).map((each) => [
      each.userId,
      each.deviceId,
      Buffer.from(each.content!).toString('base64'),
    ]),
  )

/** Sees every SCOPE_ALL message of the client, and answers those that `deal` does not. */
function watch(
  stage: Stage,
  deal: (line: Line, message: Message, requestId: number, count: number) => boolean,
): Message[] {
  const seen: Message[] = []
  stage.relay.script.frame = (line, { signalMessage, requestId }) => {
    if (!signalMessage || !isText(stage.relay, signalMessage)) return false
    seen.push(signalMessage)
    return deal(line, signalMessage, requestId ?? 0, seen.length)
  }
  return seen
}

const refuse = (line: Line, requestId: number, code: number, retryAfterMs = 0): boolean => {
  line.send({ requestId, error: { code: code as never, message: 'no', retryAfterMs } })
  return true
}

/** A code of a later protocol. */
const UNKNOWN_CODE = 99

export const sending: Check<Stage>[] = [
  {
    clauses: ['P-1', 'P-2', 'P-3.1', 'P-3.2', 'P-3.3', 'P-4', 'S-7.1', 'S-1.1', 'S-2.3'],
    title: 'what it encrypts is a padded Content bound to its envelope, and nothing is in clear',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const sent = await stage.say(conversation, 'between us')
      const content = await bob.device.read(await stage.at(bob))
      same(content.text, 'between us', 'as text')
      same(uuidFromBytes(content.conversationId), conversation, 'as conversation in the Content')
      same(content.clientMessageId, sent.message.clientMessageId, 'as client_message_id in the Content')
      hold(Math.abs(content.sentAtMs - sent.sentAtMs) < 600_000, 'sent_at_ms of now', content.sentAtMs)
      const room = stage.relay.rooms.all.get(conversation)!
      same(content.rosterHash, rosterHash(conversation, room.links.length, room.members), 'as roster_hash')
      const { replyToMessageId, attachmentUrl, thumbnailUrl } = sent.message
      same([replyToMessageId?.length ?? 0, attachmentUrl ?? '', thumbnailUrl ?? ''], [0, '', ''], 'as clear fields')
      const version = sent.message.clientMessageId![6]! >> 4
      hold(version === 7 || version === 4, 'a UUID as client_message_id, version 7 if possible', version)
      return `a multiple of 160 bytes, bound to conversation, id and roster; UUIDv${version}`
    },
  },
  {
    clauses: ['S-2.4', 'S-9.6'],
    title: 'an answer that never comes: the same id and the same bytes again',
    async run(stage) {
      const { conversation } = await stage.talk()
      const seen = watch(stage, (_line, _message, _requestId, count) => count === 1)
      const id = await stage.post(conversation, 'hello?')
      await stage.relay.when(() => seen[0], 'a message')
      await stage.later(() => seen[1], 'the message again', 60_000)
      same(hexOf(seen[1]!), hexOf(seen[0]!), 'as client_message_id')
      same(bytesOf(seen[1]!), bytesOf(seen[0]!), 'as ciphertexts')
      await stage.stateOf(conversation, id, 'sent')
      return 'sent twice under one id with one ciphertext, shown as sent'
    },
  },
  {
    clauses: ['S-2.4', 'S-9.6', 'S-2.1'],
    title: 'accepted, and the connection broke before the answer: the same again on the next one, shown once as sent',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      const seen = watch(stage, (line, message, _requestId, count) => {
        if (count > 1) return false
        line.accept(message)
        line.close(1006)
        return true
      })
      const id = await stage.post(conversation, 'once')
      await relay.when(() => seen[0], 'a message')
      await stage.later(() => relay.sent.at(-1)?.duplicates, 'the message again', 60_000)
      same(
        bytesOf(relay.frames.findLast((each) => each.signalMessage)!.signalMessage!),
        bytesOf(seen[0]!),
        'as ciphertexts',
      )
      await stage.stateOf(conversation, id, 'sent')
      same((await bob.device.read(await stage.at(bob))).text, 'once', 'at the peer')
      same(
        (await stage.texts(conversation)).filter((each) => each === 'once').length,
        1,
        'as count of such messages shown',
      )
      return 'answered as a duplicate, shown once'
    },
  },
  {
    clauses: ['S-2.4', 'S-9.6'],
    title: 'the client died before the answer: after its restart the same id and the same bytes',
    async run(stage) {
      stage.needs('restart')
      const { relay } = stage
      const { conversation } = await stage.talk()
      const seen = watch(stage, (_line, _message, _requestId, count) => count === 1)
      const id = await stage.post(conversation, 'before the end')
      await relay.when(() => seen[0], 'a message')
      await stage.call('restart')
      await stage.connect()
      await stage.later(() => seen[1], 'the message again', 60_000)
      same([hexOf(seen[1]!), bytesOf(seen[1]!)], [hexOf(seen[0]!), bytesOf(seen[0]!)], 'as id and ciphertexts')
      await stage.stateOf(conversation, id, 'sent')
      return 'sent again from the store, byte for byte'
    },
  },
  ...(
    [
      ['RATE_LIMITED', 7],
      ['OVERLOADED', 10],
      ['UNAVAILABLE', 11],
    ] as const
  ).map(
    ([name, code]): Check<Stage> => ({
      clauses: ['S-9.5', 'S-9.4', 'E-2'],
      title: `${name}: the message is sent again after retry_after_ms and not before`,
      async run(stage) {
        const { relay } = stage
        const { conversation } = await stage.talk()
        const times: number[] = []
        const seen = watch(stage, (line, _message, requestId, count) => {
          times.push(relay.now())
          return count === 1 && refuse(line, requestId, code, 12_000)
        })
        const id = await stage.post(conversation, 'patience')
        await relay.when(() => seen[0], 'a message')
        await stage.later(() => seen[1], 'the message again', 90_000)
        const afterMs = times[1]! - times[0]!
        hold(afterMs >= 12_000, 'to wait 12 s', `${afterMs} ms`)
        same(hexOf(seen[1]!), hexOf(seen[0]!), 'as client_message_id')
        await stage.stateOf(conversation, id, 'sent')
        return `again after ${afterMs} ms under the same id`
      },
    }),
  ),
  {
    clauses: ['E-1', 'C-2.5'],
    title: 'an error code it does not know is INTERNAL: it neither dies nor loops',
    async run(stage) {
      const { conversation } = await stage.talk()
      let first = ''
      const seen = watch(stage, (line, message, requestId) => {
        first ||= hexOf(message)
        return hexOf(message) === first && refuse(line, requestId, UNKNOWN_CODE)
      })
      const id = await stage.post(conversation, 'what is 99?')
      await stage.relay.when(() => seen[0], 'a message')
      await stage.pass(15_000, () => seen.length > 5)
      hold(seen.length <= 5, 'at most a few tries', seen.length)
      await stage.stateOf(conversation, id, 'failed')
      await stage.say(conversation, 'the next one')
      return `${seen.length} tries, failed; the next message was sent`
    },
  },
  {
    clauses: ['S-9', 'S-9.2', 'E-1'],
    title: 'FORBIDDEN: it gives up, says so, and goes on with the rest',
    async run(stage) {
      const { conversation } = await stage.talk()
      const seen = watch(
        stage,
        (line, _message, requestId, count) => count === 1 && refuse(line, requestId, v1.ErrorCode.ERROR_CODE_FORBIDDEN),
      )
      const id = await stage.post(conversation, 'not allowed')
      await stage.stateOf(conversation, id, 'failed')
      await stage.pass(3000)
      same(seen.length, 1, 'as count of tries')
      await stage.say(conversation, 'allowed')
      return 'one try, failed; the next message was sent'
    },
  },
  {
    clauses: ['S-9.3', 'E-1'],
    title: 'QUEUE_FULL: it tells its user and does not hammer',
    async run(stage) {
      const { conversation } = await stage.talk()
      const seen = watch(stage, (line, _message, requestId) =>
        refuse(line, requestId, v1.ErrorCode.ERROR_CODE_QUEUE_FULL),
      )
      await stage.post(conversation, 'full?')
      await stage.relay.when(() => seen[0], 'a message')
      await stage.pass(10_000)
      hold(seen.length <= 6, 'at most a few tries in 10 s', seen.length)
      return `${seen.length} tries in 10 s`
    },
  },
  {
    clauses: ['C-2.2', 'C-2.4'],
    title: 'answers find their requests by request_id, whatever the order',
    async run(stage) {
      const { relay } = stage
      await stage.join()
      const people = [stage.person(), stage.person()]
      const rooms = [await stage.conversation('direct', [people[0]!]), await stage.conversation('direct', [people[1]!])]
      for (const [at, room] of rooms.entries()) {
        await stage.say(room, 'hello')
        await stage.at(people[at]!)
      }
      const held: { line: Line; message: Message; requestId: number }[] = []
      watch(stage, (line, message, requestId) => {
        held.push({ line, message, requestId })
        if (held.length < 2) return true
        for (const each of held.splice(0).reverse())
          each.line.send({ requestId: each.requestId, ...each.line.accept(each.message) })
        return true
      })
      const ids = [await stage.post(rooms[0]!, 'first'), await stage.post(rooms[1]!, 'second')]
      const both = await stage.pass(1500, () => relay.sent.length >= 4, 250)
      if (!both) {
        // It sends one at a time: answer what there is.
        delete relay.script.frame
        for (const each of held.splice(0)) each.line.answer({ requestId: each.requestId, signalMessage: each.message })
      }
      for (const [at, id] of ids.entries()) await stage.stateOf(rooms[at]!, id, 'sent')
      for (const [at, text] of ['first', 'second'].entries())
        same((await people[at]!.device.read(await stage.at(people[at]!))).text, text, 'at the peer')
      return !both ? 'it sends one message at a time' : 'two answers in the wrong order, both messages sent'
    },
  },
  {
    clauses: ['L-1', 'C-3.1'],
    title: 'it keeps to the limits that Hello names',
    async run(stage) {
      const { relay } = stage
      relay.limits.contentBytes = 3000
      relay.limits.ackIds = 2
      const { bob, conversation } = await stage.talk()
      const id = await stage.post(conversation, 'x'.repeat(6000))
      await stage.say(conversation, 'short')
      const largest = Math.max(
        ...relay.frames.flatMap((each) =>
          (each.signalMessage?.recipients ?? []).map((one) => one.content?.length ?? 0),
        ),
      )
      hold(largest <= 3000, 'no content above 3,000 bytes', largest)
      await stage.stateOf(conversation, id, 'failed')
      for (const text of ['1', '2', '3', '4', '5']) await bob.say(conversation, text)
      await stage.shown(conversation, '5')
      await stage.acked()
      const most = Math.max(...relay.frames.map((each) => each.ack?.messageIds?.length ?? 0))
      hold(most <= 2, 'no more than 2 ids in an Ack', most)
      return `the long message failed; at most ${most} ids in an Ack`
    },
  },
]
