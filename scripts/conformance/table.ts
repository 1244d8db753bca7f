// A run as people read it, in a terminal or a file.
import type { ClauseResult } from './accounting.ts'
import type { Run } from './report.ts'
import { summaryOf } from './report.ts'
import type { Outcome } from './runner.ts'

/** @property colour false = plain text. @property columns of the terminal. */
export type Look = { colour: boolean; columns: number }

const WORD = { pass: 'pass', fail: 'FAIL', not_run: 'not run' } as const
const COLOUR = { pass: '\u001b[32m', fail: '\u001b[1;31m', not_run: '\u001b[33m' } as const
const DIM = '\u001b[2m'
const END = '\u001b[0m'
const CLAUSES_WIDTH = 18
const LEAST_COLUMNS = 60

/** Lines of at most so many characters, broken at blanks; a word that is longer has a line of its own. */
export function wrapped(text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines
}

/** In the order of the protocol, whatever the order in which checks ended. */
export function inOrder(outcomes: readonly Outcome[], clauses: readonly ClauseResult[]): Outcome[] {
  const place = new Map(clauses.map(({ id }, at) => [id, at]))
  const of = ({ clauses: ids }: Outcome): number => Math.min(...ids.map((id) => place.get(id) ?? Infinity))
  return [...outcomes].sort((a, b) => of(a) - of(b))
}

/** One check: verdict, clauses, what it is about and what was seen. */
function row({ verdict, clauses, title, seen }: Outcome, { colour, columns }: Look): string {
  const paint = (text: string, code: string): string => (colour ? code + text + END : text)
  const left = wrapped(clauses.join(' '), CLAUSES_WIDTH)
  const width = Math.max(columns, LEAST_COLUMNS) - 11 - CLAUSES_WIDTH
  const about = wrapped(title, width)
  const right = [...about, ...wrapped(seen, width).map((line) => (verdict === 'fail' ? line : paint(line, DIM)))]
  const lines = Math.max(left.length, right.length)
  return Array.from({ length: lines }, (_, at) => {
    const word = at === 0 ? paint(WORD[verdict].padEnd(7), COLOUR[verdict]) : ' '.repeat(7)
    return ` ${word}  ${(left[at] ?? '').padEnd(CLAUSES_WIDTH)}  ${right[at] ?? ''}`.trimEnd()
  }).join('\n')
}

/** Clauses without a check, by their reason. */
function without(
  clauses: readonly ClauseResult[],
  verdict: ClauseResult['verdict'],
  head: string,
  columns: number,
): string {
  const found = clauses.filter((each) => each.verdict === verdict)
  if (found.length === 0) return ''
  const byReason = new Map<string, string[]>()
  for (const { id, reason } of found) byReason.set(reason, [...(byReason.get(reason) ?? []), id])
  const lines = [...byReason].flatMap(([reason, ids]) =>
    wrapped(`${ids.join(' ')}: ${reason}`, Math.max(columns, LEAST_COLUMNS) - 5).map((line, at) =>
      at === 0 ? `   ${line}` : `     ${line}`,
    ),
  )
  return `\n${head}\n${lines.join('\n')}\n`
}

/** The last line: clauses, not checks. */
export const summaryLine = (clauses: readonly ClauseResult[]): string => {
  const { passed, failed, not_run } = summaryOf(clauses)
  return `${passed} passed, ${failed} failed, ${not_run} not run`
}

/** Everything. */
export function table(run: Run, look: Look): string {
  const other = run.part === 'relay' ? 'clients' : 'relays'
  const { columns } = look
  const rows = inOrder(run.outcomes, run.clauses).map((each) => row(each, look))
  return [
    `${rows.join('\n')}\n`,
    without(run.clauses, 'binds_other', `Rules for ${other}:`, columns),
    without(run.clauses, 'unseen', 'Cannot be seen from outside:', columns),
    without(run.clauses, 'unaccounted', 'In the protocol, but not in this kit:', columns),
    ...run.notes.map((note) => `\n${note}\n`),
    `\n${summaryLine(run.clauses)} · ${run.clauses.length} clauses, ${run.outcomes.length} checks, ${run.seconds} s\n`,
  ].join('')
}
