// The client under test, as a process that speaks JSON lines: one command a line in, one answer a line out. docs/conformance.md.
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { NotRun, Violation } from '../check.ts'

/** What a harness may be able to do besides the commands every one has. */
export type Ability = 'advance' | 'link' | 'many' | 'restart' | 'typing'

/** The first line a harness writes. */
type Ready = { ready: string; can?: string[] }

// biome-ignore lint/suspicious/noExplicitAny: answers are of another program, in every shape
export type Reply = any

const READY_WITHIN_MS = 30_000
const ANSWER_WITHIN_MS = 15_000
const LAST_WORDS = 2000

/** The harness refused a command, in its own words. */
export class CommandRefused extends Violation {}

/** One process. Commands may be under way at the same time; answers find theirs by id. */
export class Harness {
  name = ''
  private readonly process: ChildProcess
  private readonly waiting = new Map<number, { resolve(reply: Reply): void; reject(error: Error): void }>()
  private readonly abilities = new Set<string>()
  private greeted: ((ready: Ready) => void) | null = null
  private id = 0
  private lastWords = ''
  private gone: string | null = null

  private constructor(command: string) {
    // A group of its own: a shell between us and the harness must not leave it behind.
    this.process = spawn(command, { shell: true, stdio: ['pipe', 'pipe', 'pipe'], detached: true })
    this.process.stderr!.on('data', (data: Buffer) => {
      this.lastWords = (this.lastWords + data.toString()).slice(-LAST_WORDS)
    })
    this.process.stdin!.on('error', () => {})
    this.process.on('error', (error) => this.lost(error.message))
    this.process.on('exit', (code, signal) => this.lost(`it ended with ${signal ?? code}`))
    createInterface({ input: this.process.stdout! }).on('line', (line) => this.heard(line))
  }

  /** @throws Violation when it does not become ready. */
  static async start(command: string): Promise<Harness> {
    const harness = new Harness(command)
    let timer: NodeJS.Timeout | undefined
    try {
      const ready = await new Promise<Ready>((resolve, reject) => {
        harness.greeted = resolve
        harness.waiting.set(0, { resolve: () => {}, reject })
        timer = setTimeout(
          () => reject(new Violation(`expected the harness’s first line; saw nothing${harness.words()}`)),
          READY_WITHIN_MS,
        )
      })
      harness.name = ready.ready
      for (const each of ready.can ?? []) harness.abilities.add(each)
      return harness
    } catch (error) {
      harness.stop()
      throw error
    } finally {
      clearTimeout(timer)
      harness.waiting.delete(0)
    }
  }

  get isGone(): boolean {
    return this.gone !== null
  }

  can(ability: Ability): boolean {
    return this.abilities.has(ability)
  }

  /** Sends a command. @throws CommandRefused for an error; NotRun when it knows no such command; Violation when nothing comes. */
  call(client: string, cmd: string, fields: object = {}): Promise<Reply> {
    if (this.gone) return Promise.reject(new Violation(`the harness is gone: ${this.gone}${this.words()}`))
    const id = ++this.id
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id)
        reject(
          new Violation(`expected an answer to ${cmd} within ${ANSWER_WITHIN_MS / 1000} s; saw nothing${this.words()}`),
        )
      }, ANSWER_WITHIN_MS)
      const settle =
        <T>(then: (value: T) => void) =>
        (value: T) => {
          clearTimeout(timer)
          then(value)
        }
      this.waiting.set(id, { resolve: settle(resolve), reject: settle(reject) })
      this.process.stdin!.write(`${JSON.stringify({ id, client, cmd, ...fields })}\n`)
    })
  }

  /** Ends it with everything it started. */
  stop(): void {
    if (this.process.pid === undefined || this.gone) return
    try {
      process.kill(-this.process.pid, 'SIGKILL')
    } catch {
      // It ended meanwhile.
    }
  }

  private heard(line: string): void {
    let reply: Reply
    try {
      reply = JSON.parse(line)
    } catch {
      this.lost(`it wrote a line that is not JSON: ${line.slice(0, 200)}`)
      return
    }
    if (typeof reply?.ready === 'string') {
      this.greeted?.(reply)
      return
    }
    const waiting = this.waiting.get(reply?.id)
    if (!waiting) return
    this.waiting.delete(reply.id)
    const { error } = reply
    if (error === undefined) waiting.resolve(reply.ok ?? {})
    else if (error?.code === 'UNKNOWN_COMMAND') waiting.reject(new NotRun('the harness has no such command'))
    else
      waiting.reject(
        new CommandRefused(`the client refused: ${error?.code ?? ''} ${error?.message ?? JSON.stringify(error)}`),
      )
  }

  private lost(why: string): void {
    this.gone ??= why
    const error = new Violation(`the harness is gone: ${why}${this.words()}`)
    for (const each of this.waiting.values()) each.reject(error)
    this.waiting.clear()
  }

  private words(): string {
    const last = this.lastWords.trim().split('\n').at(-1)
    return last ? `; its last words: ${last.slice(0, 300)}` : ''
  }
}
