// The relay part of the kit: our relay passes whole, and a relay that breaks a rule fails at that rule.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { rateChecks } from '../../scripts/conformance/relay/rates.ts'
import { runRelay } from '../../scripts/conformance/relay/run.ts'
import { strangerChecks } from '../../scripts/conformance/relay/strangers.ts'
import { liftedRates } from '../../server/limits.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { type Fault, wrongRelay } from '../support/wrong-relay.ts'

let relay: TestRelay
beforeAll(async () => {
  // Small enough to be filled, larger than the largest window and page.
  const queue = { maxMessages: 300, ttlMs: 30 * 86_400_000 }
  // A queue can be filled in one go. What comes back is little: who sends too much is to meet the limit however slow this machine is.
  const limits = { ...liftedRates(), messages: [{ burst: 320, everyMs: 200 }] }
  relay = await testRelay({ config: { strangers: 'ask', queue, limits } })
})
afterAll(() => relay.close())

it('our relay keeps every clause that can be seen from outside', async () => {
  const { outcomes, clauses } = await runRelay({ url: relay.url, realm: relay.realm })
  const failed = outcomes.filter(({ verdict }) => verdict === 'fail')
  expect(failed.map(({ clauses: ids, title, seen }) => `${ids.join(' ')} ${title}: ${seen}`)).toEqual([])
  // What was not run takes long by nature, and says so.
  for (const { verdict, seen } of outcomes) if (verdict === 'not_run') expect(seen).toMatch(/--slow$/)
  expect(clauses.filter(({ verdict }) => verdict === 'pass').length).toBeGreaterThan(220)
  // Checks that hang end by themselves, and say which.
}, 240_000)

it('where everybody knows everybody and nothing is limited, what is about strangers and limits is not run', async () => {
  const open = await testRelay()
  const checks = [...rateChecks, ...strangerChecks]
  const { outcomes } = await runRelay({ url: open.url, realm: open.realm, checks })
  await open.close()
  const why = outcomes.flatMap(({ verdict, seen }) => (verdict === 'pass' ? [] : [`${verdict}: ${seen}`]))
  expect(why).toEqual([
    ...rateChecks.map(() => expect.stringMatching(/^not_run: .*nothing is limited here$/)),
    ...strangerChecks.slice(1).map(() => 'not_run: everybody knows everybody at this relay'),
  ])
}, 60_000)

it('where no relay answers, or another realm does, the kit says so', async () => {
  await expect(runRelay({ url: 'http://127.0.0.1:1', realm: 'x' })).rejects.toThrow(/expected an answer to GET/)
  await expect(runRelay({ url: relay.url, realm: 'https://other.example' })).rejects.toThrow(/nobody can register/)
})

type Frame = Parameters<NonNullable<Fault['toClient']>>[0]

const json = (text: string, change: (body: { [name: string]: unknown }) => void): string => {
  const body = JSON.parse(text)
  change(body)
  return JSON.stringify(body)
}

const FAULTS: { fault: string; clauses: string[]; make: () => Fault }[] = [
  {
    fault: 'answers lose their request_id',
    clauses: ['C-2.2'],
    make: () => ({
      toClient: (frame) => {
        if (frame.ackCommitted) frame.requestId = 0
        return [frame]
      },
    }),
  },
  {
    fault: 'another realm in Hello',
    clauses: ['C-3.1'],
    make: () => ({
      toClient: (frame) => {
        if (frame.hello) frame.hello.realm = 'https://other.example'
        return [frame]
      },
    }),
  },
  {
    fault: 'acks are answered and forgotten',
    clauses: ['Q-6', 'Q-6.1'],
    make: () => ({
      toRelay: (frame, answer) => {
        if (!frame.ack) return [frame]
        answer({ requestId: frame.requestId, ackCommitted: {} })
        return []
      },
    }),
  },
  {
    fault: 'envelopes overtake each other',
    clauses: ['Q-2.2', 'S-8.1'],
    make: () => {
      let held: Frame | null = null
      return {
        toClient: (frame) => {
          if (!frame.envelope?.ciphertext) return [frame]
          if (held) {
            const both = [frame, held]
            held = null
            return both
          }
          held = frame
          return []
        },
      }
    },
  },
  {
    fault: 'QueueEmpty is said twice',
    clauses: ['Q-5'],
    make: () => ({ toClient: (frame) => (frame.queueEmpty ? [frame, frame] : [frame]) }),
  },
  {
    fault: 'a repeated send is a new message',
    clauses: ['S-2.1'],
    make: () => ({
      toClient: (frame) => {
        if (frame.messageAccepted) frame.messageAccepted.duplicate = false
        return [frame]
      },
    }),
  },
  {
    fault: 'missing devices are not named',
    clauses: ['S-4.1', 'S-4.3'],
    make: () => ({
      toClient: (frame) => {
        if (frame.error?.deviceMismatch) frame.error.deviceMismatch.missing = []
        return [frame]
      },
    }),
  },
  {
    fault: 'a code that is not in the list',
    clauses: ['E-1', 'S-4.7'],
    make: () => ({
      toClient: (frame) => {
        if (frame.error) frame.error.code = 77 as never
        return [frame]
      },
    }),
  },
  {
    fault: 'strangers are told that a conversation exists',
    clauses: ['E-2.2', 'H-8'],
    make: () => ({
      http: (passing) =>
        passing.status === 404 && passing.path.startsWith('/v1/conversations/')
          ? { ...passing, status: 403, text: passing.text.replace('NOT_FOUND', 'FORBIDDEN') }
          : passing,
    }),
  },
  {
    fault: 'a one-time key is handed out again',
    clauses: ['K-4.1'],
    make: () => {
      const first = new Map<string, unknown>()
      return {
        http: (passing) => {
          if (!/^\/v1\/keys\/[^/]+\/1$/.test(passing.path) || passing.status !== 200) return passing
          const text = json(passing.text, (body) => {
            const [device] = body.devices as { one_time_prekey: unknown }[]
            const kept = first.get(passing.path) ?? device!.one_time_prekey
            first.set(passing.path, kept)
            device!.one_time_prekey = kept
          })
          return { ...passing, text }
        },
      }
    },
  },
  {
    fault: 'uploads that break rules are taken',
    clauses: ['K-1.1', 'K-1.4', 'K-2.4'],
    make: () => ({
      http: (passing) =>
        passing.method === 'PUT' && passing.path === '/v1/keys' && passing.status >= 400
          ? { ...passing, status: 200, text: '{}' }
          : passing,
    }),
  },
  {
    fault: 'bundles may be cached',
    clauses: ['K-4.6'],
    make: () => ({
      http: ({ headers: { 'cache-control': _, ...headers }, ...passing }) => ({ ...passing, headers }),
    }),
  },
  {
    fault: 'wrong proofs register',
    clauses: ['I-2.1'],
    make: () => ({
      http: (passing) =>
        passing.path === '/v1/accounts' && passing.status === 400
          ? { ...passing, status: 201, text: '{"user_id":"","device_id":1,"device_secret":""}' }
          : passing,
    }),
  },
]

it.each(FAULTS)('a relay is caught: $fault', async ({ clauses: wanted, make }) => {
  const wrong = await wrongRelay(relay.url, make)
  const { clauses } = await runRelay({ url: wrong.url, realm: relay.realm, wanted, patienceMs: 1500 })
  await wrong.close()
  expect(clauses.map(({ id, verdict }) => [id, verdict])).toEqual(
    clauses.map(({ id }) => [id, wanted.includes(id) ? 'fail' : expect.anything()]),
  )
})

it('the same way without a fault passes', async () => {
  const right = await wrongRelay(relay.url, () => ({}))
  const wanted = FAULTS.flatMap((each) => each.clauses)
  const { outcomes } = await runRelay({ url: right.url, realm: relay.realm, wanted })
  await right.close()
  expect(outcomes.filter(({ verdict }) => verdict === 'fail').map(({ title, seen }) => `${title}: ${seen}`)).toEqual([])
}, 60_000)
