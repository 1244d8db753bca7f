// The relay part of the kit: all wanted checks against one running relay, and what became of each clause.
import { account, type ClauseResult } from '../accounting.ts'
import { type Check, Violation } from '../check.ts'
import { isWanted, protocolClauses } from '../clauses.ts'
import { call } from '../device.ts'
import { type Refusal, statusOf } from '../http.ts'
import { type Outcome, runChecks } from '../runner.ts'
import { type Kit, World } from '../world.ts'
import { relayChecks } from './checks.ts'
import { relayExempt } from './exempt.ts'

export type RelayRun = {
  url: string
  realm: string
  invitations?: string[]
  slow?: boolean
  /** How long is waited for a frame; 8 s unless said. */
  patienceMs?: number
  /** Clauses or sections; empty = all. */
  wanted?: string[]
  told?(outcome: Outcome): void
  checks?: readonly Check<Kit>[]
}

export type RelayResult = { outcomes: Outcome[]; clauses: ClauseResult[]; users: number }

const AT_ONCE = 8

/** @throws Violation when no relay answers at the url, or nobody can register there. */
export async function runRelay(options: RelayRun): Promise<RelayResult> {
  const { wanted = [], slow = false, told, checks = relayChecks } = options
  const world = new World(options)
  await lookAt(world)
  const chosen = checks.filter((each) => each.clauses.some((id) => isWanted(id, wanted)))
  const outcomes = await runChecks(chosen, {
    enter: (check) => world.enter(check),
    leave: (kit, passed) => kit.leave(passed),
    atOnce: AT_ONCE,
    slow,
    ...(told && { told }),
  })
  const codes = judge(world.relay.refusals)
  if (codes.clauses.some((id) => isWanted(id, wanted))) {
    outcomes.push(codes)
    told?.(codes)
  }
  const clauses = (await protocolClauses()).filter(({ id }) => isWanted(id, wanted))
  return { outcomes, clauses: account(clauses, outcomes, relayExempt), users: world.registered }
}

/** Something to stand on: without one registered user every check would fail for one reason. */
async function lookAt(world: World): Promise<void> {
  await call(world.relay, 'GET', '/healthz')
  try {
    world.giveBack(await world.fresh())
  } catch (error) {
    throw new Violation(`nobody can register at ${world.relay.url}: ${(error as Error).message}`, { cause: error })
  }
}

/** All refusals of the run, whatever check asked for them. [E-1] [E-2] */
function judge(refusals: readonly Refusal[]): Outcome {
  const wrong = refusals.filter(
    ({ code, status }) => statusOf(code) === undefined || (status !== null && status !== statusOf(code)),
  )
  const impatient = refusals.filter(({ code, retryAfterMs }) => code === 'RATE_LIMITED' && !(retryAfterMs > 0))
  const of = (each: Refusal) => `${each.code} with ${each.status ?? 'a frame'} for ${each.where}`
  const bad = [...wrong, ...impatient][0]
  const codes = new Set(refusals.map((each) => each.code))
  return {
    clauses: ['E-1', 'E-2'],
    title: 'every refusal of this run has a code of the list and its status, and RATE_LIMITED a time to wait',
    verdict: bad ? 'fail' : 'pass',
    seen: bad
      ? `saw ${of(bad)}, and ${wrong.length + impatient.length - 1} more`
      : `${refusals.length} refusals, ${codes.size} codes`,
    ms: 0,
  }
}
