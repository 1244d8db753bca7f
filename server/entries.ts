// How many entries a ClientFrame holds, counted on its bytes before anything is allocated for them (I14). What they say is codec.ts's.
import type { Reader } from 'protobufjs/minimal.js'
import { DEVICES_MAX_PER_USER, GROUP_MAX_MEMBERS } from '../proto/limits.ts'

/** A full group with all its devices, and the other fields. */
const ENTRIES_MAX = GROUP_MAX_MEMBERS * DEVICES_MAX_PER_USER + 100
const LENGTH_DELIMITED = 2
/** Field numbers of the bodies of a ClientFrame. */
const BODIES = { first: 2, last: 9 }

/**
 * Whether decoding the frame would make more objects than any legal one needs.
 * @param frame at the frame's beginning; used up. @throws if the bytes are no frame.
 */
export function hasTooManyEntries(frame: Reader): boolean {
  let entries = 0
  while (frame.pos < frame.len) {
    const tag = frame.uint32()
    if (++entries > ENTRIES_MAX) return true
    const number = tag >>> 3
    if ((tag & 7) !== LENGTH_DELIMITED || number < BODIES.first || number > BODIES.last) {
      frame.skipType(tag & 7)
      continue
    }
    const length = frame.uint32()
    const end = frame.pos + length
    if (end > frame.len) throw new RangeError('truncated')
    while (frame.pos < end) {
      frame.skipType(frame.uint32() & 7)
      if (++entries > ENTRIES_MAX) return true
    }
  }
  return false
}
