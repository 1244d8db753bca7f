// How many of something are open for each holder: counted up and down, and forgotten at none.
import { RelayError } from '../proto/errors.ts'

const RETRY_MS = 1_000

export class Places {
  private readonly taken = new Map<string, number>()
  private readonly most: number
  private readonly what: string

  /** @param most for each holder. @param what there are too many of, for people. */
  constructor(most: number, what: string) {
    this.most = most
    this.what = what
  }

  /** @throws RelayError RATE_LIMITED: the holder has all it may have. */
  check(holder: string): void {
    if ((this.taken.get(holder) ?? 0) >= this.most)
      throw new RelayError('RATE_LIMITED', `too many ${this.what}`, { retryAfterMs: RETRY_MS })
  }

  /** One more, whether it may or not, or one less. */
  count(holder: string, by: 1 | -1): void {
    const now = (this.taken.get(holder) ?? 0) + by
    if (now > 0) this.taken.set(holder, now)
    else this.taken.delete(holder)
  }
}
