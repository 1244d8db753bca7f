// Which devices a user is believed to have, as mismatches taught it, and what is withheld from them for now. [S-4.3]
import type { Uuid } from '../proto/ids.ts'
import type { Core } from './core.ts'
import type { Reader, Writer } from './storage.ts'
import { Table } from './tables.ts'
import type { Address } from './wire.ts'

/** Why a device gets no ciphertext: numbers of Withheld on the wire. [S-6.1] */
export const WITHHELD = { untrusted: 1, incompatible: 2, not_in_roster: 3 } as const
/** A reason by name. */
export type WithheldReason = keyof typeof WITHHELD

/** @property withheld why a bundle was of no use, and when: not asked for again within the hour. */
export type KnownDevice = { registrationId: number; withheld?: { reason: WithheldReason; atMs: number } }

const users = new Table<Record<string, KnownDevice>>('devices')

/** Devices of a user, by number. Empty = nothing is known, which the relay's mismatch will mend. */
export const knownDevices = (from: Reader, userId: Uuid): Map<number, KnownDevice> =>
  new Map(Object.entries(users.get(from, userId) ?? {}).map(([deviceId, device]) => [Number(deviceId), device]))

/** Notes one device as current. */
export function noteDevice(
  to: Writer,
  { userId, deviceId, registrationId }: Address,
  withheld?: KnownDevice['withheld'],
): void {
  const all = users.get(to, userId) ?? {}
  all[deviceId] = { registrationId, ...(withheld && { withheld }) }
  users.put(to, userId, all)
}

/** Forgets a device that is gone. */
export function dropDevice(to: Writer, { userId, deviceId }: { userId: Uuid; deviceId: number }): void {
  const all = users.get(to, userId) ?? {}
  delete all[deviceId]
  users.put(to, userId, all)
}

/** Forgets every device of a user. */
export const forgetDevices = (from: Writer, userId: Uuid): void => users.delete(from, userId)

/**
 * Members none of whose devices is in the device set of a conversation, by `<conversation>/<user>`: who is invited is in the chain, and
 * elsewhere his devices are what they were. [V-6.5]
 */
const outsiders = new Table<true>('outsiders')

/** Whether the relay said so, and nothing else since. */
export const isOutsider = (from: Reader, conversationId: Uuid, userId: Uuid): boolean =>
  outsiders.has(from, `${conversationId}/${userId}`)
/** Takes in what the relay says of a conversation's device set. */
export function noteOutsiders(to: Writer, conversationId: Uuid, now: { outside: Uuid[]; inside: Uuid[] }): void {
  for (const userId of now.outside) outsiders.put(to, `${conversationId}/${userId}`, true)
  for (const userId of now.inside) outsiders.delete(to, `${conversationId}/${userId}`)
}

/** Forgets why things were withheld: the user decided something. */
export function clearWithheld(to: Writer, userId: Uuid): void {
  const all = users.get(to, userId) ?? {}
  for (const each of Object.values(all)) delete each.withheld
  users.put(to, userId, all)
}

/** How a device that wrote to us is addressed; a wrong guess is corrected by the relay's mismatch. */
export const addressOf = (
  core: Pick<Core, 'crypto'>,
  from: Reader,
  sender: { userId: Uuid; deviceId: number },
): Address => ({
  ...sender,
  registrationId:
    core.crypto.registrationOf(from, sender) ??
    knownDevices(from, sender.userId).get(sender.deviceId)?.registrationId ??
    1,
})
