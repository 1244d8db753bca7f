// The messenger without its screen: on a real device in memory, with what the screen would show as a text that can be waited for.
import { type Device, MemoryStorage } from '../../client/index.ts'
import { Actions } from '../../scripts/chat/actions.ts'
import { layoutOf } from '../../scripts/chat/layout.ts'
import { titleLine } from '../../scripts/chat/lines.ts'
import { Messenger } from '../../scripts/chat/messenger.ts'
import { type Line, openChat, type State } from '../../scripts/chat/model.ts'
import { Notebook } from '../../scripts/chat/notebook.ts'
import { sideLines } from '../../scripts/chat/side.ts'
import { transcript } from '../../scripts/chat/transcript.ts'
import type { TestRelay } from './relay.ts'
import { device } from './sdk.ts'
import { Tamper } from './tamper.ts'

export const WITHIN_MS = 20_000

const plain = (lines: Line[]): string[] =>
  lines.map((line) =>
    line
      .map(({ text }) => text)
      .join('')
      .trimEnd(),
  )

/** What a very wide screen would show: list, title, whole transcript, what stays over the input, the line said last, the page. */
function textOf(state: State): string {
  const wide = { ...state, size: { columns: 240, rows: 60 } }
  const chat = openChat(state)
  const page = state.panel ? [state.panel.title, ...state.panel.lines.map(({ text }) => text)] : []
  return [
    ...plain(sideLines(state, { side: 26, body: 30 })),
    ...plain([titleLine(state, chat), ...(chat ? transcript(state, chat, 200) : []), ...layoutOf(wide).banner]),
    ...[state.toast?.text ?? '', ...page],
  ].join('\n')
}

/** A messenger whose screen is a text that can be waited for. */
export class Desk {
  readonly storage = new MemoryStorage()
  readonly wire = new Tamper()
  readonly device: Device
  messenger!: Messenger
  private actions!: Actions
  private looking: (() => void)[] = []

  private constructor(relay: TestRelay) {
    this.device = device(relay, { storage: this.storage, transport: this.wire })
  }

  /** Registered, with that username, and connected. */
  static async open(relay: TestRelay, username: string): Promise<Desk> {
    const desk = new Desk(relay)
    await desk.device.register()
    await desk.device.usernames.claim(username)
    desk.begin()
    return desk
  }

  /** As after a restart: another messenger on the same store. */
  begin(): void {
    this.messenger = new Messenger({
      ...{
        device: this.device,
        notebook: new Notebook(this.storage),
        relay: 'relay.test',
        hasColours: true,
        now: Date.now,
      },
      show: () => {
        for (const look of [...this.looking]) look()
      },
    })
    this.actions = new Actions(this.messenger, () => {})
    this.messenger.start({ columns: 80, rows: 24 })
  }

  /** Everything that can be seen now. */
  get text(): string {
    return textOf(this.messenger.state)
  }

  /** The page asks: yes. */
  confirm(): void {
    this.actions.confirm(this.messenger.state.panel!.confirm!)
  }

  /** Types a line and Enter. */
  enter(line: string): void {
    this.messenger.edit({ do: 'insert', text: line })
    this.actions.enter()
  }

  /** Resolves once that is to be seen. @throws with everything that is when it does not come. */
  see(wanted: string | RegExp): Promise<void> {
    return this.until(String(wanted), (text) =>
      typeof wanted === 'string' ? text.includes(wanted) : wanted.test(text),
    )
  }
  /** Resolves once that is not to be seen any more. */
  lose(unwanted: string): Promise<void> {
    return this.until(`no ${unwanted}`, (text) => !text.includes(unwanted))
  }

  private until(what: string, fits: (text: string) => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${what} did not come:\n${this.text}`)), WITHIN_MS)
      const look = () => {
        if (!fits(this.text)) return
        clearTimeout(late)
        this.looking = this.looking.filter((each) => each !== look)
        resolve()
      }
      this.looking.push(look)
      look()
    })
  }

  async close(): Promise<void> {
    this.messenger.stop()
    await this.device.close()
  }
}
