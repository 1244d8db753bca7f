// Ciphertexts for the devices of one send: who is addressed, sessions opened where they must be, and {sessions, row with the exact
// ciphertexts} in one transaction under the account's mutex. Nothing is transmitted here.
import type { Uuid } from '../proto/ids.ts'
import { dropDevice, isOutsider, knownDevices, noteDevice, noteOutsiders, type WithheldReason } from './book.ts'
import { fetchBundles } from './bundles.ts'
import { pack } from './content.ts'
import type { Conversations } from './conversations.ts'
import type { Core } from './core.ts'
import type { Bundle } from './crypto.ts'
import { noteOffer } from './identities.ts'
import { decide, judge, outsidersOf, type Recipient, repairOf } from './mismatch.ts'
import { type OutboxRow, putRow } from './outbox.ts'
import { isUnconfirmed, type Roster } from './roster.ts'
import { Stage } from './stage.ts'
import { ownUsername } from './usernames.ts'
import { type Address, type Mismatch, nameOf } from './wire.ts'

/** A bundle that was of no use is not asked for again so soon. */
const WITHHELD_FOR_MS = 3_600_000

type Work = { row: OutboxRow; wanted: Address[]; kept: Recipient[]; gone: Address[] }

/** It cannot be sent as things are; the message is the failure's name. */
export class Unsendable extends Error {}

/** Makes and repairs rows. Rows come back changed and stored. */
export class Sealer {
  private readonly core: Core
  private readonly conversations: Conversations

  constructor(core: Core, conversations: Conversations) {
    this.core = core
    this.conversations = conversations
  }

  /** Whether anything of the conversation is known here. */
  isKnown(conversationId: Uuid): boolean {
    return this.conversations.roster(conversationId) !== null
  }

  /** The first ciphertexts of a row. @throws what fetching throws; nothing is stored then. */
  async seal(row: OutboxRow): Promise<OutboxRow> {
    const { members } = await this.settled(row.conversationId)
    const wanted = row.to ?? this.everybody(row.conversationId, [...members.keys()])
    return this.work({ row, wanted, kept: [], gone: [] })
  }

  /** After a DEVICE_MISMATCH: what it names and nothing else. [S-4.4] */
  async repair(row: OutboxRow, mismatch: Mismatch): Promise<OutboxRow> {
    const { conversationId } = row
    const members = this.conversations.roster(conversationId)?.members
    // Somebody who was added a moment ago: the chain may say so before its event comes.
    if (row.to === null && mismatch.missing.some(({ userId }) => !members?.has(userId)))
      await this.conversations.settle(conversationId)
    const { kept, wanted, ...rest } = repairOf(row.recipients ?? [], mismatch, this.core.account.self, row.to !== null)
    const outside = this.outsiders(row, mismatch)
    const gone = rest.gone.filter(({ userId }) => !outside.has(userId))
    const changed = { ...row, rounds: row.rounds + 1 }
    // The plaintext of a complaint is what is sent: only the address was wrong.
    if (row.kind === 'complaint') {
      const corrected = wanted.flatMap((each) =>
        (row.recipients ?? []).filter((old) => nameOf(old) === nameOf(each)).map((old) => ({ ...old, ...each })),
      )
      return this.store({ ...changed, recipients: [...kept, ...corrected] }, gone)
    }
    return this.work({ row: changed, wanted, kept, gone })
  }

  /** Nobody is judged by a roster that is not known to its end: a member would be taken for a ghost. */
  private async settled(conversationId: string): Promise<Roster> {
    const roster = this.conversations.roster(conversationId)
    const isSettled = roster && roster.revision > 0 && roster.unknownActors.length === 0
    const known = isSettled ? roster : await this.conversations.settle(conversationId)
    if (isUnconfirmed(known)) throw new Unsendable('roster_unconfirmed')
    return known
  }

  /**
   * Who is not in a group's device set is remembered for that group: without his devices the next message elsewhere would find them
   * missing, and with them the next one here would find them extra, for ever.
   */
  private outsiders(row: OutboxRow, mismatch: Mismatch): Set<Uuid> {
    const isGroup = this.conversations.roster(row.conversationId)?.kind === 'group'
    const outside = row.to === null && isGroup ? outsidersOf(row.recipients ?? [], mismatch) : new Set<Uuid>()
    // This device is never addressed: one's others may all be gone.
    outside.delete(this.core.account.self.userId)
    const inside = row.to === null ? mismatch.missing.map(({ userId }) => userId) : []
    this.core.storage.transaction((tx) => noteOutsiders(tx, row.conversationId, { outside: [...outside], inside }))
    return outside
  }

  /** Every known device of the members and of ghosts, without this one. */
  private everybody(conversationId: string, members: Uuid[]): Address[] {
    const { self } = this.core.account
    const users = new Set([...members, ...this.conversations.ghosts(conversationId)])
    return this.core.storage.transaction((tx) =>
      [...users]
        .filter((userId) => !isOutsider(tx, conversationId, userId))
        .flatMap((userId) =>
          [...knownDevices(tx, userId)].map(([deviceId, { registrationId }]) => ({ userId, deviceId, registrationId })),
        )
        .filter((each) => nameOf(each) !== nameOf(self)),
    )
  }

  private store(row: OutboxRow, gone: Address[]): OutboxRow {
    this.core.storage.transaction((tx) => {
      for (const each of gone) dropDevice(tx, each)
      putRow(tx, row)
    })
    return row
  }

  // Bundles are fetched without the mutex; what was decided before is then decided again.
  private async work(work: Work): Promise<OutboxRow> {
    const bundles = new Map<string, Bundle | null>()
    for (;;) {
      const result = await this.core.mutex.run(() => this.attempt(work, bundles))
      if ('row' in result) return result.row
      const found = await fetchBundles(this.core, result.needed)
      for (const each of result.needed) bundles.set(nameOf(each), found.get(nameOf(each)) ?? null)
    }
  }

  private async attempt(
    work: Work,
    bundles: Map<string, Bundle | null>,
  ): Promise<{ row: OutboxRow } | { needed: Address[] }> {
    const { core } = this
    const stage = new Stage(core.storage)
    const roster = this.conversations.roster(work.row.conversationId)
    const nowMs = core.account.now()
    const decided = work.wanted.map((address) => {
      const known = knownDevices(stage, address.userId).get(address.deviceId)
      const lately = known?.withheld && nowMs - known.withheld.atMs < WITHHELD_FOR_MS ? known : null
      const decision = decide(address, {
        isInRoster: roster?.members.has(address.userId) ?? false,
        session: core.crypto.session(stage, address, nowMs),
        withheldLately: lately?.registrationId === address.registrationId ? (lately.withheld?.reason ?? null) : null,
      })
      return { address, decision }
    })
    const needed = decided.filter(({ decision, address }) => decision.do === 'fetch' && !bundles.has(nameOf(address)))
    if (needed.length > 0) return { needed: needed.map(({ address }) => address) }

    const plaintext = work.row.plaintext ?? this.pack(work.row)
    const offers: { userId: string; identityKey: Uint8Array }[] = []
    const recipients: Recipient[] = [...work.kept]
    for (const { address, decision } of decided) {
      const opened =
        decision.do === 'fetch'
          ? await this.open(stage, address, bundles.get(nameOf(address)) ?? null, offers)
          : { address, reason: decision.do === 'withhold' ? decision.reason : null }
      const withheld = opened.reason
      const note = withheld && withheld !== 'not_in_roster' ? { reason: withheld, atMs: nowMs } : undefined
      noteDevice(stage, opened.address, note)
      // What devices tell each other is nothing to tell people about. [S-6.2]
      if (withheld && work.row.to) continue
      if (withheld) recipients.push({ ...opened.address, type: 0, content: new Uint8Array(0), withheld })
      else {
        const sealed = await core.crypto.encrypt(stage, core.account.self, opened.address, plaintext, nowMs)
        recipients.push({ ...opened.address, ...sealed, withheld: null })
      }
    }
    const row = { ...work.row, plaintext, recipients }
    const ghosts = decided.filter(({ decision }) => decision.do === 'withhold' && decision.reason === 'not_in_roster')
    const news = core.storage.transaction((tx) => {
      stage.apply(tx)
      for (const each of work.gone) dropDevice(tx, each)
      putRow(tx, row)
      return {
        offers: offers.filter(({ userId, identityKey }) => noteOffer(tx, userId, identityKey)),
        ghosts: ghosts.filter(({ address }) => this.conversations.noteGhost(tx, row.conversationId, address.userId)),
      }
    })
    for (const { userId, identityKey } of news.offers)
      core.events.emit('identity_changed', { userId, offered: identityKey })
    for (const { address } of news.ghosts)
      core.events.emit('ghost', { conversationId: row.conversationId, userId: address.userId })
    return { row }
  }

  /** A session from a bundle, or why there is none. */
  private async open(
    stage: Stage,
    address: Address,
    bundle: Bundle | null,
    offers: { userId: string; identityKey: Uint8Array }[],
  ): Promise<{ address: Address; reason: WithheldReason | null }> {
    const { core } = this
    const nowMs = core.account.now()
    const verdict = judge(core.crypto.session(stage, address, nowMs), bundle)
    if (verdict === 'keep') {
      const detail = `the relay says ${nameOf(address)} started over, its bundle does not`
      core.events.emit('problem', { what: 'contradiction', detail })
      return { address, reason: null }
    }
    if (verdict === 'incompatible' || !bundle) return { address, reason: 'incompatible' }
    const current = { ...address, registrationId: bundle.registrationId }
    const opening = await core.crypto.openSession(stage, core.account.self, address.userId, bundle, nowMs)
    if (opening === 'untrusted') offers.push({ userId: address.userId, identityKey: bundle.identityKey })
    if (opening === 'invalid')
      core.events.emit('problem', { what: 'bad_bundle', detail: `the keys of ${nameOf(address)} do not verify` })
    const reason = opening === 'opened' ? null : opening === 'untrusted' ? 'untrusted' : 'incompatible'
    return { address: current, reason }
  }

  private pack(row: OutboxRow): Uint8Array {
    const roster = this.conversations.roster(row.conversationId)
    return pack(
      {
        ...{ conversationId: row.conversationId, clientMessageId: row.clientMessageId, resendOf: row.resendOf },
        sentAtMs: row.queuedAtMs,
        rosterHash: roster?.hashes.at(-1) ?? new Uint8Array(32),
        username: this.core.storage.transaction(ownUsername),
      },
      row.body,
    )
  }
}
