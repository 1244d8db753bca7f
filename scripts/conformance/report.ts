// A run as machines read it: one JSON document, and JUnit's XML for build servers.
import { type ClauseResult, type ClauseVerdict, countOf } from './accounting.ts'
import type { Outcome } from './runner.ts'

/** What was under test. */
export type Part = 'relay' | 'client'

/** @property target the url, or the command that was started. @property notes what a reader should know besides. */
export type Run = {
  part: Part
  target: string
  realm: string
  startedAt: Date
  seconds: number
  outcomes: Outcome[]
  clauses: ClauseResult[]
  notes: string[]
}

const NAMES: Record<ClauseVerdict, string> = {
  pass: 'passed',
  fail: 'failed',
  not_run: 'not_run',
  binds_other: 'binds_other',
  unseen: 'not_observable',
  unaccounted: 'unaccounted',
}

/** Numbers of clauses. */
export const summaryOf = (clauses: readonly ClauseResult[]): Record<string, number> =>
  Object.fromEntries(
    (Object.keys(NAMES) as ClauseVerdict[]).map((verdict) => [NAMES[verdict], countOf(clauses, verdict)]),
  )

/** The whole run as JSON text. Its fields are described in docs/conformance.md and only ever added to. */
export function reportJson({ part, target, realm, startedAt, seconds, outcomes, clauses, notes }: Run): string {
  const report = {
    report: 'sealpost conformance 1',
    protocol: 'sealpost.v1',
    ...{ part, target, realm, started_at: startedAt.toISOString(), seconds, notes },
    summary: summaryOf(clauses),
    clauses: clauses.map(({ id, title, verdict, reason }) => ({
      ...{ clause: id, title, verdict: verdict === 'unseen' ? 'not_observable' : verdict, reason },
      checks: outcomes.filter((each) => each.clauses.includes(id)).map((each) => each.title),
    })),
    checks: outcomes.map(({ clauses: ids, title, verdict, seen, ms }) => ({ clauses: ids, title, verdict, seen, ms })),
  }
  return `${JSON.stringify(report, null, 2)}\n`
}

// Control characters are no XML, not even escaped.
const NOT_XML = /[^\t\n\r\x20-\ud7ff\ue000-\ufffd]/g
const escaped = (text: string): string =>
  text.replace(NOT_XML, '?').replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;')

/** The checks as one JUnit test suite. */
export function reportJunit({ part, outcomes, seconds, startedAt }: Run): string {
  const count = (verdict: Outcome['verdict']): number => outcomes.filter((each) => each.verdict === verdict).length
  const cases = outcomes.map(({ clauses, title, verdict, seen, ms }) => {
    const head = `<testcase classname="sealpost.${part}.${clauses[0]}" name="${escaped(`[${clauses.join('] [')}] ${title}`)}" time="${ms / 1000}">`
    const body =
      verdict === 'pass'
        ? `<system-out>${escaped(seen)}</system-out>`
        : verdict === 'fail'
          ? `<failure message="${escaped(seen)}"/>`
          : `<skipped message="${escaped(seen)}"/>`
    return `    ${head}${body}</testcase>`
  })
  const numbers = `tests="${outcomes.length}" failures="${count('fail')}" skipped="${count('not_run')}" time="${seconds}"`
  return `<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="sealpost conformance: ${part}" ${numbers} timestamp="${startedAt.toISOString()}">
${cases.join('\n')}
  </testsuite>
</testsuites>
`
}
