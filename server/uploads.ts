// Who may have how much under way over HTTP: large sends one at a time per user and few at once, the rest within a share per user. I10
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { FRAME_MAX_BYTES } from '../proto/limits.ts'

/** Frames of one user, and bytes of them, under way at once; beyond it OVERLOADED, as on a socket. [S-9.5] */
const USER_MAX_FRAMES = 100
const USER_MAX_BYTES = 8 * 1024 * 1024
/** Large sends decoded and committed at once; the others hold their bodies and wait. One per lane of the writer keeps its pipeline free. */
const LARGE_AT_ONCE = 2
const RETRY_MS = 1_000

type Share = { frames: number; bytes: number; large: boolean }

export class Uploads {
  private readonly shares = new Map<Uuid, Share>()
  private readonly waiting: (() => void)[] = []
  private working = 0

  /**
   * Takes the user's share for one body.
   * @param bytes its length as announced; null = not announced, and counted as a large one.
   * @returns what gives it back, to be called once. @throws RelayError OVERLOADED, RATE_LIMITED.
   */
  enter(userId: Uuid, bytes: number | null): () => void {
    const share = this.shares.get(userId) ?? { frames: 0, bytes: 0, large: false }
    const large = bytes === null || bytes > FRAME_MAX_BYTES
    const weight = large ? 0 : bytes
    if (large && share.large)
      throw new RelayError('RATE_LIMITED', 'one large send at a time', { retryAfterMs: RETRY_MS })
    if (share.frames >= USER_MAX_FRAMES || share.bytes + weight > USER_MAX_BYTES)
      throw new RelayError('OVERLOADED', 'too many requests at once', { retryAfterMs: RETRY_MS })
    this.shares.set(userId, share)
    share.frames++
    share.bytes += weight
    if (large) share.large = true
    return () => {
      share.frames--
      share.bytes -= weight
      if (large) share.large = false
      if (share.frames === 0) this.shares.delete(userId)
    }
  }

  /** Resolves when a large send may go on, first come first served. @returns what lets the next one on, to be called once. */
  async turn(): Promise<() => void> {
    if (this.working >= LARGE_AT_ONCE) await new Promise<void>((resolve) => this.waiting.push(resolve))
    else this.working++
    return () => {
      const next = this.waiting.shift()
      if (next) next()
      else this.working--
    }
  }
}
