// `npm run chat -- --as <username>`: a messenger in the terminal, on the SDK. What it does at start and at the end; the rest is in chat/.
import { Actions } from './chat/actions.ts'
import { enrol } from './chat/enrol.ts'
import { Keyboard } from './chat/keyboard.ts'
import { Messenger } from './chat/messenger.ts'
import { type Options, readOptions } from './chat/options.ts'
import { Refusal } from './chat/refusals.ts'
import { Screen } from './chat/screen.tsx'
import { type Opened, openStore } from './chat/store.ts'
import { themeOf } from './chat/theme.ts'

const CLOSE_WITHIN_MS = 3_000
const TICK_MS = 1_000

const { stdin, stdout, stderr } = process

function fail(error: unknown): never {
  const line = error instanceof Refusal ? error.message : error instanceof Error ? error.stack : String(error)
  stderr.write(`${line}\n`)
  process.exit(1)
}

/** Runs until its user quits; then the terminal is as it was and everything is stored. */
function converse({ device, notebook, url, realm }: Opened): void {
  const theme = themeOf(process.env)
  const screen = new Screen(stdout, theme)
  const size = () => ({ columns: stdout.columns || 80, rows: stdout.rows || 24 })
  const messenger = new Messenger({
    ...{ device, notebook, relay: url.replace(/^https?:\/\//, ''), now: Date.now, hasColours: theme.isColoured },
    show: (state) => screen.show(state),
  })
  let isEnding = false
  const end = async (error?: unknown) => {
    if (isEnding) return
    isEnding = true
    clearInterval(ticking)
    messenger.stop()
    screen.leave()
    keyboard.close()
    if (error !== undefined) fail(error)
    const late = new Promise((resolve) => setTimeout(resolve, CLOSE_WITHIN_MS))
    await Promise.race([device.close(), late])
    process.exit(0)
  }
  const quit = () => void end()
  const actions = new Actions(messenger, quit)
  const redraw = () => {
    screen.forget()
    messenger.tell({ type: 'size', ...size() })
  }
  const keyboard = new Keyboard(messenger, actions, { redraw, quit })
  const ticking = setInterval(() => {
    if (messenger.state.connection.name === 'offline') messenger.tell({ type: 'tick', nowMs: Date.now() })
  }, TICK_MS)

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, quit)
  process.on('uncaughtException', (error) => void end(error))
  process.on('unhandledRejection', (error) => void end(error))
  // Whatever ends the process: nobody is left in a terminal that draws nothing and echoes nothing.
  process.on('exit', () => screen.leave())
  stdout.on('resize', redraw)
  stdout.on('error', quit)
  // An address is remembered once the account's own relay answered there.
  device.on('state', ({ name }) => {
    if (name === 'live') notebook.home = { url, realm }
  })
  keyboard.open(stdin)
  messenger.start(size())
}

async function main(options: Options): Promise<void> {
  if (!stdin.isTTY || !stdout.isTTY)
    throw new Refusal('The messenger needs a terminal: its input and output must not be redirected.')
  const opened = openStore(options)
  try {
    await enrol(opened, options, (line) => stdout.write(`${line}\n`))
  } catch (error) {
    await opened.device.close().catch(() => {})
    throw error
  }
  converse(opened)
}

main(readOptions(process.argv)).catch(fail)
