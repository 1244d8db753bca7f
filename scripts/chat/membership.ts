// Who came, went or got another role, as sentences: what differs between two states of a conversation.
import { mention } from './labels.ts'
import type { Chat } from './model.ts'

/** @param before null = it was not known. */
export function memberNews(before: Chat | null, after: Chat): string[] {
  if (after.kind === 'direct') return []
  if (!before) return [`a group of ${after.members.map(({ userId }) => mention(userId)).join(', ')}`]
  const [was, is] = [before, after].map((chat) => new Map(chat.members.map(({ userId, role }) => [userId, role])))
  const news = [
    ...[...is!.keys()].filter((userId) => !was!.has(userId)).map((userId) => `${mention(userId)} joined`),
    ...[...was!.keys()].filter((userId) => !is!.has(userId)).map((userId) => `${mention(userId)} left`),
    ...[...is!]
      .filter(([userId, role]) => was!.has(userId) && was!.get(userId) !== role)
      .map(([userId, role]) => `${mention(userId)}: ${role === 'admin' ? 'admin now' : 'no admin any more'}`),
  ]
  return after.archived && !before.archived ? [...news, 'the conversation was archived'] : news
}
