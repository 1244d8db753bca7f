// Who came, went or got another role, as sentences: what differs between two states of a conversation.
import { labelOf } from './labels.ts'
import type { Chat, State } from './model.ts'

/** @param before null = it was not known. */
export function memberNews(state: State, before: Chat | null, after: Chat): string[] {
  if (after.kind === 'direct') return []
  const label = (userId: string) => labelOf(state, userId)
  if (!before) return [`a group of ${after.members.map(({ userId }) => label(userId)).join(', ')}`]
  const [was, is] = [before, after].map((chat) => new Map(chat.members.map(({ userId, role }) => [userId, role])))
  const news = [
    ...[...is!.keys()].filter((userId) => !was!.has(userId)).map((userId) => `${label(userId)} joined`),
    ...[...was!.keys()].filter((userId) => !is!.has(userId)).map((userId) => `${label(userId)} left`),
    ...[...is!]
      .filter(([userId, role]) => was!.has(userId) && was!.get(userId) !== role)
      .map(([userId, role]) => `${label(userId)} is ${role === 'admin' ? 'an admin' : 'a member'} now`),
  ]
  return after.archived && !before.archived ? [...news, 'the conversation was archived'] : news
}
