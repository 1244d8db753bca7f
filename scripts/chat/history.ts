// The store's messages and the messenger's notices, woven into the entries of a transcript, page by page from the end.
import type { Device } from '../../client/index.ts'
import type { Entry } from './model.ts'
import type { Notebook } from './notebook.ts'

const PAGE = 100

/** @property first place of the oldest message; pass it as `before` for the page above. */
export type Page = { entries: Entry[]; hasOlder: boolean; first: string }

/** A page of a conversation, oldest entry first. @param before absent = the last page. */
export function pageOf(device: Device, notebook: Notebook, chatId: string, before?: string): Page {
  const messages = device.messages(chatId, { limit: PAGE, ...(before !== undefined && { before }) })
  const hasOlder = messages.length === PAGE
  const first = messages[0]?.place ?? ''
  const notices = notebook.notices(chatId).filter(({ after }) => {
    const isBelowTop = !hasOlder || after >= first
    return isBelowTop && (before === undefined || after < before)
  })
  const entries: Entry[] = []
  let next = 0
  const noticesUpTo = (place: string | null) => {
    for (; next < notices.length && (place === null || notices[next]!.after < place); next++)
      entries.push(notices[next]!.notice)
  }
  for (const { place, message } of messages) {
    noticesUpTo(place)
    entries.push({ kind: 'message', message })
  }
  noticesUpTo(null)
  return { entries, hasOlder, first }
}

/** Where a notice of now belongs. */
export const lastPlace = (device: Device, chatId: string): string =>
  device.messages(chatId, { limit: 1 }).at(-1)?.place ?? ''
