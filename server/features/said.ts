// What this node told other nodes and nothing will ever tell again: said once more when hints may have been lost, since Redis keeps
// nothing of them. A hint that came is one that comes twice, so whoever takes it in minds neither. I11
import type { Time } from '../time.ts'

type Entry<T> = { said: T; atMs: number; left: number }

/** Remembered at most, and so long, milliseconds: a client asks by itself in the end. I10 */
const SAID_MAX = 5_000
const SAID_FOR_MS = 10 * 60_000
/** How often the same is said again: a Redis that does not keep up is to be left alone. */
const TIMES = 3
/** Nodes come back one after the other, each of them asks: together that is one reason to say it again, milliseconds. */
const GATHER_MS = 1_000
const SLICE = 500
const SLICE_MS = 100

/** @returns a memory of what was said. @param say says it again. */
export function openSaid<T>(time: Time, say: (said: T) => void) {
  /** The oldest first. */
  const entries = new Map<string, Entry<T>>()
  let cancel: (() => void) | null = null

  function sayAgain(keys: string[]): void {
    cancel = null
    const nowMs = time.now()
    for (const key of keys.splice(0, SLICE)) {
      const entry = entries.get(key)
      if (!entry) continue
      if (entry.left-- === 0 || nowMs - entry.atMs > SAID_FOR_MS) entries.delete(key)
      else say(entry.said)
    }
    if (keys.length > 0) cancel = time.after(SLICE_MS, () => sayAgain(keys))
  }

  return {
    /** It was said. @param key what is said later under the same takes its place. */
    add(key: string, said: T): void {
      entries.delete(key)
      entries.set(key, { said, atMs: time.now(), left: TIMES })
      if (entries.size > SAID_MAX) entries.delete(entries.keys().next().value!)
    },
    /** Hints may have been lost: soon all of it is said again. */
    again(): void {
      cancel ??= time.after(GATHER_MS, () => sayAgain([...entries.keys()]))
    },
    stop(): void {
      cancel?.()
      cancel = null
    },
  }
}
