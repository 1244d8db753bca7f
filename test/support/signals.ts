// Signals as a test sends and sees them: ids as text, time in steps.
import type { sealpost } from '../../proto/generated/relay.js'
import { uuidFromBytes, uuidToBytes } from '../../proto/ids.ts'
import type { Client, Kind, ServerFrame, Socket } from './client.ts'
import type { FakeTime } from './faketime.ts'

/** Time goes on in steps, and whoever waits for a turn of the event loop gets it. */
export async function pass(time: FakeTime, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 100) {
    await new Promise((resolve) => setImmediate(resolve))
    time.advance(Math.min(100, left))
  }
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve))
}

/** Of the machine's own time, in between: what is asked of a database gets as much of it as it needs before tokens end. */
const REAL_MS = 2

/** Lets time go on until it comes: the database is asked in between, at its own pace. */
export async function inTime<T>(time: FakeTime, coming: Promise<T>): Promise<T> {
  let waiting = true
  const over = (): void => {
    waiting = false
  }
  coming.then(over, over)
  while (waiting) {
    await pass(time, 100)
    await new Promise((resolve) => setTimeout(resolve, REAL_MS))
  }
  return coming
}

export const typing = (conversation: string, isTyping = true): sealpost.v1.ClientFrame.$Properties => ({
  typing: { conversationId: uuidToBytes(conversation), isTyping },
})

/** The answer to a subscription, user id → online. */
export async function watch(socket: Socket, ...users: { userId: string }[]): Promise<Record<string, boolean>> {
  const userIds = users.map((each) => uuidToBytes(each.userId))
  const answer = await socket.ask({ presenceSubscription: { userIds } })
  if (!answer.presence) throw new Error(`was answered ${JSON.stringify(answer)}`)
  return onlineOf(answer.presence)
}

export const onlineOf = (presence: sealpost.v1.Presence.$Properties): Record<string, boolean> =>
  Object.fromEntries((presence.users ?? []).map((each) => [uuidFromBytes(each.userId!), each.isOnline ?? false]))

/** The next thing a subscription is told, user id → online. */
export const told = async (socket: Socket): Promise<Record<string, boolean>> =>
  onlineOf(await socket.next('presence', 0))

export const receipt = (conversation: string, messageId: Uint8Array): sealpost.v1.ClientFrame.$Properties => ({
  readReceipt: { conversationId: uuidToBytes(conversation), messageId },
})

/** Marks a message as read. @throws when that is refused. */
export async function read(socket: Socket, conversation: string, messageId: Uint8Array): Promise<void> {
  const answer = await socket.ask(receipt(conversation, messageId))
  if (!answer.readReceiptCommitted) throw new Error(`was answered ${JSON.stringify(answer)}`)
}

/** delivered/read of messages, by id, as text. */
export type Progress = Record<string, string>

export const progressOf = (update: sealpost.v1.StatusUpdate.$Properties): Progress =>
  Object.fromEntries(
    (update.messages ?? []).map((each) => [uuidFromBytes(each.messageId!), `${each.delivered ?? 0}/${each.read ?? 0}`]),
  )

/** The answer to a StatusRequest. */
export async function progress(socket: Socket, ...messageIds: Uint8Array[]): Promise<Progress> {
  const answer = await socket.ask({ statusRequest: { messageIds } })
  if (!answer.statusUpdate) throw new Error(`was answered ${JSON.stringify(answer)}`)
  return progressOf(answer.statusUpdate)
}

/** Sends to everybody named; they take it from their sockets themselves. @returns the message's id. */
export async function send(socket: Socket, conversation: string, ...to: Client[]): Promise<Uint8Array> {
  const answer = await socket.send(
    conversation,
    to.map((each) => each.to()),
  )
  if (!answer.messageAccepted) throw new Error(`was answered ${JSON.stringify(answer)}`)
  return answer.messageAccepted.messageId!
}

/** Takes the next envelope and acks it. */
export async function take(socket: Socket): Promise<Uint8Array> {
  const { messageId } = await socket.next('envelope')
  await socket.ack(messageId)
  return messageId!
}

/** Frames of a kind that came by themselves and nobody took, behind all that was sent before now. */
export async function unasked(socket: Socket, kind: Kind): Promise<ServerFrame[]> {
  await socket.fence()
  return socket.frames.filter((each) => each[kind] != null && !each.requestId)
}
