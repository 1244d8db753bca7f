// The line a person types into: pure edits of text before and after the cursor, character by character as a reader counts them.
import { charactersOf } from './text.ts'

/** What is typed. The cursor is between the two. */
export type Draft = { before: string; after: string }

/** A change of a draft. */
export type Edit = { do: 'insert'; text: string } | { do: 'replace'; text: string } | { do: EditName }

/** Edits without an operand. */
export type EditName =
  | 'backspace'
  | 'delete'
  | 'left'
  | 'right'
  | 'word_left'
  | 'word_right'
  | 'start'
  | 'end'
  | 'delete_word'
  | 'delete_to_start'
  | 'delete_to_end'

/** Nothing typed. */
export const EMPTY: Draft = { before: '', after: '' }

/** Characters at most: the relay takes 96 KiB of ciphertext. */
export const DRAFT_MAX = 20_000

/** The whole text. */
export const textOf = ({ before, after }: Draft): string => before + after

const WORD_BEFORE = /\S+\s*$/u
const WORD_AFTER = /^\s*\S+/u
const LINE_BEFORE = /[^\n]*$/u
const LINE_AFTER = /^[^\n]*/u

const allButLast = (text: string): string => charactersOf(text).slice(0, -1).join('')
const first = (text: string): string => charactersOf(text)[0] ?? ''

/** The draft after an edit. */
export function edit(draft: Draft, change: Edit): Draft {
  const { before, after } = draft
  const at = (position: number): Draft => {
    const text = textOf(draft)
    return { before: text.slice(0, position), after: text.slice(position) }
  }
  switch (change.do) {
    case 'insert':
      return textOf(draft).length + change.text.length > DRAFT_MAX ? draft : { before: before + change.text, after }
    case 'replace':
      return { before: change.text, after: '' }
    case 'backspace':
      return { before: allButLast(before), after }
    case 'delete':
      return { before, after: after.slice(first(after).length) }
    case 'left':
      return at(allButLast(before).length)
    case 'right':
      return at(before.length + first(after).length)
    case 'word_left':
      return at(before.length - (WORD_BEFORE.exec(before)?.[0].length ?? before.length))
    case 'word_right':
      return at(before.length + (WORD_AFTER.exec(after)?.[0].length ?? after.length))
    case 'start':
      return at(before.length - LINE_BEFORE.exec(before)![0].length)
    case 'end':
      return at(before.length + LINE_AFTER.exec(after)![0].length)
    case 'delete_word':
      return { before: before.replace(WORD_BEFORE, ''), after }
    case 'delete_to_start':
      return { before: before.replace(LINE_BEFORE, ''), after }
    case 'delete_to_end':
      return { before, after: after.replace(LINE_AFTER, '') }
  }
}
