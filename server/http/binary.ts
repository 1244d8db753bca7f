// Bytes of a fixed length in JSON bodies of this folder. [H-1]
import { binary } from '../../keys/wire.ts'

/** Exactly so many bytes in standard base64 with padding. */
export const base64Bytes = (length: number) =>
  binary.refine((bytes) => bytes.length === length, `is not ${length} bytes`)
