// Text as a terminal shows it: cells, not characters. The only importer of string-width.
import stringWidth from 'string-width'

const graphemes = new Intl.Segmenter(undefined, { granularity: 'grapheme' })

/** What a reader sees as one character each. */
export const charactersOf = (text: string): string[] => [...graphemes.segment(text)].map(({ segment }) => segment)

/** Cells it takes: 2 for an emoji or a Chinese character, 0 for what only combines. */
export const widthOf = (text: string): number => stringWidth(text)

// What would move the cursor, colour the rest, reverse its direction or ring: all of it comes from strangers.
const UNSAFE = /[^\P{Cc}\n]|[\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]/gu

/** The text without control characters but newlines; tabs become spaces. For everything another person or the relay wrote. */
export const safe = (text: string): string =>
  text.replaceAll('\r\n', '\n').replaceAll('\t', '    ').replace(UNSAFE, '\ufffd')

/** The same on one line. */
export const safeLine = (text: string): string => safe(text).replaceAll('\n', ' ')

/** At most so many cells; what is cut off is shown as an ellipsis. */
export function cut(text: string, cells: number): string {
  if (widthOf(text) <= cells) return text
  let kept = ''
  let used = 0
  for (const each of charactersOf(text)) {
    const width = widthOf(each)
    if (used + width > cells - 1) break
    kept += each
    used += width
  }
  return cells > 0 ? `${kept}…` : ''
}

/** Exactly so many cells. */
export function padded(text: string, cells: number): string {
  const short = cut(text, cells)
  return short + ' '.repeat(Math.max(0, cells - widthOf(short)))
}

const isWide = (character: string): boolean => widthOf(character) > 1

/** Lines of at most so many cells, broken at spaces, between wide characters, and inside of words that are too long. */
export function wrap(text: string, cells: number): string[] {
  return text.split('\n').flatMap((line) => wrapLine(line, Math.max(2, cells)))
}

function wrapLine(text: string, cells: number): string[] {
  const lines: string[] = []
  let line: string[] = []
  let used = 0
  /** How much of the line stays when it is broken. */
  let keep = 0
  for (const each of charactersOf(text)) {
    const width = widthOf(each)
    if (used + width > cells) {
      // A space at the end of a line is not carried over.
      if (each === ' ') {
        keep = line.length
        continue
      }
      const at = keep > 0 && !isWide(each) ? keep : line.length
      lines.push(line.slice(0, at).join('').trimEnd())
      line = line.slice(at)
      if (line[0] === ' ') line.shift()
      used = widthOf(line.join(''))
      keep = 0
    }
    line.push(each)
    used += width
    if (each === ' ' || isWide(each)) keep = line.length
  }
  return [...lines, line.join('')]
}
