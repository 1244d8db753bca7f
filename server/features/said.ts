// What this node told other nodes and nothing will ever tell again: said once more when hints may have been lost, since Redis keeps
// nothing of them. A hint that came is one that comes twice, so whoever takes it in minds neither. I11
import type { Time } from '../time.ts'

type Entry<T> = { said: T; atMs: number }

/** Remembered at most, and so long, milliseconds: a client asks by itself in the end. I10 */
const SAID_MAX = 5_000
const SAID_FOR_MS = 10 * 60_000
/** Nodes come back one after the other, each of them asks: together that is one reason to say it again, milliseconds. */
const GATHER_MS = 1_000
/** While there are reasons without end, a part of a cluster that is away, the next time comes later and later, up to so long. */
const GROWS = 4
const GATHER_MAX_MS = 64_000
const SLICE = 500
const SLICE_MS = 100

/** @returns a memory of what was said. @param say says it again. */
export function openSaid<T>(time: Time, say: (said: T) => void) {
  /** The oldest first. */
  const entries = new Map<string, Entry<T>>()
  let cancel: (() => void) | null = null
  /** In the middle of it: who asks now may have missed its beginning. */
  let isSaying = false
  let isAsked = false
  let gatherMs = GATHER_MS
  let endedMs = Number.NEGATIVE_INFINITY

  function plan(): void {
    if (time.now() - endedMs > GATHER_MAX_MS) gatherMs = GATHER_MS
    cancel = time.after(gatherMs, () => {
      isSaying = true
      sayAgain([...entries.keys()])
    })
    gatherMs = Math.min(gatherMs * GROWS, GATHER_MAX_MS)
  }

  function sayAgain(keys: string[]): void {
    const nowMs = time.now()
    for (const key of keys.splice(0, SLICE)) {
      const entry = entries.get(key)
      if (!entry) continue
      if (nowMs - entry.atMs > SAID_FOR_MS) entries.delete(key)
      else say(entry.said)
    }
    if (keys.length > 0) {
      cancel = time.after(SLICE_MS, () => sayAgain(keys))
      return
    }
    cancel = null
    isSaying = false
    endedMs = nowMs
    if (isAsked) plan()
    isAsked = false
  }

  return {
    /** It was said. @param key what is said later under the same takes its place. */
    add(key: string, said: T): void {
      entries.delete(key)
      entries.set(key, { said, atMs: time.now() })
      if (entries.size > SAID_MAX) entries.delete(entries.keys().next().value!)
    },
    /** Hints may have been lost: soon all of it is said again. */
    again(): void {
      if (isSaying) isAsked = true
      else if (!cancel) plan()
    },
    stop(): void {
      cancel?.()
      cancel = null
    },
  }
}
