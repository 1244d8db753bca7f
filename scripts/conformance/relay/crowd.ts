// Many messages for one device in a short time: from several users, because one may send only so many. [S-9.4]
import { same } from '../check.ts'
import type { Device } from '../device.ts'
import { kindOf, type Socket, signalMessage } from '../socket.ts'
import type { Kit } from '../world.ts'

/** Messages of each, at most, in one go: ten at once, ten more a second. */
const EACH = 45

export type Crowd = {
  bob: Device
  /** Bob's connection, live. */
  b: Socket
  /** Sends him so many messages of so many bytes, shared among the crowd. @returns ids as hex, in no order. */
  send(count: number, bytes?: number): Promise<Set<string>>
}

/** Bob, and enough others who know him for that many messages. */
export async function crowd(kit: Kit, messages: number): Promise<Crowd> {
  const [bob, ...others] = (await kit.users(1 + Math.ceil(messages / EACH))) as [Device, ...Device[]]
  const lines = await Promise.all(
    others.map(async (each) => ({ conversation: await each.direct(bob), socket: await each.live() })),
  )
  const send = async (count: number, bytes = 8): Promise<Set<string>> => {
    const messageIds = new Set<string>()
    const some = async ({ conversation, socket }: (typeof lines)[number], many: number): Promise<void> => {
      const requests = Array.from({ length: many }, () =>
        socket.write({ signalMessage: signalMessage(conversation, [bob.to(bytes)]) }),
      )
      for (const request of requests) {
        const frame = await socket.answer(request)
        same(kindOf(frame), 'messageAccepted', 'as answer')
        messageIds.add(hex(frame.messageAccepted!.messageId))
      }
    }
    const share = (at: number) => Math.floor((count + at) / lines.length)
    await Promise.all(lines.map((line, at) => some(line, share(at))))
    return messageIds
  }
  return { bob, b: await bob.live(), send }
}

export const hex = (id: Uint8Array | null | undefined): string => Buffer.from(id ?? []).toString('hex')
