// Every numbered clause of proto/README.md has a place in both reports of the kit: a check, or a reason why there is none.
import { readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { account } from '../../scripts/conformance/accounting.ts'
import { isWanted, protocolClauses, readClauses } from '../../scripts/conformance/clauses.ts'
import { exemptOfClients } from '../../scripts/conformance/client/run.ts'
import { scenarios } from '../../scripts/conformance/client/scenarios.ts'
import { relayChecks } from '../../scripts/conformance/relay/checks.ts'
import { relayExempt } from '../../scripts/conformance/relay/exempt.ts'
import type { Outcome } from '../../scripts/conformance/runner.ts'

const clauses = await protocolClauses()
const passed = (checks: readonly { clauses: readonly string[]; title: string }[]): Outcome[] =>
  checks.map(({ clauses: ids, title }) => ({ clauses: ids, title, verdict: 'pass', seen: '', ms: 0 }))

const PARTS = [
  { part: 'relay', checks: relayChecks, exempt: relayExempt },
  { part: 'client', checks: scenarios, exempt: exemptOfClients() },
]

it.each(PARTS)('the $part part accounts for every clause', ({ checks, exempt }) => {
  const results = account(clauses, passed(checks), exempt)
  expect(results.filter(({ verdict }) => verdict === 'unaccounted').map(({ id, title }) => `${id} ${title}`)).toEqual(
    [],
  )
  expect(results).toHaveLength(clauses.length)
})

it.each(PARTS)(
  'the $part part names no clause that does not exist, and gives no reason where there is a check',
  ({ part, checks, exempt }) => {
    const known = new Set(clauses.map(({ id }) => id))
    const named = new Set(checks.flatMap((each) => each.clauses))
    expect([...named, ...Object.keys(exempt)].filter((id) => !known.has(id))).toEqual([])
    if (part === 'relay') expect(Object.keys(exempt).filter((id) => named.has(id))).toEqual([])
  },
)

it.each(PARTS)('titles of the $part part are sentences of their own', ({ checks }) => {
  const titles = checks.map((each) => each.title)
  expect(new Set(titles).size).toBe(titles.length)
})

it('a clause is found where it is defined, in whatever form, and nowhere else', async () => {
  const text =
    '**[C-1] Upgrade.** A device.\n- [C-1.1] Says `this` [T-1] and so on.\nSee [C-9].\n| 1 | [C-8] |\n**[C-2]** Bare.'
  expect(readClauses(text)).toEqual([
    { id: 'C-1', title: 'Upgrade.' },
    { id: 'C-1.1', title: 'Says this [T-1] and so on.' },
    { id: 'C-2', title: 'Bare.' },
  ])
  // A definition in another form would be left out without a word.
  const source = await readFile(new URL('../../proto/README.md', import.meta.url), 'utf8')
  const ids = new Set(clauses.map(({ id }) => id))
  const cited = new Set([...source.matchAll(/\[([A-Z]-\d+(?:\.\d+)?)\]/g)].map((found) => found[1]!))
  expect([...cited].filter((id) => !ids.has(id))).toEqual([])
  expect(clauses.length).toBeGreaterThan(240)
})

it('a section, a heading and a clause can be asked for', () => {
  const of = (...wanted: string[]) => ['C-1', 'C-1.1', 'C-10', 'S-1'].filter((id) => isWanted(id, wanted))
  expect(of()).toEqual(['C-1', 'C-1.1', 'C-10', 'S-1'])
  expect(of('C')).toEqual(['C-1', 'C-1.1', 'C-10'])
  expect(of('C-1')).toEqual(['C-1', 'C-1.1'])
  expect(of('C-1.1', 'S')).toEqual(['C-1.1', 'S-1'])
})
