// A conversation as lines of so many cells: names, times, marks, days. Pure, and remembered per entry, since wrapping is the costly part.
import type { Message } from '../../client/index.ts'
import { labelOf, withNames } from './labels.ts'
import type { Chat, Entry, Line, Span, State } from './model.ts'
import { cut, padded, safe, safeLine, widthOf, wrap } from './text.ts'

const TIME_CELLS = 6
const NAME_MIN = 3
const NAME_MAX = 12
const QUOTE_CELLS = 40

/** Why a send failed, for people; other codes are shown as they are. */
const FAILURES: Record<string, string> = {
  unanswered: 'the relay did not answer',
  expired: 'it waited for six days',
  devices_unsettled: 'their devices changed all the time',
  TOO_LARGE: 'it is too long',
  INTERNAL: 'the relay had an error of its own',
  FORBIDDEN: 'you are not in this conversation any more',
  archived: 'the conversation is archived',
  not_accepted: 'they have not accepted yet, and take no more until then',
  NOT_FOUND: 'the conversation is gone',
  conversation_forgotten: 'the relay has forgotten the conversation',
  QUEUE_FULL: 'too much is waiting for them already',
}

const two = (value: number): string => String(value).padStart(2, '0')
/** Local time, HH:MM. */
export const clockOf = (atMs: number): string => {
  const at = new Date(atMs)
  return `${two(at.getHours())}:${two(at.getMinutes())}`
}
/** Local day: Tuesday, 4 March. */
export const dayOf = (atMs: number): string =>
  new Date(atMs).toLocaleDateString('en-GB', { weekday: 'long', day: 'numeric', month: 'long' })

/** What became of one's own message. */
export function markOf(message: Message, hasColours: boolean): Span | null {
  const { state, audience = 0, delivered = 0, read = 0 } = message
  const word = hasColours ? '' : ' read'
  const part = (count: number) => (audience > 1 && count > 0 && count < audience ? ` ${count}/${audience}` : '')
  switch (state) {
    case 'sending':
      return { text: '◦', tone: 'dim' }
    case 'sent':
      return delivered > 0 ? { text: `✓${part(delivered)}`, tone: 'dim' } : { text: '✓', tone: 'dim' }
    case 'delivered':
      return read > 0 ? { text: `✓✓${part(read)}${word}`, tone: 'read' } : { text: '✓✓', tone: 'dim' }
    case 'read':
      return { text: `✓✓${word}`, tone: 'read' }
    default:
      return null
  }
}

// Of whom one blocks nothing new comes in a conversation of two; in groups it does. [V-7.2]
const isHidden = ({ asked }: State, { kind }: Chat, userId: string): boolean =>
  kind === 'group' && asked.blocked.includes(userId)

/** What a message says. */
function wordsOf(state: State, chat: Chat, { body, withheld, senderUserId }: Message): Span[] {
  if (isHidden(state, chat, senderUserId)) return [{ text: '(of somebody you block)', tone: 'dim' }]
  if (withheld) return [{ text: '(not encrypted for this device by its sender; ask for it again)', tone: 'warning' }]
  const spans: Span[] = []
  if (body.replyTo) spans.push({ text: `↪ ${quoted(state, chat, body.replyTo)}`, tone: 'dim' })
  if (body.text !== undefined) spans.push({ text: safe(body.text) })
  if (body.reaction) {
    const { emoji, messageId, removed } = body.reaction
    const did = removed ? 'took back' : 'reacted'
    spans.push({ text: `${did} ${safeLine(emoji).slice(0, 16)} to ${quoted(state, chat, messageId)}`, tone: 'dim' })
  }
  for (const { mediaType, sizeBytes } of body.attachments ?? [])
    spans.push({ text: `[file: ${safeLine(mediaType)}, ${sizeBytes} bytes]`, tone: 'dim' })
  return spans.length > 0 ? spans : [{ text: '(a kind of message this messenger does not know)', tone: 'dim' }]
}

function quoted(state: State, chat: Chat, messageId: string): string {
  const found = chat.entries.find((each) => each.kind === 'message' && each.message.messageId === messageId)
  const isShown = found?.kind === 'message' && !isHidden(state, chat, found.message.senderUserId)
  const text = isShown ? found.message.body.text : undefined
  return text === undefined ? 'an earlier message' : `“${cut(safeLine(text), QUOTE_CELLS)}”`
}

/** Cells for names in a conversation. */
const nameCells = (state: State, chat: Chat): number =>
  Math.min(NAME_MAX, Math.max(NAME_MIN, ...chat.members.map(({ userId }) => widthOf(labelOf(state, userId)))))

// A direct conversation is not left: while it is not over, what is refused is one message too many. [V-6.2]
const reasonOf = ({ kind, archived }: Chat, { failure }: Message): string => {
  if (failure !== 'FORBIDDEN') return failure
  if (archived) return 'archived'
  return kind === 'direct' ? 'not_accepted' : failure
}

function messageLines(state: State, chat: Chat, message: Message, cells: number): Line[] {
  const isOwn = message.senderUserId === state.self.userId
  const names = nameCells(state, chat)
  const indent = TIME_CELLS + names + 1
  const room = Math.max(4, cells - indent)
  const words = wordsOf(state, chat, message).flatMap(({ text, tone }) =>
    wrap(text, room).map((line): Span => ({ text: line, ...(tone && { tone }) })),
  )
  const lines = words.map(
    (span, at): Line =>
      at === 0
        ? [
            { text: `${clockOf(message.sentAtMs)} `, tone: 'dim' },
            { text: `${padded(labelOf(state, message.senderUserId), names)} `, tone: isOwn ? 'dim' : 'accent' },
            span,
          ]
        : [{ text: ' '.repeat(indent) }, span],
  )
  const pad: Span = { text: ' '.repeat(indent) }
  const mark = isOwn ? markOf(message, state.hasColours) : null
  if (mark) {
    const last = lines.at(-1)!
    const fits = indent + widthOf(words.at(-1)!.text) + 1 + widthOf(mark.text) <= cells
    if (fits) last.push({ ...mark, text: ` ${mark.text}` })
    else lines.push([pad, mark])
  }
  if (isOwn && message.state === 'failed') {
    const why = FAILURES[reasonOf(chat, message)] ?? message.failure
    for (const line of wrap(`✗ not sent: ${why}. Ctrl+R sends it again.`, room))
      lines.push([pad, { text: line, tone: 'bad' }])
  }
  return lines
}

function entryLines(state: State, chat: Chat, entry: Entry, cells: number): Line[] {
  if (entry.kind === 'message') return messageLines(state, chat, entry.message, cells)
  const tone = entry.tone === 'warning' ? 'warning' : 'dim'
  const sign = entry.tone === 'warning' ? '! ' : '· '
  return wrap(safe(withNames(state, entry.text)), cells - TIME_CELLS - 2).map(
    (text, at): Line => [
      { text: at === 0 ? `${clockOf(entry.atMs)} ` : ' '.repeat(TIME_CELLS), tone: 'dim' },
      { text: (at === 0 ? sign : '  ') + text, tone },
    ],
  )
}

const remembered = new WeakMap<Entry, { key: string; lines: Line[] }>()

function linesOf(state: State, chat: Chat, entry: Entry, cells: number): Line[] {
  const label = entry.kind === 'message' ? labelOf(state, entry.message.senderUserId) : withNames(state, entry.text)
  const refers = entry.kind === 'message' && (entry.message.body.replyTo || entry.message.body.reaction)
  const { blocked } = state.asked
  const key = `${cells} ${nameCells(state, chat)} ${label} ${chat.archived} ${blocked} ${refers ? chat.entries.length : ''}`
  const before = remembered.get(entry)
  if (before?.key === key) return before.lines
  const lines = entryLines(state, chat, entry, cells)
  remembered.set(entry, { key, lines })
  return lines
}

const timeOf = (entry: Entry): number => (entry.kind === 'message' ? entry.message.sentAtMs : entry.atMs)

/** The whole transcript, with a line wherever a day begins. */
export function transcript(state: State, chat: Chat, cells: number): Line[] {
  const lines: Line[] = []
  let day = ''
  if (chat.hasOlder) lines.push([{ text: '· PgUp shows what is older', tone: 'dim' }])
  for (const entry of chat.entries) {
    const today = dayOf(timeOf(entry))
    if (today !== day) {
      day = today
      lines.push([{ text: `── ${today} ──`, tone: 'dim' }])
    }
    lines.push(...linesOf(state, chat, entry, cells))
  }
  return lines
}
