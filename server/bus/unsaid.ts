// What ended while Redis could not be told. It is told later, a few at a time; what ended in Redis by itself meanwhile is forgotten, so
// that a long outage costs neither memory (I10) nor a turn in which everything is said at once (I14).

export type Unsaid<Key, Value> = {
  /** Redis was not told of the end of this. */
  add(key: Key, value: Value, since?: number): void
  /** It began again. */
  delete(key: Key): void
  readonly size: number
  /** A step passed: what is too old is forgotten, some of it in each step. */
  step(): void
  /** Takes out what may be said now. Who is not heard puts it back with its `since`. */
  take(): { key: Key; value: Value; since: number }[]
}

/** Taken at a time, and forgotten at a time. */
const TAKE_SLICE = 500
const FORGET_SLICE = 5_000

/** @param holdsSteps after so many steps it has ended by itself. */
export function openUnsaid<Key, Value>(holdsSteps: number): Unsaid<Key, Value> {
  // The oldest first, but for what was put back: that is met later, and forgotten then.
  const waiting = new Map<Key, { value: Value; since: number }>()
  let steps = 0
  const isOver = (since: number): boolean => steps - since >= holdsSteps
  return {
    add(key, value, since = steps) {
      waiting.delete(key)
      if (!isOver(since)) waiting.set(key, { value, since })
    },
    delete: (key) => void waiting.delete(key),
    get size() {
      return waiting.size
    },
    step() {
      steps++
      let left = FORGET_SLICE
      for (const [key, { since }] of waiting) {
        if (left-- === 0 || !isOver(since)) return
        waiting.delete(key)
      }
    },
    take() {
      const taken: { key: Key; value: Value; since: number }[] = []
      for (const [key, { value, since }] of waiting) {
        if (taken.length === TAKE_SLICE) break
        taken.push({ key, value, since })
        waiting.delete(key)
      }
      return taken
    },
  }
}
