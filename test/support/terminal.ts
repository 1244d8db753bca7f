// A program in a real pseudo terminal: script(1), which every Debian has, makes the terminal; xterm's own parser keeps its screen.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import xterm from '@xterm/headless'
import { program } from './debian.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const WITHIN_MS = 30_000
const TERMINALS = { columns: 80, rows: 24 }
/** What stands between them is to be shown at once. */
const [BEGIN, END] = ['\x1b[?2026h', '\x1b[?2026l']
const EACH = new RegExp(`(?<=${END.replace(/[[?]/g, '\\$&')})`)

/** Whether there can be terminals here: script(1) as util-linux has it, essential on Debian. */
export const hasTerminals = process.platform === 'linux' && program('script') !== null
if (!hasTerminals) process.stderr.write('tests left out: there is no script(1) of util-linux on this machine\n')

/** Keys that are no text. */
export const KEY = {
  ...{
    enter: '\r',
    tab: '\t',
    escape: '\x1b',
    backspace: '\x7f',
    up: '\x1b[A',
    pageUp: '\x1b[5~',
    pageDown: '\x1b[6~',
  },
  ...{ ctrlC: '\x03', ctrlR: '\x12', ctrlT: '\x14', ctrlU: '\x15', left: '\x1b[D' },
}

type Waiting = { fits(screen: string): boolean; resolve(): void; reject(error: Error): void; what: string }

const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`

/** Sends it to a process group. @returns whether there is one. */
function reaches(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-group, signal)
  } catch {
    return false
  }
}

/** Characters at the end that may be the beginning of a frame's. */
function cutOff(text: string): number {
  for (let length = BEGIN.length - 1; length > 0; length--) if (text.endsWith(BEGIN.slice(0, length))) return length
  return 0
}

/** One terminal with one program, and what is on its screen. */
export class Terminal {
  /** The program's exit code. */
  readonly ended: Promise<number>
  /** Everything that was ever written to it. */
  raw = ''
  private readonly emulator: InstanceType<typeof xterm.Terminal>
  private readonly child: ChildProcess
  private readonly directory = mkdtempSync(join(tmpdir(), 'sealpost-terminal-'))
  private waiting: Waiting[] = []
  /** What came of a frame that is not whole yet: the machine hands it over in pieces, and half of one is not for anybody's eyes. */
  private unshown = ''

  /** Runs a TypeScript file of the repository in a terminal. @param env besides PATH. */
  constructor(
    file: string,
    args: string[],
    options: { env?: Record<string, string>; columns?: number; rows?: number } = {},
  ) {
    const { columns, rows } = { ...TERMINALS, ...options }
    this.emulator = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true, scrollback: 1000 })
    const program = [process.execPath, '--import', 'tsx', file, ...args].map(quote).join(' ')
    // What stty says afterwards is what a shell would find.
    const after =
      'code=$?; echo; echo "ended with $code, $(stty -a | grep -ow -e -*icanon -e -*echo | tr "\\n" " ")"; exit $code'
    const command = `tty > ${quote(this.path('tty'))}; echo $$ > ${quote(this.path('pid'))}; stty cols ${columns} rows ${rows}; ${program}; ${after}`
    this.child = spawn('script', ['-qfec', command, '/dev/null'], {
      ...{ cwd: ROOT, detached: true, stdio: ['pipe', 'pipe', 'inherit'] },
      env: { PATH: process.env.PATH, SHELL: '/bin/sh', TERM: 'xterm-256color', LANG: 'C.UTF-8', ...options.env },
    })
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.raw += text
      // Frame by frame: what one shows may be gone in the next.
      for (const frame of this.whole(text)) this.emulator.write(frame, () => this.look())
    })
    this.ended = once(this.child, 'close').then(async ([code]) => {
      // The emulator reads behind what is written to it.
      await new Promise<void>((resolve) => this.emulator.write(this.unshown, resolve))
      this.look()
      for (const each of this.waiting) each.reject(this.unseen(each.what, 'the program ended'))
      this.emulator.dispose()
      rmSync(this.directory, { recursive: true, force: true })
      return code as number
    })
  }

  /** What can be seen, line by line, without spaces at the ends. */
  get screen(): string {
    return this.lines.join('\n')
  }
  get lines(): string[] {
    const { active } = this.emulator.buffer
    return Array.from({ length: this.emulator.rows }, (_, at) =>
      (active.getLine(active.viewportY + at)?.translateToString(true) ?? '').trimEnd(),
    )
  }
  /** Where the cursor is, from 0. */
  get cursor(): { row: number; column: number } {
    const { active } = this.emulator.buffer
    return { row: active.cursorY, column: active.cursorX }
  }
  /** Whether the program has the screen for itself. */
  get isAlternate(): boolean {
    return this.emulator.buffer.active.type === 'alternate'
  }
  /** The colour, of 256, in which this text stands; -1 = the terminal's own. */
  colourOf(text: string): number {
    for (const [row, line] of this.lines.entries()) {
      const column = line.indexOf(text)
      const cell = column >= 0 ? this.emulator.buffer.active.getLine(row)?.getCell(column) : undefined
      if (cell) return cell.isFgDefault() ? -1 : cell.getFgColor()
    }
    throw new Error(`there is no ${text} on the screen:\n${this.screen}`)
  }

  /** Resolves once that is on the screen. @throws with the screen when it does not come. */
  see(wanted: string | RegExp): Promise<void> {
    return this.until(String(wanted), (screen) =>
      typeof wanted === 'string' ? screen.includes(wanted) : wanted.test(screen),
    )
  }
  /** Resolves once that is not on the screen any more. */
  lose(unwanted: string | RegExp): Promise<void> {
    return this.until(`no ${unwanted}`, (screen) =>
      typeof unwanted === 'string' ? !screen.includes(unwanted) : !unwanted.test(screen),
    )
  }

  /** Types it, as a person would, only faster. */
  type(text: string): void {
    this.child.stdin!.write(text)
  }
  /** Types a line and Enter. */
  enter(line: string): void {
    this.type(`${line}${KEY.enter}`)
  }

  /** Another size, as when a window is dragged. */
  resize(columns: number, rows: number): void {
    this.emulator.resize(columns, rows)
    const tty = readFileSync(this.path('tty'), 'utf8').trim()
    spawn('stty', ['-F', tty, 'cols', String(columns), 'rows', String(rows)], { stdio: 'inherit' })
  }

  /** Ends it, whatever it does; resolves once no process of it is left, so that its files are free. */
  async close(): Promise<void> {
    const isRunning = this.child.exitCode === null && existsSync(this.path('pid'))
    // script(1) puts what it runs into a session of its own.
    const inside = isRunning ? Number(readFileSync(this.path('pid'), 'utf8')) : 0
    // 0 is nobody yet, and would be this process's own group.
    const groups = [this.child.pid!, inside].filter((group) => group > 0)
    for (const group of groups) reaches(group, 'SIGKILL')
    await this.ended
    while (groups.some((group) => reaches(group, 0))) await new Promise((resolve) => setTimeout(resolve, 10))
  }

  private path(name: string): string {
    return join(this.directory, name)
  }

  /** The frames of all that came, as far as they are whole. */
  private whole(text: string): string[] {
    const came = this.unshown + text
    const begun = came.lastIndexOf(BEGIN)
    const isOpen = begun > came.lastIndexOf(END)
    // Where a frame begins may be cut in two as well.
    const shown = isOpen ? begun : came.length - cutOff(came)
    this.unshown = came.slice(shown)
    return came.slice(0, shown).split(EACH)
  }

  private until(what: string, fits: (screen: string) => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(this.unseen(what, `not within ${WITHIN_MS / 1000} s`)), WITHIN_MS)
      const done = () => clearTimeout(timer)
      const settle =
        <A extends unknown[]>(call: (...args: A) => void) =>
        (...args: A) => {
          done()
          call(...args)
        }
      this.waiting.push({ fits, what, resolve: settle(resolve), reject: settle(reject) })
      this.look()
    })
  }

  private look(): void {
    if (this.waiting.length === 0) return
    const { screen } = this
    const seen = this.waiting.filter((each) => each.fits(screen))
    this.waiting = this.waiting.filter((each) => !seen.includes(each))
    for (const each of seen) each.resolve()
  }

  private unseen(what: string, why: string): Error {
    return new Error(`${what}: ${why}. On the screen:\n${this.screen}`)
  }
}
