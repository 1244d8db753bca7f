// What becomes of each clause: the verdict of the checks that name it, or the reason why none can.
import type { Clause } from './clauses.ts'
import type { Outcome, Verdict } from './runner.ts'

/** binds_other: the rule is for the other party. unseen: nothing of it shows on the wire, or the text leaves nothing to check. */
export type ClauseVerdict = Verdict | 'binds_other' | 'unseen' | 'unaccounted'

/** @property reason why there is no verdict of a check; '' otherwise. */
export type ClauseResult = Clause & { verdict: ClauseVerdict; reason: string }

/** Why a clause has no check. */
export type Exempt = { verdict: 'binds_other' | 'unseen'; reason: string }

/** One clause for each of these, in the order of the protocol. A clause that neither a check nor a reason names is unaccounted. */
export function account(
  clauses: readonly Clause[],
  outcomes: readonly Outcome[],
  exempt: Record<string, Exempt>,
): ClauseResult[] {
  return clauses.map((clause) => {
    const checks = outcomes.filter((each) => each.clauses.includes(clause.id))
    const has = (verdict: Verdict) => checks.find((each) => each.verdict === verdict)
    const decisive = has('fail') ?? has('pass') ?? has('not_run')
    if (decisive)
      return { ...clause, verdict: decisive.verdict, reason: decisive.verdict === 'not_run' ? decisive.seen : '' }
    return { ...clause, ...(exempt[clause.id] ?? { verdict: 'unaccounted', reason: 'no check of the kit names it' }) }
  })
}

/** How many of each. */
export const countOf = (results: readonly ClauseResult[], verdict: ClauseVerdict): number =>
  results.filter((each) => each.verdict === verdict).length
