// A device's own prekeys: made, kept, retired. Public halves leave here, private ones do not.
import {
  KEMKeyPair,
  KyberPreKeyRecord,
  PreKeyRecord,
  PrivateKey,
  SignedPreKeyRecord,
} from '@signalapp/libsignal-client'
import { bigEndian, concat } from '../bytes.ts'
import type { KeyOrder, MadeKeys, PublicKey as PublicPrekey, SignedPublicKey, Slot } from '../crypto.ts'
import type { Stage } from '../stage.ts'
import type { Transaction } from '../storage.ts'
import { identityPair, TABLE } from './stores.ts'

const idsOf = ({ first, count }: { first: number; count: number }): number[] =>
  Array.from({ length: count }, (_, at) => first + at)

/** Makes what is ordered, private halves into the stage. */
export function makeKeys(stage: Stage, order: KeyOrder, nowMs: number, slot?: Slot): MadeKeys {
  const { privateKey } = identityPair(stage, slot)
  const kyber = (keyId: number, lastResort: boolean): SignedPublicKey => {
    const pair = KEMKeyPair.generate()
    const publicKey = pair.getPublicKey().serialize()
    const signature = privateKey.sign(publicKey)
    const record = KyberPreKeyRecord.new(keyId, nowMs, pair, signature).serialize()
    stage.put(TABLE.kyber, String(keyId), concat(Uint8Array.of(lastResort ? 1 : 0), record))
    return { keyId, publicKey, signature }
  }
  const signed = (keyId: number): SignedPublicKey => {
    const pair = PrivateKey.generate()
    const publicKey = pair.getPublicKey().serialize()
    const signature = privateKey.sign(publicKey)
    const record = SignedPreKeyRecord.new(keyId, nowMs, pair.getPublicKey(), pair, signature)
    stage.put(TABLE.signed, String(keyId), record.serialize())
    return { keyId, publicKey, signature }
  }
  const oneTime = (keyId: number) => {
    const pair = PrivateKey.generate()
    stage.put(TABLE.prekeys, String(keyId), PreKeyRecord.new(keyId, pair.getPublicKey(), pair).serialize())
    return { keyId, publicKey: pair.getPublicKey().serialize() }
  }
  return {
    signed: order.signed === undefined ? null : signed(order.signed),
    lastResort: order.lastResort === undefined ? null : kyber(order.lastResort, true),
    oneTime: order.oneTime ? idsOf(order.oneTime).map(oneTime) : [],
    kyberOneTime: order.kyberOneTime ? idsOf(order.kyberOneTime).map((keyId) => kyber(keyId, false)) : [],
  }
}

/** Retired ids as one list, so that a Stage, which cannot scan, can keep it. */
type Retired = { table: 'signed' | 'kyber'; keyId: number; atMs: number }

function readRetired(stage: Stage): Retired[] {
  const value = stage.get(TABLE.retired, 'list')
  if (!value) return []
  const view = new DataView(value.buffer, value.byteOffset, value.length)
  return Array.from({ length: value.length / 13 }, (_, at) => ({
    table: view.getUint8(at * 13) === 1 ? ('kyber' as const) : ('signed' as const),
    keyId: view.getUint32(at * 13 + 1),
    atMs: Number(view.getBigUint64(at * 13 + 5)),
  }))
}

/** Notes what was replaced, and deletes what was replaced before that time. [K-2.5] */
export function retire(
  stage: Stage,
  replaced: { signed?: number; lastResort?: number },
  nowMs: number,
  beforeMs: number,
): void {
  const all = readRetired(stage)
  const note = (table: Retired['table'], keyId: number | undefined) => {
    if (keyId !== undefined && !all.some((each) => each.table === table && each.keyId === keyId))
      all.push({ table, keyId, atMs: nowMs })
  }
  note('signed', replaced.signed)
  note('kyber', replaced.lastResort)
  for (const each of all.filter(({ atMs }) => atMs < beforeMs)) stage.delete(TABLE[each.table], String(each.keyId))
  const kept = all.filter(({ atMs }) => atMs >= beforeMs)
  const rows = kept.map((each) =>
    concat(Uint8Array.of(each.table === 'kyber' ? 1 : 0), bigEndian(each.keyId, 4), bigEndian(each.atMs, 8)),
  )
  stage.put(TABLE.retired, 'list', concat(...rows))
}

/** Forgets every prekey but these. */
export function keepOnly(tx: Transaction, { signed, lastResort, oneTime, kyberOneTime }: MadeKeys): void {
  const keep = (table: string, keys: (PublicPrekey | null)[]) => {
    const ids = new Set(keys.map((key) => String(key?.keyId)))
    for (const { key } of tx.scan(table)) if (!ids.has(key)) tx.delete(table, key)
  }
  keep(TABLE.signed, [signed])
  keep(TABLE.prekeys, oneTime)
  keep(TABLE.kyber, [lastResort, ...kyberOneTime])
  for (const table of [TABLE.kyberUsed, TABLE.retired]) keep(table, [])
}
