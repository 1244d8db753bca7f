// The client part of the kit: all wanted scenarios against one client, and what became of each clause.
import { account, type ClauseResult, type Exempt } from '../accounting.ts'
import type { Check } from '../check.ts'
import { isWanted, protocolClauses } from '../clauses.ts'
import { relayChecks } from '../relay/checks.ts'
import { type Outcome, runChecks } from '../runner.ts'
import { clientExempt } from './exempt.ts'
import { Harness } from './harness.ts'
import { ScriptedRelay } from './relay.ts'
import { scenarios as all } from './scenarios.ts'
import { Stage } from './stage.ts'

export type ClientRun = {
  /** Starts the harness; given to a shell. */
  command: string
  /** 0 = any port, and several scenarios at a time. */
  listen?: number
  host?: string
  wanted?: string[]
  slow?: boolean
  /** How long is waited for what the client does; 10 s unless said. */
  patienceMs?: number
  told?(outcome: Outcome): void
  scenarios?: readonly Check<Stage>[]
}

/** @property name what the harness calls itself. */
export type ClientResult = { outcomes: Outcome[]; clauses: ClauseResult[]; name: string }

const AT_ONCE = 12

/** @throws Violation when the harness does not start. */
export async function runClient(options: ClientRun): Promise<ClientResult> {
  const {
    command,
    listen = 0,
    host = '127.0.0.1',
    wanted = [],
    slow = false,
    patienceMs = 10_000,
    told,
    scenarios = all,
  } = options
  let first = await Harness.start(command)
  const many = first.can('many')
  const { name } = first
  const spare: Harness[] = many ? [] : [first]
  const running = new Map<Stage, Harness>()
  let count = 0
  try {
    const chosen = scenarios.filter((each) => each.clauses.some((id) => isWanted(id, wanted)))
    const outcomes = await runChecks<Stage>(chosen, {
      enter: async () => {
        // One that died takes its scenarios with it, not those that follow.
        if (many && first.isGone) first = await Harness.start(command)
        const harness = many ? first : (spare.pop() ?? (await Harness.start(command)))
        const relay = await ScriptedRelay.listen(listen, host)
        const stage = new Stage(relay, harness, `client-${++count}`, { slow, patienceMs })
        running.set(stage, harness)
        return stage
      },
      leave: async (stage) => {
        await stage.end()
        if (!many) running.get(stage)?.stop()
        running.delete(stage)
      },
      atOnce: listen === 0 ? AT_ONCE : 1,
      slow,
      ...(told && { told }),
    })
    const clauses = (await protocolClauses()).filter(({ id }) => isWanted(id, wanted))
    return { outcomes, clauses: account(clauses, outcomes, exemptOfClients()), name }
  } finally {
    for (const each of [...spare, first, ...running.values()]) each.stop()
  }
}

/** Clauses no scenario needs to name: what a relay is checked for binds relays; the rest has its reason. */
export const exemptOfClients = (): Record<string, Exempt> => ({
  ...Object.fromEntries(
    relayChecks.flatMap((check) =>
      check.clauses.map((id) => [id, { verdict: 'binds_other' as const, reason: 'the relay part of the kit' }]),
    ),
  ),
  ...clientExempt,
})
