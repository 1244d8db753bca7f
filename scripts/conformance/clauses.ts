// The numbered clauses of proto/README.md: what a report has to account for, each by its number.
import { readFile } from 'node:fs/promises'

/** One rule. @property title its first words, for people. */
export type Clause = { id: string; title: string }

const DEFINITION = /^(?:\*\*|- )\[([A-Z]-\d+(?:\.\d+)?)\](.*)$/
const TITLE_CHARS = 90

const plain = (text: string): string =>
  text
    .replace(/\*\*|`/g, '')
    .replace(/\s+/g, ' ')
    .trim()

/** Cut after the first sentence, or at a word. */
function firstWords(text: string): string {
  const sentence = /^.+?[.:](?=\s|$)/.exec(text)?.[0] ?? text
  if (sentence.length <= TITLE_CHARS) return sentence
  return `${sentence.slice(0, TITLE_CHARS).replace(/\s\S*$/, '')} …`
}

/** Every clause that is defined in the text, in its order. A number in brackets within a sentence is a reference, not a definition. */
export function readClauses(text: string): Clause[] {
  return text.split('\n').flatMap((line) => {
    const found = DEFINITION.exec(line)
    return found ? [{ id: found[1]!, title: firstWords(plain(found[2]!)) }] : []
  })
}

/** The clauses of this repository's protocol. */
export const protocolClauses = async (): Promise<Clause[]> =>
  readClauses(await readFile(new URL('../../proto/README.md', import.meta.url), 'utf8'))

/** Whether a clause is among the wanted: a letter means its whole section, a heading its parts too. Empty = all. */
export const isWanted = (id: string, wanted: readonly string[]): boolean =>
  wanted.length === 0 ||
  wanted.some((each) => each === id || id.startsWith(/^[A-Z]$/.test(each) ? `${each}-` : `${each}.`))
