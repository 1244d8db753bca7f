// Conversations the relay does not know any more, because its database was restored from a backup that is older than they are. Nothing
// can be sent in them, and they are not made again by themselves: their members, each for himself, would make several. [K-9.2]
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Core } from './core.ts'
import { refusalTo } from './rest.ts'
import type { Reader } from './storage.ts'
import { Table } from './tables.ts'

/** Why a message in one of them failed. */
export const FORGOTTEN = 'conversation_forgotten'
/** Pages of 200 that are read at most; of what they do not hold each is asked for. */
const PAGES_MAX = 25

const rows = new Table<1>('forgotten')

/** The relay said so, and not otherwise since. */
export const isForgotten = (from: Reader, id: Uuid): boolean => rows.has(from, id)
/** The relay has it after all; the app is told when that is news. Not within a transaction. */
export function noteKnown({ storage, events }: Core, id: Uuid): void {
  const isNews = storage.transaction((tx) => {
    const was = isForgotten(tx, id)
    if (was) rows.delete(tx, id)
    return was
  })
  if (isNews) events.emit('conversation', { conversationId: id })
}

/** After a restore: which of these the relay knows as its user's. @param ids all that are known here. @throws Disconnected, Unreachable. */
export async function lookForForgotten(core: Core, ids: Uuid[]): Promise<void> {
  const listed = await list(core)
  for (const id of ids) {
    if (listed.has(id)) noteKnown(core, id)
    else await isForgottenNow(core, id)
  }
}

/** Asks the relay, and remembers what it said. @param id of one that is known here. @throws Disconnected, Unreachable. */
export async function isForgottenNow(core: Core, id: Uuid): Promise<boolean> {
  // [H-8] Former members are FORBIDDEN: it is known.
  const isGone = (await refusalTo(core, 'GET', `/v1/conversations/${id}?limit=1`)) === 'NOT_FOUND'
  if (isGone) noteGone(core, id)
  else noteKnown(core, id)
  return isGone
}

function noteGone({ storage, events }: Core, id: Uuid): void {
  const isNews = storage.transaction((tx) => {
    const was = isForgotten(tx, id)
    if (!was) rows.put(tx, id, 1)
    return !was
  })
  if (isNews) events.emit('conversation', { conversationId: id })
}

/** As far as the relay tells. */
async function list({ account }: Core): Promise<Set<Uuid>> {
  type Page = { conversations: { conversation_id: Uuid }[]; next_cursor: string | null }
  const listed = new Set<Uuid>()
  let cursor: string | null = ''
  for (let page = 0; page < PAGES_MAX && cursor !== null; page++) {
    const path: string = `/v1/conversations?limit=200${cursor && `&cursor=${encodeURIComponent(cursor)}`}`
    const answer: Page | null = await account.http.call<Page>('GET', path).catch((error: unknown) => {
      if (error instanceof RelayError) return null
      throw error
    })
    for (const { conversation_id } of answer?.conversations ?? []) listed.add(conversation_id)
    cursor = answer?.next_cursor ?? null
  }
  return listed
}
