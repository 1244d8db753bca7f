// Single fields of a frame: what a rule on a length or a range says about each, and the words of its refusal.
import { invalid } from '../proto/errors.ts'
import { type Uuid, uuidFromBytes } from '../proto/ids.ts'

type Bytes = Uint8Array | null | undefined

/** The 16 bytes of a UUID. @throws RelayError INVALID_REQUEST naming the field. */
export const id = (bytes: Bytes, field: string): Uuid => {
  if (bytes?.length !== 16) throw invalid(`${field} must be 16 bytes`)
  return uuidFromBytes(bytes)
}

/** The same, or null for no bytes. @throws RelayError INVALID_REQUEST naming the field. */
export const optionalId = (bytes: Bytes, field: string): Uuid | null => (bytes?.length ? id(bytes, field) : null)

/** A number of a range, both ends included. @throws RelayError INVALID_REQUEST naming the field. */
export const within = (value: number, low: number, high: number, field: string): number => {
  if (!(value >= low && value <= high)) throw invalid(`${field} must be ${low} to ${high}`)
  return value
}
