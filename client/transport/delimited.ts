// Frames as they lie in the body of an HTTP answer: each behind its length. [C-9.6]

/** Takes them apart. @throws RangeError when the bytes end within one, or a length is no length. */
export function delimited(bytes: Uint8Array): Uint8Array[] {
  const frames: Uint8Array[] = []
  for (let at = 0; at < bytes.length; ) {
    let length = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]
      if (byte === undefined || shift > 28) throw new RangeError('not a length')
      length += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) break
    }
    if (at + length > bytes.length) throw new RangeError('a frame is cut off')
    frames.push(bytes.subarray(at, at + length))
    at += length
  }
  return frames
}

/** A ServerFrame that has this request_id unless it says another: field 1 in front, and the last one counts. */
export function withRequestId(frame: Uint8Array, requestId: number): Uint8Array {
  if (requestId === 0) return frame
  const head = [0x08]
  let rest = requestId
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) head.push((rest % 128) | 0x80)
  head.push(rest)
  const all = new Uint8Array(head.length + frame.length)
  all.set(head)
  all.set(frame, head.length)
  return all
}
