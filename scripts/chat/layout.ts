// Where things are: cells and rows of each part, for any size of terminal; and how far something can be scrolled.

import { bannerOf } from './banner.ts'
import { hintsFor } from './commands.ts'
import { textOf } from './editor.ts'
import { typingOf } from './lines.ts'
import { type Chat, draftOf, type Line, openChat, type Panel, SIDE_FROM_COLUMNS, type State } from './model.ts'
import { widthOf, wrap } from './text.ts'
import { transcript } from './transcript.ts'

/** Below this nothing sensible can be drawn. */
export const LEAST = { columns: 24, rows: 8 }
const INPUT_ROWS_MAX = 5
const HINTS_MAX = 6
const TOAST_ROWS_MAX = 4
const PROMPT_CELLS = 3
/** Of a transcript that are left beside what could be said in fewer. */
const TRANSCRIPT_ROWS = 6

/** Rows and cells. side: 0 = there is no list of conversations. */
export type Layout = {
  side: number
  main: number
  /** Rows between the two rules. */
  body: number
  /** Of those: what remains for transcript or panel. */
  page: number
  input: number
  /** Over the input, under the transcript. */
  banner: Line[]
}

/** Of the whole screen. */
export function layoutOf(state: State): Layout {
  const { columns, rows } = state.size
  // A page has the width to itself.
  const side = columns >= SIDE_FROM_COLUMNS && !state.panel ? Math.min(26, Math.max(18, Math.floor(columns / 4))) : 0
  const main = columns - side - (side > 0 ? 2 : 1)
  const input = inputOf(state).rows
  // Header, two rules, footer.
  const body = Math.max(1, rows - 4 - input)
  const status = statusLines(state, main).length
  const hints = state.panel ? 0 : hintRows(state)
  const banner = state.panel ? [] : bannerOf(state, main, body - 1 - status - hints - TRANSCRIPT_ROWS)
  const page = Math.max(1, body - 1 - status - hints - banner.length)
  return { side, main, body, page, input, banner }
}

/** Over the input: what was said last, or else who is typing; at least one line, so that nothing jumps. */
export function statusLines(state: State, cells: number): Line[] {
  const { toast } = state
  const chat = openChat(state)
  if (!toast) return [[{ text: chat ? typingOf(state, chat) : '', tone: 'dim' }]]
  return wrap(toast.text, cells)
    .slice(0, TOAST_ROWS_MAX)
    .map((text): Line => [{ text, tone: toast.tone }])
}

/** Commands that are hinted at while one is typed. */
export function hintRows(state: State): number {
  return Math.min(HINTS_MAX, hintsFor(textOf(draftOf(state))).length)
}

/** The input as it is drawn: some lines, the one with the cursor among them, and where it is. */
export type Input = { lines: string[]; rows: number; cursor: { row: number; column: number } }

/** Of the draft that is typed at the moment. */
export function inputOf(state: State): Input {
  const draft = draftOf(state)
  const cells = Math.max(4, state.size.columns - PROMPT_CELLS - 1)
  const lines = wrapExactly(textOf(draft), cells)
  const before = wrapExactly(draft.before, cells)
  const at = before.length - 1
  const rows = Math.min(INPUT_ROWS_MAX, lines.length, Math.max(1, state.size.rows - 7))
  const from = Math.max(0, Math.min(at - rows + 1, lines.length - rows))
  const shown = lines.slice(from, from + rows)
  return { lines: shown, rows, cursor: { row: at - from, column: PROMPT_CELLS + widthOf(before[at]!) } }
}

// Every character stays where it was typed: what is before the cursor breaks as the whole does.
function wrapExactly(text: string, cells: number): string[] {
  return text.split('\n').flatMap((line) => {
    const lines: string[] = []
    let current = ''
    for (const { segment } of new Intl.Segmenter(undefined, { granularity: 'grapheme' }).segment(line)) {
      if (widthOf(current + segment) > cells) {
        lines.push(current)
        current = ''
      }
      current += segment
    }
    return [...lines, current]
  })
}

/** A panel's lines. */
export const panelLines = (panel: Pick<Panel, 'lines'>, cells: number): Line[] =>
  panel.lines.flatMap(({ text, tone }) =>
    wrap(text, cells).map((line): Line => [{ text: line, ...(tone && { tone }) }]),
  )

/** Rows of the transcript or panel that are seen at once. */
export const pageRows = (state: State): number => layoutOf(state).page

/** How far a conversation or panel can be scrolled. */
export function maxScroll(state: State, what: Chat | Panel): number {
  const { main, page } = layoutOf(state)
  const lines = 'entries' in what ? transcript(state, what, main) : panelLines(what, main)
  return Math.max(0, lines.length - page)
}
