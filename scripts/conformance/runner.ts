// Runs checks side by side and notes what became of each. Knows nothing of relays or clients.
import { type Check, NotRun, Violation } from './check.ts'

/** fail: a rule was broken, or nothing could be made of what came. not_run: nothing is known. */
export type Verdict = 'pass' | 'fail' | 'not_run'

/** What became of one check. @property seen what was seen, or what was expected and seen instead, or why it was not run. */
export type Outcome = { clauses: readonly string[]; title: string; verdict: Verdict; seen: string; ms: number }

/** @property enter opens what one check works in. @property leave is always called, and told whether all was well. */
export type RunOptions<Kit> = {
  enter(check: Check<Kit>): Promise<Kit>
  leave(kit: Kit, passed: boolean): Promise<void>
  atOnce: number
  slow: boolean
  /** Told as each ends. */
  told?(outcome: Outcome): void
  clock?: () => number
}

/** A check that takes longer is hanging, milliseconds. */
const WITHIN_MS = 30_000

/** Runs all, so many at once; outcomes in the order of the checks. Never throws for a check. */
export async function runChecks<Kit>(checks: readonly Check<Kit>[], options: RunOptions<Kit>): Promise<Outcome[]> {
  const { slow, told, clock = () => performance.now() } = options
  const outcomes: Outcome[] = []
  const order = checks.map((_, at) => at)
  // What takes long begins first.
  order.sort((a, b) => (checks[b]!.withinMs ?? 0) - (checks[a]!.withinMs ?? 0))
  const work = async (): Promise<void> => {
    for (let at = order.shift(); at !== undefined; at = order.shift()) {
      const check = checks[at]!
      const { clauses, title } = check
      const began = clock()
      const result =
        check.slow && !slow
          ? { verdict: 'not_run' as const, seen: `${check.slow}; run with --slow` }
          : await attempt(check, options)
      const outcome = { clauses, title, ...result, ms: Math.round(clock() - began) }
      outcomes[at] = outcome
      told?.(outcome)
    }
  }
  await Promise.all(Array.from({ length: options.atOnce }, work))
  return outcomes
}

async function attempt<Kit>(
  check: Check<Kit>,
  { enter, leave }: RunOptions<Kit>,
): Promise<{ verdict: Verdict; seen: string }> {
  let kit: Kit
  try {
    kit = await enter(check)
  } catch (error) {
    return { verdict: error instanceof NotRun ? 'not_run' : 'fail', seen: messageOf(error) }
  }
  let passed = false
  try {
    const seen = await within(check.run(kit), check.withinMs ?? WITHIN_MS)
    passed = true
    return { verdict: 'pass', seen }
  } catch (error) {
    return { verdict: error instanceof NotRun ? 'not_run' : 'fail', seen: messageOf(error) }
  } finally {
    await leave(kit, passed).catch(() => {})
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error)).split('\n')[0]!

/** The promise's value. @throws Violation when it takes longer. */
export function within<T>(promise: Promise<T>, ms: number, what = 'an end'): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Violation(`expected ${what} within ${ms / 1000} s; saw nothing`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}
