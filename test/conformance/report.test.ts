// What a run leaves behind: a table for people, JSON and JUnit for machines, an exit code.
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ClauseResult } from '../../scripts/conformance/accounting.ts'
import { account } from '../../scripts/conformance/accounting.ts'
import { hold, NotRun, same, show } from '../../scripts/conformance/check.ts'
import { type Run, reportJson, reportJunit } from '../../scripts/conformance/report.ts'
import { type Outcome, runChecks } from '../../scripts/conformance/runner.ts'
import { table, wrapped } from '../../scripts/conformance/table.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { wrongRelay } from '../support/wrong-relay.ts'

const CLAUSES = ['C-1', 'C-2', 'C-3', 'S-1'].map((id) => ({ id, title: `Title of ${id}.` }))
const outcome = (clauses: string[], verdict: Outcome['verdict'], seen: string): Outcome => ({
  ...{ clauses, title: `about ${clauses[0]}`, verdict, seen, ms: 12 },
})
const OUTCOMES = [
  outcome(['C-2'], 'fail', 'expected <this> & "that"; saw \u0000'),
  outcome(['C-1', 'C-2'], 'pass', 'all well'),
  outcome(['C-3'], 'not_run', 'takes a year; run with --slow'),
]
const results: ClauseResult[] = account(CLAUSES, OUTCOMES, {
  'S-1': { verdict: 'binds_other', reason: 'the other part' },
})
const run: Run = {
  ...{ part: 'relay', target: 'http://relay.test', realm: 'realm', startedAt: new Date(0), seconds: 1.5 },
  ...{ outcomes: OUTCOMES, clauses: results, notes: ['a note'] },
}

describe('one run', () => {
  it('a clause fails if one of its checks does, whatever the others say', () => {
    expect(results.map(({ id, verdict }) => [id, verdict])).toEqual([
      ['C-1', 'pass'],
      ['C-2', 'fail'],
      ['C-3', 'not_run'],
      ['S-1', 'binds_other'],
    ])
    expect(account([{ id: 'X-1', title: '' }], [], {})[0]!.verdict).toBe('unaccounted')
  })

  it('as a table: in the order of the protocol, plain without a terminal, with every reason', () => {
    const text = table(run, { colour: false, columns: 80 })
    expect(text).not.toContain('\u001b')
    expect(text.indexOf('about C-1')).toBeLessThan(text.indexOf('about C-2'))
    expect(text).toMatch(/FAIL {5}C-2 +about C-2/)
    expect(text).toContain('takes a year; run with --slow')
    expect(text).toContain('S-1: the other part')
    expect(text).toContain('1 passed, 1 failed, 1 not run')
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
    expect(table(run, { colour: true, columns: 80 })).toContain('\u001b[1;31mFAIL')
    expect(wrapped('a bb cccccccc d', 4)).toEqual(['a bb', 'cccccccc', 'd'])
  })

  it('as JSON: every clause with its checks, every check with what was seen', () => {
    const report = JSON.parse(reportJson(run))
    expect(report).toMatchObject({ report: 'sealpost conformance 1', part: 'relay', seconds: 1.5 })
    expect(report.summary).toEqual({
      passed: 1,
      failed: 1,
      not_run: 1,
      binds_other: 1,
      not_observable: 0,
      unaccounted: 0,
    })
    expect(report.clauses[1]).toMatchObject({ clause: 'C-2', verdict: 'fail', checks: ['about C-2', 'about C-1'] })
    expect(report.checks[2]).toMatchObject({ verdict: 'not_run', seen: 'takes a year; run with --slow' })
  })

  it('as JUnit: escaped, counted', () => {
    const xml = reportJunit(run)
    expect(xml).toContain('tests="3" failures="1" skipped="1"')
    expect(xml).toContain('<failure message="expected &lt;this&gt; &amp; &quot;that&quot;; saw ?"/>')
  })
})

describe('checks', () => {
  const runOne = async (body: () => Promise<string>, withinMs = 1000): Promise<Outcome> => {
    const options = { enter: async () => null, leave: async () => {}, atOnce: 1, slow: false }
    const [done] = await runChecks<null>([{ clauses: ['C-1'], title: 't', run: body, withinMs }], options)
    return done!
  }

  it('whatever they throw is an outcome, and one that hangs fails', async () => {
    expect(await runOne(async () => 'seen')).toMatchObject({ verdict: 'pass', seen: 'seen' })
    expect(await runOne(async () => same(1, 2, 'as count') as never)).toMatchObject({
      verdict: 'fail',
      seen: 'expected as count 2; saw 1',
    })
    expect(await runOne(async () => hold(false, 'this', 'that') as never)).toMatchObject({
      verdict: 'fail',
      seen: 'expected this; saw that',
    })
    expect(await runOne(() => Promise.reject(new NotRun('no time')))).toMatchObject({
      verdict: 'not_run',
      seen: 'no time',
    })
    expect(await runOne(() => Promise.reject(new TypeError('x is not a function')))).toMatchObject({ verdict: 'fail' })
    expect(await runOne(() => new Promise(() => {}), 10)).toMatchObject({ verdict: 'fail' })
  })

  it('bytes are shown as hex, however deep', () => {
    expect(show({ a: [Buffer.from('ff', 'hex')] })).toBe('{"a":["ff"]}')
    expect(show(new Uint8Array([1]))).toBe('"01"')
    expect(show('x'.repeat(1000)).length).toBeLessThan(400)
  })
})

describe('the command', () => {
  let relay: TestRelay
  const directory = mkdtempSync(join(tmpdir(), 'sealpost-conformance-'))
  beforeAll(async () => {
    relay = await testRelay()
  })
  afterAll(async () => {
    await relay.close()
    rmSync(directory, { recursive: true, force: true })
  })
  const command = (...given: string[]): Promise<{ code: number; out: string }> =>
    new Promise((resolve) => {
      const script = fileURLToPath(new URL('../../scripts/conformance.ts', import.meta.url))
      execFile(process.execPath, ['--import', 'tsx', script, ...given], (error, out) =>
        resolve({ code: error ? Number(error.code) : 0, out }),
      )
    })

  it('ends with 0, 1 or 2, and writes its reports', async () => {
    const wrong = await wrongRelay(relay.url, () => ({
      http: ({ headers: _, ...passing }) => ({ ...passing, headers: {} }),
    }))
    const [json, junit] = [join(directory, 'report.json'), join(directory, 'report.xml')]
    const both = ['--realm', relay.realm, '--clause', 'K-4.6,C-1.1']
    const [good, bad, useless] = await Promise.all([
      command('--url', relay.url, ...both, '--report', json, '--junit', junit),
      command('--url', wrong.url, ...both),
      command('--url', relay.url, '--only', 'Z'),
    ])
    await wrong.close()
    expect(good).toMatchObject({ code: 0, out: expect.stringContaining('2 passed, 0 failed, 0 not run') })
    expect(JSON.parse(readFileSync(json, 'utf8')).clauses.map((each: { clause: string }) => each.clause)).toEqual([
      'C-1.1',
      'K-4.6',
    ])
    expect(readFileSync(junit, 'utf8')).toContain('failures="0"')
    expect(bad).toMatchObject({ code: 1, out: expect.stringContaining('1 passed, 1 failed') })
    expect(useless.code).toBe(2)
  })
})
