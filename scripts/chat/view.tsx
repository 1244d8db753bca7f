// The whole screen as a function of its state. What is where is decided in layout.ts.
import { Box, Text } from 'ink'
import type { ReactElement } from 'react'
import { COMMANDS, hintsFor, usageOf } from './commands.ts'
import { textOf } from './editor.ts'
import { hintRows, inputOf, type Layout, LEAST, layoutOf, panelLines, statusLines } from './layout.ts'
import { connectionOf, footerOf, placeholderOf, titleLine } from './lines.ts'
import { type Chat, draftOf, type Line, openChat, type State } from './model.ts'
import { sideLines } from './side.ts'
import { cut, padded, widthOf } from './text.ts'
import type { Theme } from './theme.ts'
import { transcript } from './transcript.ts'
import { welcome } from './welcome.ts'

const PROMPT = ' > '
const HINT_CELLS = 20

function Row({ line, theme }: { line: Line; theme: Theme }): ReactElement {
  // An empty Text has no height.
  if (line.every(({ text }) => text === '')) return <Text> </Text>
  return (
    <Text wrap="truncate">
      {line.map((span, at) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: spans have no identity; lines are redrawn whole.
        <Text key={at} {...theme.styles[span.tone ?? 'plain']}>
          {span.text}
        </Text>
      ))}
    </Text>
  )
}

function Rows({ lines, theme }: { lines: Line[]; theme: Theme }): ReactElement {
  return (
    <>
      {lines.map((line, at) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a row is its place.
        <Row key={at} line={line} theme={theme} />
      ))}
    </>
  )
}

/** So many of the lines that the given number of them is below. */
const windowOf = (lines: Line[], rows: number, below: number): Line[] => {
  const end = Math.max(Math.min(rows, lines.length), lines.length - below)
  const shown = lines.slice(Math.max(0, end - rows), end)
  return [...shown, ...Array.from({ length: rows - shown.length }, (): Line => [])]
}

function pageLines(state: State, chat: Chat | null, layout: Layout): Line[] {
  const { main, page } = layout
  const { panel } = state
  if (!panel && !chat) return windowOf(welcome(state, main), page, 0)
  const lines = panel ? panelLines(panel, main) : transcript(state, chat!, main)
  const most = Math.max(0, lines.length - page)
  const below = Math.min(panel ? most - panel.scroll : chat!.scroll, most)
  const shown = windowOf(lines, page, below)
  if (below === 0) return shown
  return [...shown.slice(0, -1), [{ text: `↓ ${below + 1} more lines (PgDn)`, tone: 'dim' }]]
}

function hintLines(state: State): Line[] {
  const names = hintsFor(textOf(draftOf(state))).slice(0, hintRows(state))
  return names.map(
    (name): Line => [
      { text: padded(usageOf(name), HINT_CELLS), tone: 'strong' },
      { text: ` ${COMMANDS[name].about}`, tone: 'dim' },
    ],
  )
}

function mainLines(state: State, layout: Layout): Line[] {
  const chat = openChat(state)
  const title = state.panel ? [{ text: state.panel.title, tone: 'strong' as const }] : titleLine(state, chat)
  const above = state.panel ? [] : [...layout.banner, ...hintLines(state)]
  return [title, ...pageLines(state, chat, layout), ...above, ...statusLines(state, layout.main)].slice(0, layout.body)
}

function headerLine(state: State, theme: Theme): Line {
  const { columns } = state.size
  const right = connectionOf(state)
  const name = cut(` ${state.self.username || 'Sealpost'}`, Math.max(0, columns - widthOf(right.text) - 2))
  const relay = ` · ${state.relay}`
  const room = columns - widthOf(name) - widthOf(right.text) - 1
  const middle = widthOf(relay) < room ? relay : ''
  return [
    { text: name, tone: 'strong' },
    { text: padded(middle, Math.max(1, room)), tone: 'dim' },
    { ...right, ...(theme.isColoured ? {} : { tone: 'strong' as const }) },
    { text: ' ' },
  ]
}

const rule = ({ side }: Layout, columns: number, joint: string): Line => [
  { text: side > 0 ? '─'.repeat(side) + joint + '─'.repeat(columns - side - 1) : '─'.repeat(columns), tone: 'dim' },
]

/** Everything. */
export function App({ state, theme }: { state: State; theme: Theme }): ReactElement {
  const { columns, rows } = state.size
  if (columns < LEAST.columns || rows < LEAST.rows) return <Text wrap="truncate">Please enlarge.</Text>
  const layout = layoutOf(state)
  const input = inputOf(state)
  const draft = textOf(draftOf(state))
  return (
    <Box flexDirection="column" width={columns} height={rows}>
      <Row line={headerLine(state, theme)} theme={theme} />
      <Row line={rule(layout, columns, '┬')} theme={theme} />
      <Box height={layout.body}>
        {layout.side > 0 && (
          <Box flexDirection="column" width={layout.side}>
            <Rows lines={sideLines(state, layout)} theme={theme} />
          </Box>
        )}
        {layout.side > 0 && (
          <Box flexDirection="column" width={1}>
            <Rows lines={Array.from({ length: layout.body }, (): Line => [{ text: '│', tone: 'dim' }])} theme={theme} />
          </Box>
        )}
        <Box flexDirection="column" width={layout.main + 1} paddingLeft={1}>
          <Rows lines={mainLines(state, layout)} theme={theme} />
        </Box>
      </Box>
      <Row line={rule(layout, columns, '┴')} theme={theme} />
      <Rows
        lines={input.lines.map(
          (text, at): Line => [
            { text: at === 0 ? PROMPT : '   ', tone: 'accent' },
            draft === '' ? { text: placeholderOf(state), tone: 'dim' } : { text },
          ],
        )}
        theme={theme}
      />
      <Row line={[{ text: cut(footerOf(state), columns - 1), tone: 'dim' }]} theme={theme} />
    </Box>
  )
}

/** Where the terminal's cursor belongs: row and column from 0; null = nowhere. */
export function cursorOf(state: State): { row: number; column: number } | null {
  const { columns, rows } = state.size
  if (state.panel?.confirm || columns < LEAST.columns || rows < LEAST.rows) return null
  const { cursor, rows: height } = inputOf(state)
  return { row: rows - 1 - height + cursor.row, column: cursor.column }
}
