// Counts what was begun and not ended yet, for those who must not leave before it is.

/** Work under way, of whatever kind. */
export class UnderWay {
  private open = 0
  private waiting: (() => void)[] = []

  /** One more, or one less. */
  count(by: 1 | -1): void {
    this.open += by
    if (this.open === 0) for (const resolve of this.waiting.splice(0)) resolve()
  }

  /** Resolves when none is under way. */
  async over(): Promise<void> {
    if (this.open > 0) await new Promise<void>((resolve) => this.waiting.push(resolve))
  }
}
