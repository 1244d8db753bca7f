// The client part of the kit: our SDK passes whole, and a client that breaks a rule fails at that rule.
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { runClient } from '../../scripts/conformance/client/run.ts'

const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url))
const start = (script: string, fault = ''): string => `exec node --import tsx '${path(script)}' '${fault}'`
const wrong = (fault: string): string => start('test/support/wrong-harness.ts', fault)

it('our SDK keeps every clause that can be seen from outside', async () => {
  const { outcomes, clauses } = await runClient({ command: start('scripts/conformance/sdk-harness.ts') })
  const notPassed = outcomes.filter(({ verdict }) => verdict !== 'pass')
  expect(notPassed.map(({ clauses: ids, title, seen }) => `${ids.join(' ')} ${title}: ${seen}`)).toEqual([])
  expect(clauses.filter(({ verdict }) => verdict === 'pass').length).toBeGreaterThan(80)
}, 120_000)

it.concurrent.each([
  { fault: 'fights for its place', clauses: ['C-5.1'] },
  { fault: 'never acks', clauses: ['Q-8.4'] },
  { fault: 'cannot wait', clauses: ['S-9.5'] },
  { fault: 'new ids for old messages', clauses: ['S-2.4', 'S-9.6'] },
  { fault: 'tells the query its token', clauses: ['C-1.1'] },
  { fault: 'believes every identity', clauses: ['S-4.6'] },
  { fault: 'mends every padding', clauses: ['P-2'] },
  { fault: 'asks for two pages at once', clauses: ['Q-3.3'] },
])(
  'a client is caught: $fault',
  async ({ fault, clauses: wanted }) => {
    const { clauses } = await runClient({ command: wrong(fault), wanted, patienceMs: 2000 })
    expect(clauses.map(({ id, verdict }) => [id, verdict])).toEqual(
      clauses.map(({ id }) => [id, wanted.includes(id) ? 'fail' : expect.anything()]),
    )
  },
  60_000,
)

it('a harness that is none is told so', async () => {
  await expect(runClient({ command: 'echo hello' })).rejects.toThrow(/not JSON/)
  await expect(runClient({ command: 'exit 3' })).rejects.toThrow(/ended with 3/)
})
