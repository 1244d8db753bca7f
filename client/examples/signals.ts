// What people see of each other while they talk: ticks, typing, who is online, what is unread. The app's screen is `show`.
import type { Device, Message } from '../index.ts'

const TICKS: Record<Message['state'], string> = {
  ...{ received: '', sending: '…', sent: '✓', delivered: '✓✓', read: '✓✓ read', failed: '✗' },
}

/** One line under a message; in a group it tells how far it is before everybody has it. */
export function ticks({ state, delivered, read, audience }: Message): string {
  const some = audience > 1 && (state === 'sent' || state === 'delivered') && delivered > 0
  return some ? `${TICKS[state]} ${delivered} of ${audience} have it, ${read} read it` : TICKS[state]
}

/** Shows one conversation. @returns what the app calls when a key is struck, and when the conversation is looked at. */
export function follow(device: Device, conversationId: string, show: (line: string) => void) {
  device.on('message_changed', (message) => {
    if (message.conversationId === conversationId) show(ticks(message))
  })
  device.on('typing', ({ conversationId: where, userId, isTyping }) => {
    if (where === conversationId) show(isTyping ? `${userId} is typing…` : '')
  })
  device.on('presence', ({ userId, isOnline }) => show(`${userId} is ${isOnline ? 'online' : 'offline'}`))
  device.on('read', ({ conversationId: where }) => {
    if (where === conversationId) show('read on another device')
  })
  // One list for the whole app: it replaces the one before.
  device.watchPresence(device.conversations.get(conversationId)?.members.map(({ userId }) => userId) ?? [])
  return {
    keyStruck: () => device.typing(conversationId, true),
    looked: () => {
      show(`${device.unread(conversationId)} new`)
      device.markRead(conversationId)
    },
  }
}
