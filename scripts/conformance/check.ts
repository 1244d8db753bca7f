// What a check is, and the words in which it says what it wanted and what it saw.

/** One small experiment. It returns what was seen, in a few words, or throws. Checks know nothing of each other. */
export type Check<Kit> = {
  /** The rules it shows to hold or not. */
  clauses: readonly string[]
  /** A sentence about the party under test. */
  title: string
  run(kit: Kit): Promise<string>
  /** Why it takes long by nature; it is run on demand only. */
  slow?: string
  /** It may take this long, milliseconds, when that is more than usual. */
  withinMs?: number
}

/** The party under test broke a rule. The message says what was expected and what was seen. */
export class Violation extends Error {
  override readonly name = 'Violation'
}

/** The check could not be made here; the message says why. Nothing is known of the rule. */
export class NotRun extends Error {
  override readonly name = 'NotRun'
}

/** Anything, short enough for one line. Bytes as hex. */
export function show(value: unknown): string {
  const text =
    typeof value === 'string'
      ? value
      : (JSON.stringify(value, function (this: Record<string, unknown>, key, each) {
          // What toJSON makes of a Buffer is of no use.
          const raw = key === '' ? value : this[key]
          return raw instanceof Uint8Array ? Buffer.from(raw).toString('hex') : each
        }) ?? String(value))
  return text.length > 300 ? `${text.slice(0, 300)}…` : text
}

/** @throws Violation unless it holds. @param expected what the rule wants. @param saw what there was instead. */
export function hold(holds: unknown, expected: string, saw: unknown): asserts holds {
  if (!holds) throw new Violation(`expected ${expected}; saw ${show(saw)}`)
}

/** @throws Violation unless both are equal as JSON, bytes by value. */
export function same(saw: unknown, expected: unknown, what: string): void {
  if (show(saw) !== show(expected)) throw new Violation(`expected ${what} ${show(expected)}; saw ${show(saw)}`)
}

/** What it is, if it is there. @throws Violation when it is null or absent. */
export function there<T>(value: T | null | undefined, what: string): T {
  if (value === null || value === undefined) throw new Violation(`expected ${what}; saw none`)
  return value
}
