// What a device that is new finds out by itself: the conversations its user is in, from the relay's list; who is in them, from their chains.
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Core } from './core.ts'
import type { Writer } from './storage.ts'
import { Table } from './tables.ts'

/** `self`: not done yet. */
const undone = new Table<1>('undiscovered')

/** The store knows of no conversations. */
export const noteUndiscovered = (to: Writer): void => undone.put(to, 'self', 1)

/** Takes in all conversations, once; begun again with the next connection if it does not come to an end. @param settle of one conversation. */
export async function discover(core: Core, settle: (id: Uuid) => Promise<void>): Promise<void> {
  if (!core.storage.transaction((tx) => undone.has(tx, 'self'))) return
  for (let cursor: string | null = ''; cursor !== null; ) {
    type Page = { conversations: { conversation_id: Uuid }[]; next_cursor: string | null }
    const path: string = `/v1/conversations?limit=200${cursor && `&cursor=${encodeURIComponent(cursor)}`}`
    const page: Page = await core.account.http.call<Page>('GET', path)
    for (const { conversation_id } of page.conversations)
      await settle(conversation_id).catch((error) => {
        // Left meanwhile, or never there.
        if (!(error instanceof RelayError) || !['NOT_FOUND', 'FORBIDDEN'].includes(error.code)) throw error
      })
    cursor = page.next_cursor
  }
  core.storage.transaction((tx) => undone.delete(tx, 'self'))
}
