// What to do about a device: pure decisions, one per address. Who asks and who carries them out is in send.ts.
// A mismatch is the relay's word: it never costs a session that works. [S-4.5] [S-4.6]
import type { WithheldReason } from './book.ts'
import type { Bundle } from './crypto.ts'
import type { Address, Mismatch } from './wire.ts'
import { nameOf } from './wire.ts'

/** One addressed device as it is stored and sent: exactly these bytes, however often. */
export type Recipient = Address & { type: number; content: Uint8Array; withheld: WithheldReason | null }

/** What is known here of one address. */
export type Facts = {
  isInRoster: boolean
  /** A session that could be used now, with the registration id it was made for. */
  session: { registrationId: number } | null
  /** A bundle was of no use lately. */
  withheldLately: WithheldReason | null
}

/** encrypt: with the session there is. fetch: a bundle is needed to decide. */
export type Decision = { do: 'encrypt' } | { do: 'fetch' } | { do: 'withhold'; reason: WithheldReason }

/** [S-4.4] A usable session is used, and no key is spent. */
export function decide(address: Address, { isInRoster, session, withheldLately }: Facts): Decision {
  if (!isInRoster) return { do: 'withhold', reason: 'not_in_roster' }
  if (session?.registrationId === address.registrationId) return { do: 'encrypt' }
  if (withheldLately) return { do: 'withhold', reason: withheldLately }
  return { do: 'fetch' }
}

/** keep: the session stays, the relay contradicts itself. rebuild: a session is to be opened from the bundle. */
export type Verdict = 'keep' | 'rebuild' | 'incompatible'

/** A device started over only if its own bundle says so. [S-4.4] @param bundle null = there is none. */
export function judge(session: Facts['session'], bundle: Bundle | null): Verdict {
  if (session && (!bundle || bundle.registrationId === session.registrationId)) return 'keep'
  return bundle?.kyber ? 'rebuild' : 'incompatible'
}

/** Users all of whose addressed devices are extra, and none of whose is missing: they are outside, their devices not gone. [V-6.5] */
export function outsidersOf(sent: Address[], { missing, extra, stale }: Mismatch): Set<string> {
  const gone = new Set(extra.map(nameOf))
  const inside = [...missing, ...stale, ...sent.filter((each) => !gone.has(nameOf(each)))].map(({ userId }) => userId)
  const outside = new Set(extra.map(({ userId }) => userId))
  for (const userId of inside) outside.delete(userId)
  return outside
}

/** What of a send stays, what is to be made anew, what is gone. */
export type Repair = { kept: Recipient[]; wanted: Address[]; gone: Address[] }

/**
 * @param sent what was refused. @param own the sending device, which is never addressed. @param isSubset missing devices are
 * then not ours to add. Ciphertexts of devices the answer does not name stay as they are. [S-2.4]
 */
export function repairOf(
  sent: Recipient[],
  mismatch: Mismatch,
  own: { userId: string; deviceId: number },
  isSubset: boolean,
): Repair {
  const gone = new Set(mismatch.extra.map(nameOf))
  const wanted = new Map<string, Address>()
  for (const each of [...(isSubset ? [] : mismatch.missing), ...mismatch.stale])
    if (nameOf(each) !== nameOf(own) && !gone.has(nameOf(each))) wanted.set(nameOf(each), each)
  return {
    kept: sent.filter((each) => !gone.has(nameOf(each)) && !wanted.has(nameOf(each))),
    wanted: [...wanted.values()],
    gone: mismatch.extra,
  }
}
