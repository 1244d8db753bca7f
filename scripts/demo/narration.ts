// How the demo tells its story: numbered steps with their time, a few lines each, and why one failed. Knows nothing of relays.

/** A step did not hold; the message is for the reader. */
export class Broken extends Error {}

/** @throws Broken with what should have been true. */
export function hold(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Broken(what)
}

/** Adds a line under the step's title. */
export type Say = (line: string) => void

const WIDTH = 72
const STEP_WITHIN_MS = 20_000

const paint =
  (code: number) =>
  (text: string): string =>
    process.stdout.isTTY && !process.env.NO_COLOR ? `\x1b[${code}m${text}\x1b[0m` : text
const bold = paint(1)
const faint = paint(2)
const green = paint(32)
const red = paint(31)

/** Writes to stdout as it happens. Colour only on a terminal. */
export class Narration {
  steps = 0
  private quiet = false
  private readonly startedAt = performance.now()

  line(text = ''): void {
    if (!this.quiet) process.stdout.write(`${text}\n`)
  }

  title(text: string): void {
    this.line(bold(text))
    this.line()
  }

  /** Nothing more is said, whatever still fails. */
  hush(): void {
    this.quiet = true
  }

  /**
   * Runs one step: its title, its time, its lines.
   * @throws what the step throws, after saying why it failed; an Error when it takes longer than `withinMs`.
   */
  async step<T>(title: string, run: (say: Say) => Promise<T>, withinMs = STEP_WITHIN_MS): Promise<T> {
    const number = String(++this.steps).padStart(2)
    const lines: string[] = []
    const started = performance.now()
    const took = (): string => `${Math.round(performance.now() - started)} ms`
    if (!this.quiet) process.stdout.write(`${number}  ${bold(title.padEnd(WIDTH - 12))}`)
    try {
      const result = await inTime(
        run((line) => void lines.push(line)),
        withinMs,
      )
      this.line(green(took().padStart(10)))
      for (const line of lines) this.line(`    ${line}`)
      this.line()
      return result
    } catch (error) {
      this.line(red(` FAILED after ${took()}`))
      for (const line of lines) this.line(`    ${line}`)
      for (const line of reason(error)) this.line(red(`    ${line}`))
      this.line()
      throw error
    }
  }

  get seconds(): string {
    return ((performance.now() - this.startedAt) / 1000).toFixed(1)
  }

  aside(text: string): void {
    this.line(faint(text))
  }
}

/** Short lines for a person: no stack unless nobody expected this. */
function reason(error: unknown): string[] {
  if (error instanceof Broken) return error.message.split('\n')
  const { message, cause } = error instanceof Error ? error : new Error(String(error))
  const root = cause instanceof Error ? [`(${cause.message || (cause as NodeJS.ErrnoException).code})`] : []
  return [...message.split('\n').slice(0, 10), ...root]
}

async function inTime<T>(work: Promise<T>, withinMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Broken(`nothing happened within ${withinMs / 1000} s`)), withinMs)
  })
  // Whoever comes second has nobody listening.
  work.catch(() => {})
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}
