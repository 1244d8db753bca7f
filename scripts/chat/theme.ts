// Colours that can be read on dark and on light: of the 256 the ones of middle brightness, which no theme redefines. NO_COLOR takes them away.
import type { Tone } from './model.ts'

/** Properties of ink's Text. */
export type Style = { color?: string; bold?: boolean; inverse?: boolean }

const COLOURED: Record<Tone, Style> = {
  plain: {},
  dim: { color: 'ansi256(244)' },
  strong: { bold: true },
  good: { color: 'ansi256(28)' },
  read: { color: 'ansi256(33)', bold: true },
  bad: { color: 'ansi256(196)' },
  warning: { color: 'ansi256(166)', bold: true },
  accent: { color: 'ansi256(30)', bold: true },
  inverse: { inverse: true },
}

const PLAIN: Record<Tone, Style> = {
  ...{ plain: {}, dim: {}, good: {}, bad: {}, accent: {} },
  ...{ strong: { bold: true }, read: { bold: true }, warning: { bold: true }, inverse: { inverse: true } },
}

/** How a tone looks. */
export type Theme = { isColoured: boolean; styles: Record<Tone, Style> }

/** By the environment: https://no-color.org. */
export const themeOf = (env: { NO_COLOR?: string | undefined }): Theme =>
  env.NO_COLOR ? { isColoured: false, styles: PLAIN } : { isColoured: true, styles: COLOURED }
