// Keys: Node's own parser for what terminals send, and what each key does here.
import { emitKeypressEvents, type Key } from 'node:readline'
import type { Actions } from './actions.ts'
import { complete } from './commands.ts'
import { type Edit, type EditName, textOf } from './editor.ts'
import { typeable } from './labels.ts'
import type { Messenger } from './messenger.ts'
import { draftOf } from './model.ts'
import { pageOf } from './state.ts'
import { safe } from './text.ts'

/** What is needed of standard input. */
export type Input = NodeJS.ReadStream

const EDITS: Record<string, EditName> = {
  ...{ backspace: 'backspace', delete: 'delete', left: 'left', right: 'right', home: 'start', end: 'end' },
  ...{
    'ctrl+a': 'start',
    'ctrl+e': 'end',
    'ctrl+b': 'left',
    'ctrl+f': 'right',
    'ctrl+d': 'delete',
    'ctrl+h': 'backspace',
  },
  ...{ 'ctrl+w': 'delete_word', 'ctrl+u': 'delete_to_start', 'ctrl+k': 'delete_to_end' },
  ...{ 'meta+b': 'word_left', 'meta+f': 'word_right', 'meta+left': 'word_left', 'meta+right': 'word_right' },
  ...{ 'ctrl+left': 'word_left', 'ctrl+right': 'word_right', 'meta+backspace': 'delete_word' },
}

// Node says that Escape alone is escape with meta.
const nameOf = ({ name = '', ctrl, meta, shift }: Key): string =>
  name === 'escape'
    ? name
    : `${ctrl ? 'ctrl+' : ''}${meta ? 'meta+' : ''}${shift && name === 'tab' ? 'shift+' : ''}${name}`

/** Reads keys until `close`. */
export class Keyboard {
  private readonly messenger: Messenger
  private readonly actions: Actions
  private readonly does: Record<string, () => void>
  private isPasting = false
  private input: Input | null = null

  /** @param redraw draws the screen anew. @param quit ends it. */
  constructor(messenger: Messenger, actions: Actions, { redraw, quit }: { redraw(): void; quit(): void }) {
    this.messenger = messenger
    this.actions = actions
    this.does = {
      'ctrl+c': quit,
      'ctrl+l': redraw,
      'ctrl+t': () => actions.connect(),
      'ctrl+r': () => actions.retry(),
      'meta+return': () => this.insert('\n'),
      'ctrl+j': () => this.insert('\n'),
      enter: () => this.insert('\n'),
      return: () => actions.enter(),
      tab: () => this.tab(),
      'shift+tab': () => this.move(-1),
      'ctrl+n': () => this.move(1),
      'ctrl+p': () => this.move(-1),
      up: () => this.scroll(1),
      down: () => this.scroll(-1),
      pageup: () => this.scroll(pageOf(messenger.state)),
      pagedown: () => this.scroll(-pageOf(messenger.state)),
      escape: () => this.escape(),
    }
  }

  /** Takes the terminal's keys. */
  open(input: Input): void {
    this.input = input
    emitKeypressEvents(input)
    input.setRawMode(true)
    input.on('keypress', this.press)
    input.resume()
  }

  /** Gives them back. */
  close(): void {
    this.input?.off('keypress', this.press)
    this.input?.setRawMode(false)
    this.input?.pause()
    this.input = null
  }

  private readonly press = (text: string | undefined, key: Key): void => {
    if (key.name === 'paste-start') this.isPasting = true
    else if (key.name === 'paste-end') this.isPasting = false
    else if (this.isPasting) this.insert(text === '\r' ? '\n' : (text ?? ''))
    else this.key(text ?? '', key)
  }

  private key(text: string, key: Key): void {
    const { messenger } = this
    const name = nameOf(key)
    const { panel } = messenger.state
    const does = this.does[name]
    const edit = EDITS[name]
    if (panel?.confirm && name !== 'ctrl+c' && !/^(up|down|page)/.test(name)) this.answer(text)
    else if (panel && (name === 'return' || name === 'q')) this.escape()
    else if (does) does()
    else if (edit) this.edit({ do: edit })
    else if (!key.ctrl && !key.meta && text >= ' ') this.type(text)
  }

  private type(text: string): void {
    const { messenger } = this
    if (text === '?' && textOf(draftOf(messenger.state)) === '') this.actions.help()
    else {
      if (messenger.state.panel) messenger.tell({ type: 'panel', panel: null })
      this.insert(text)
    }
  }

  private answer(text: string): void {
    const { messenger } = this
    const { confirm } = messenger.state.panel!
    if (text === 'y' || text === 'Y') this.actions.confirm(confirm!)
    else if (text === 'n' || text === 'N' || text === '\x1b' || text === '') this.escape()
  }

  private insert(text: string): void {
    this.edit({ do: 'insert', text: safe(text) })
  }

  private edit(edit: Edit): void {
    this.messenger.edit(edit)
  }

  private tab(): void {
    const { state } = this.messenger
    const { before } = draftOf(state)
    const completed = complete(before, typeable(state))
    if (!before.startsWith('/')) this.move(1)
    else if (completed !== null) this.edit({ do: 'insert', text: completed.slice(before.length) })
  }

  private move(by: 1 | -1): void {
    this.messenger.tell({ type: 'move', by })
    this.messenger.opened()
  }

  private scroll(by: number): void {
    const { messenger } = this
    messenger.tell({ type: 'scroll', by })
    if (by > 0) messenger.reachTop()
    if (by < 0) messenger.opened()
  }

  private escape(): void {
    const { messenger } = this
    const { panel, toast } = messenger.state
    if (panel) {
      messenger.tell({ type: 'panel', panel: null })
      messenger.opened()
    } else if (toast) messenger.tell({ type: 'quiet' })
    else if (textOf(draftOf(messenger.state)).startsWith('/')) this.edit({ do: 'replace', text: '' })
  }
}
