// Bytes that are too many for one statement: brought to the database in parts, so that the event loop is never busy for long with
// writing them out, and put together there. Part of append.ts.
import type { PendingQuery, Transaction } from './database.ts'

/** Bytes in one statement. Above it the driver, which copies a statement several times, holds the loop for longer than it should. I14 */
export const STAGED_ABOVE_BYTES = 1.25 * 1024 * 1024
/** Bytes in one part. */
const PART_BYTES = 384 * 1024

/** These bytes, one behind the other, as PostgreSQL reads them in text. */
export const hex = (pieces: Uint8Array[]): string => {
  const text = ['\\x']
  for (const { buffer, byteOffset, length } of pieces)
    text.push(Buffer.from(buffer, byteOffset, length).toString('hex'))
  return text.join('')
}

/**
 * Brings the pieces, one behind the other, into a table of this connection's own, where they are until the transaction ends. No locks
 * are held meanwhile but that table's.
 */
export async function stage(tx: Transaction, pieces: Uint8Array[]): Promise<void> {
  // Not logged, not seen by others, and not compressed: ciphertext does not compress.
  await tx`create temporary table if not exists staged (n int not null, part bytea storage external not null) on commit delete rows`
  for (const [n, part] of parts(pieces).entries()) {
    await new Promise((resolve) => setImmediate(resolve))
    await tx`insert into staged (n, part) values (${n}, ${hex(part)}::text::bytea)`
  }
}

/** The expression that is all of what was brought, for a statement of the same transaction. */
export const staged = (tx: Transaction): PendingQuery => tx`(select string_agg(part, ''::bytea order by n) from staged)`

function parts(pieces: Uint8Array[]): Uint8Array[][] {
  const all: Uint8Array[][] = []
  let bytes = PART_BYTES
  for (const piece of pieces) {
    if (bytes >= PART_BYTES) {
      all.push([])
      bytes = 0
    }
    all.at(-1)!.push(piece)
    bytes += piece.length
  }
  return all
}
