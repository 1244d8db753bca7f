// Bytes in JSON bodies of this folder. [H-1]
import { z } from 'zod'

/** Exactly so many bytes in standard base64 with padding; another spelling of the same bytes is refused. [H-1] */
export const base64Bytes = (length: number) =>
  z.string().transform((text, context): Uint8Array => {
    const bytes = Buffer.from(text, 'base64')
    if (bytes.length === length && bytes.toString('base64') === text) return bytes
    context.addIssue({ code: 'custom', message: `is not ${length} bytes in base64` })
    return z.NEVER
  })
