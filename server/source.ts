// Where a connection comes from, for counting: what one customer of a network provider has at his command is one source.
import { isIPv6 } from 'node:net'
import { limited, type Meter } from '../keys/meter.ts'
import { isLoopback } from './loopback.ts'

/** Groups of an IPv6 address that a provider gives out whole: 64 bits. */
const NETWORK_GROUPS = 4

/**
 * The source an address counts for: an IPv4 address itself, mapped ones too, and of an IPv6 address its /64.
 * @param address text form, short or in full; anything that is no IP address is its own source.
 */
export function sourceOf(address: string): string {
  if (!isIPv6(address)) return address
  const [head = '', tail] = address.toLowerCase().split('%')[0]!.split('::')
  const before = groupsOf(head)
  const after = groupsOf(tail ?? '')
  const between = tail === undefined ? 0 : 8 - before.length - after.length
  const groups = [...before, ...Array<number>(between).fill(0), ...after]
  const isMapped = groups.slice(0, 5).every((each) => each === 0) && groups[5] === 0xffff
  if (isMapped) return [groups[6]! >> 8, groups[6]! & 255, groups[7]! >> 8, groups[7]! & 255].join('.')
  return `${groups
    .slice(0, NETWORK_GROUPS)
    .map((each) => each.toString(16))
    .join(':')}::/64`
}

/** A dotted quad at the end is two groups. */
const groupsOf = (part: string): number[] =>
  part === ''
    ? []
    : part.split(':').flatMap((each) => {
        if (!each.includes('.')) return [Number.parseInt(each, 16)]
        const [a, b, c, d] = each.split('.').map(Number)
        return [(a! << 8) | b!, (c! << 8) | d!]
      })

/**
 * Counts one request from an address. Those of this machine are not counted: a proxy here stands for everybody.
 * @throws RelayError RATE_LIMITED, UNAVAILABLE.
 */
export async function countSource(meter: Meter, address: string): Promise<void> {
  if (isLoopback(address)) return
  const waitMs = await meter.take(sourceOf(address), 1)
  if (waitMs > 0) throw limited('too many requests from this address', waitMs)
}
