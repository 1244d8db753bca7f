// One at a time, in the order of asking. Every libsignal call of an account runs under one of these: two encryptions at once
// would use one counter twice.

/** Not reentrant: asking for it while holding it waits for ever. */
export class Mutex {
  private tail: Promise<unknown> = Promise.resolve()

  /** Runs the work when everything asked for before is done, whether or not that failed. */
  run<T>(work: () => Promise<T> | T): Promise<T> {
    const mine = this.tail.then(work, work)
    this.tail = mine.catch(() => {})
    return mine
  }
}
