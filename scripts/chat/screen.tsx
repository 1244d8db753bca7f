// The terminal: ink lays frames out, and this paints them. Ink's own painter erases the whole block and, at full height, the whole
// terminal for every frame; here only rows that changed are written, in one piece, and the cursor stands where one types.
// The only importer of ink's renderer.
import { type Instance, render } from 'ink'
import type { State } from './model.ts'
import { widthOf } from './text.ts'
import type { Theme } from './theme.ts'
import { App, cursorOf } from './view.tsx'

/** What is needed of a terminal. */
export type Terminal = { columns: number; rows: number; write(text: string): unknown }

const ESC = '\x1b['
/** Another screen, pastes in brackets, no wrapping at the right edge. */
const ENTER = `${ESC}?1049h${ESC}?2004h${ESC}?7l${ESC}2J`
const LEAVE = `${ESC}0m${ESC}?7h${ESC}?2004l${ESC}?25h${ESC}?1049l`
/** Terminals that know it show everything in between at once; others ignore it. */
const [BEGIN, END] = [`${ESC}?2026h`, `${ESC}?2026l`]
const FRAME_MS = 16

/** Draws states, at most one every 16 ms. `leave` gives the terminal back as it was. */
export class Screen {
  private readonly terminal: Terminal
  private readonly theme: Theme
  private instance: Instance | null = null
  private state: State | null = null
  private timer: NodeJS.Timeout | null = null
  private rows: string[] = []
  private cursor = ''
  private isOpen = false
  private isStale = false

  constructor(terminal: Terminal, theme: Theme) {
    this.terminal = terminal
    this.theme = theme
  }

  /** Draws a state soon; the last one counts. */
  show(state: State): void {
    this.state = state
    this.timer ??= setTimeout(() => this.draw(), FRAME_MS)
  }

  /** Forgets what is on the terminal: the next frame is written whole, on a cleared one. */
  forget(): void {
    this.rows = []
    this.cursor = ''
    this.isStale = true
  }

  /** Safe to call twice, and at any time. */
  leave(): void {
    if (this.timer) clearTimeout(this.timer)
    this.timer = null
    if (!this.isOpen) return
    this.isOpen = false
    this.instance?.unmount()
    this.terminal.write(LEAVE)
  }

  private draw(): void {
    this.timer = null
    const { state } = this
    if (!state) return
    if (!this.isOpen) {
      this.isOpen = true
      this.terminal.write(ENTER)
    }
    const view = <App state={state} theme={this.theme} />
    if (this.instance) this.instance.rerender(view)
    else this.instance = render(view, this.options())
  }

  /** `debug` is ink's mode of handing over each frame as it is, without escapes of its own. */
  private options() {
    const frames = {
      isTTY: false,
      write: (frame: string) => {
        if (this.isOpen) this.paint(frame)
        return true
      },
      on: () => frames,
      off: () => frames,
    }
    // What ink lays out to; it asks at every frame.
    Object.defineProperty(frames, 'columns', { get: () => this.terminal.columns || 80 })
    Object.defineProperty(frames, 'rows', { get: () => this.terminal.rows || 24 })
    return {
      stdout: frames as unknown as NodeJS.WriteStream,
      ...{ debug: true, exitOnCtrlC: false, patchConsole: false },
    }
  }

  private paint(frame: string): void {
    const rows = frame.split('\n')
    const height = this.state?.size.rows ?? rows.length
    let text = this.isStale ? `${ESC}2J` : ''
    this.isStale = false
    for (let at = 0; at < Math.max(height, this.rows.length); at++) {
      const row = rows[at] ?? ''
      if (row === this.rows[at]) continue
      // Behind the last cell of a row there is nothing to erase, and the cursor still stands on it.
      const rest = widthOf(row) < this.terminal.columns ? `${ESC}K` : ''
      text += `${ESC}${at + 1};1H${ESC}0m${row}${ESC}0m${rest}`
    }
    const place = this.state && cursorOf(this.state)
    const cursor = place ? `${ESC}${place.row + 1};${place.column + 1}H${ESC}?25h` : `${ESC}?25l`
    if (text === '' && cursor === this.cursor) return
    this.rows = rows.slice(0, height)
    this.cursor = cursor
    this.terminal.write(`${BEGIN}${ESC}?25l${text}${cursor}${END}`)
  }
}
