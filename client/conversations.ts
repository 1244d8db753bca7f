// Conversations as this device knows them: the chain of changes, what it comes to, and changes of one's own, signed.
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { base64, base64url, fromBase64, hex, isSame } from './bytes.ts'
import type { Core } from './core.ts'
import { isForgotten, noteKnown } from './forgotten.ts'
import { meet } from './identities.ts'
import {
  buildRoster,
  type ChangeName,
  changeMessage,
  confirm,
  confirmable,
  type Link,
  nonceOf,
  type RoleName,
  type Roster,
  signedChange,
  type Word,
} from './roster.ts'
import { Stage } from './stage.ts'
import type { Transaction } from './storage.ts'
import { ordered, Table } from './tables.ts'

/** A conversation for the app. Members are those of the signed chain. */
export type Conversation = {
  id: Uuid
  kind: 'direct' | 'group'
  members: { userId: Uuid; role: RoleName }[]
  /** Users the relay delivers to whom no member added: withheld from. */
  ghosts: Uuid[]
  /** Changes the relay tells of that nobody in the roster signed. */
  unsignedRevisions: number[]
  /**
   * Who would be a member if changes were true that nobody known here signed: their signer may have begun anew since. Nothing is sent or
   * shown while nothing else is known of the conversation. null = there are none.
   */
  unconfirmed: { revision: number; members: { userId: Uuid; role: RoleName }[] } | null
  archived: boolean
  /** The relay does not know it any more, after a restore: nothing can be sent in it. Its members may make another. */
  forgotten: boolean
}

/** @property version another one whenever a link is stored, never one that was there before. */
type Row = { kind: 'direct' | 'group'; links: number; ghosts: Uuid[]; version?: string }

/** A roster that was built. @property keys the identity keys that had a say in it, as they were. */
type Built = { version: string; keys: Map<Uuid, Uint8Array | null>; roster: Roster }
const BUILT_MAX = 100
type ChangeJson = {
  revision: number
  change: ChangeName
  actor_user_id: Uuid
  subject_user_ids: Uuid[]
  role: RoleName | null
  signed_change: string | null
}

const rows = new Table<Row>('conversations')
const chain = new Table<Link>('links')
const nonces = new Table<Uuid>('creations')

/** Reads and changes; nothing here is sent over the socket. */
export class Conversations {
  private readonly core: Core
  /** To verify and hash every link for every message would take longer than to read it. */
  private readonly built = new Map<Uuid, Built>()

  constructor(core: Core) {
    this.core = core
  }

  /** What the chain comes to, as far as it is known here; null = nothing is. */
  roster(id: Uuid): Roster | null {
    return this.core.storage.transaction((tx) => this.rosterIn(tx, id))
  }
  rosterIn(tx: Transaction, id: Uuid): Roster | null {
    const { crypto } = this.core
    const row = rows.get(tx, id)
    if (!row) return null
    const before = this.built.get(id)
    const isCurrent = ([userId, key]: [Uuid, Uint8Array | null]) => {
      const now = crypto.identityOf(tx, userId)
      return key && now ? isSame(key, now) : key === now
    }
    if (before?.version === row.version && before?.version && [...before.keys].every(isCurrent)) return before.roster
    const links = chain.scan(tx, { prefix: `${id}/` }).map(({ record }) => record)
    const verified = links.map(({ verifiedUnder }) => verifiedUnder)
    const keys: Built['keys'] = new Map()
    const roster = buildRoster(row.kind, id, links, {
      hash: crypto.hash,
      isSignedBy: crypto.isSignedBy,
      identityOf: (userId) => {
        const key = crypto.identityOf(tx, userId)
        keys.set(userId, key)
        return key
      },
    })
    const found = links.filter((link, at) => link.verifiedUnder !== verified[at])
    for (const link of found) this.keep(tx, id, link)
    const version = found.length > 0 || !row.version ? this.renew(tx, id) : row.version
    this.built.delete(id)
    this.built.set(id, { version, keys, roster })
    if (this.built.size > BUILT_MAX) this.built.delete(this.built.keys().next().value!)
    return roster
  }
  private keep(tx: Transaction, id: Uuid, link: Link): void {
    chain.put(tx, `${id}/${ordered(link.revision)}`, link)
  }
  /** To be called in the transaction that stored links: what was built before is void, also if that transaction comes to nothing. */
  private renew(tx: Transaction, id: Uuid): string {
    const version = hex(globalThis.crypto.getRandomValues(new Uint8Array(16)))
    const row = rows.get(tx, id)
    if (row) rows.put(tx, id, { ...row, version })
    return version
  }

  /**
   * Takes changes for true because of what messages say, or of its user's look.
   * @returns whether there was something to confirm, and this was enough for it.
   */
  confirmIn(tx: Transaction, id: Uuid, by: { words: () => Word[] } | { revision: number }): boolean {
    const roster = this.rosterIn(tx, id)
    if (!roster || roster.candidates.length === 0) return false
    const said = 'revision' in by ? by : { words: by.words(), self: this.core.account.self.userId }
    const candidate = confirmable(roster, said)
    if (!candidate) return false
    confirm(candidate.links)
    for (const link of candidate.links) this.keep(tx, id, link)
    this.renew(tx, id)
    return true
  }

  /** The roster after everything was done to know it: the chain to the present, and the keys of those who signed it. */
  async settle(id: Uuid): Promise<Roster> {
    await this.refresh(id)
    let hasMet = false
    for (let before = ''; ; ) {
      const roster = this.roster(id)
      if (!roster) throw new RelayError('NOT_FOUND', 'no such conversation')
      const unknown = roster.unknownActors.join()
      if (unknown === before) {
        // Members can be told only now that the keys of those who signed are known.
        if (hasMet) this.core.events.emit('conversation', { conversationId: id })
        return roster
      }
      before = unknown
      hasMet = true
      await meet(this.core, roster.unknownActors)
    }
  }

  /** One conversation, null when nothing is known of it. */
  get(id: Uuid): Conversation | null {
    const roster = this.roster(id)
    if (!roster) return null
    const candidate = roster.candidates.at(-1)
    const list = (members: Roster['members']) => [...members].map(([userId, role]) => ({ userId, role }))
    return {
      ...{ id, kind: roster.kind, ghosts: this.ghosts(id), archived: roster.archived },
      members: list(roster.members),
      unsignedRevisions: roster.unsigned,
      unconfirmed: candidate ? { revision: candidate.links.at(-1)!.revision, members: list(candidate.members) } : null,
      forgotten: this.core.storage.transaction((tx) => isForgotten(tx, id)),
    }
  }

  /** All that are known here, by id. */
  list(): Conversation[] {
    return this.ids()
      .map((id) => this.get(id))
      .filter((each) => each !== null)
  }
  ids(): Uuid[] {
    return this.core.storage.transaction((tx) => rows.scan(tx).map(({ key }) => key))
  }
  /** As the signed chain has it. */
  isMember(id: Uuid, userId: Uuid): boolean {
    return this.roster(id)?.members.has(userId) ?? false
  }

  /** The direct conversation with a user, made when there is none. */
  async direct(userId: Uuid): Promise<Uuid> {
    const subjects = [this.core.account.self.userId, userId]
    return this.create('direct', subjects, { kind: 'direct', user_id: userId })
  }

  /** A group with these users; one's own user is its admin. At least three users in all. [V-3] */
  async group(userIds: Uuid[]): Promise<Uuid> {
    const subjects = [...new Set([this.core.account.self.userId, ...userIds])]
    return this.create('group', subjects, { kind: 'group', user_ids: userIds })
  }

  addMembers(id: Uuid, userIds: Uuid[]): Promise<void> {
    return this.change(id, 'members_added', userIds, null, (signed) => [
      'POST',
      '/members',
      { user_ids: userIds, ...signed },
    ])
  }
  setRole(id: Uuid, userId: Uuid, role: RoleName): Promise<void> {
    return this.change(id, 'role_changed', [userId], role, (signed) => [
      'PATCH',
      `/members/${userId}`,
      { role, ...signed },
    ])
  }
  removeMember(id: Uuid, userId: Uuid): Promise<void> {
    return this.remove(id, 'member_removed', userId)
  }
  leave(id: Uuid): Promise<void> {
    return this.remove(id, 'member_left', this.core.account.self.userId)
  }
  archive(id: Uuid): Promise<void> {
    return this.change(id, 'archived', [], null, (signed) => ['POST', '/archive', signed])
  }

  /** Notes a user whom the relay delivers to without a member's word. @returns whether it is news. */
  noteGhost(tx: Transaction, id: Uuid, userId: Uuid): boolean {
    const row = rows.get(tx, id)
    if (!row || row.ghosts.includes(userId)) return false
    rows.put(tx, id, { ...row, ghosts: [...row.ghosts, userId] })
    return true
  }
  /** Users noted so whom nobody has added since. */
  ghosts(id: Uuid): Uuid[] {
    const ghosts = this.core.storage.transaction((tx) => rows.get(tx, id))?.ghosts ?? []
    if (ghosts.length === 0) return ghosts
    const members = this.roster(id)?.members
    return ghosts.filter((userId) => !members?.has(userId))
  }

  /** Takes a link of the chain. @returns false when links before it are missing, or it is not what was known. */
  addLink(tx: Transaction, id: Uuid, link: Link): boolean {
    const row = rows.get(tx, id)
    const known = chain.get(tx, `${id}/${ordered(link.revision)}`)
    if (known) return known.change === link.change && isSame(known.signedChange, link.signedChange)
    if (link.revision !== (row?.links ?? 0) + 1) return false
    if (link.change === 'created') {
      // [V-3] A group has three users when it is made.
      rows.put(tx, id, { kind: link.subjects.length === 2 ? 'direct' : 'group', links: 1, ghosts: [] })
      const nonce = nonceOf(link)
      if (nonce && (nonces.get(tx, nonce) ?? id) !== id) link.signedChange = new Uint8Array(1)
      else if (nonce) nonces.put(tx, nonce, id)
    } else if (row) rows.put(tx, id, { ...row, links: link.revision })
    this.keep(tx, id, link)
    this.renew(tx, id)
    return true
  }

  /** Who made a user a member, by the last change that says so; null = none that is known here does. The relay's word. */
  addedBy(id: Uuid, userId: Uuid): Uuid | null {
    const links = this.core.storage.transaction((tx) => chain.scan(tx, { prefix: `${id}/` }))
    const adding = links.findLast(
      ({ record: { change, subjects } }) =>
        (change === 'created' || change === 'members_added') && subjects.includes(userId),
    )
    return adding?.record.actor ?? null
  }

  /** Fetches what of the chain is not known here. */
  async refresh(id: Uuid): Promise<void> {
    for (let more = true; more; ) {
      const after = this.core.storage.transaction((tx) => rows.get(tx, id))?.links ?? 0
      const path = `/v1/conversations/${id}?after_revision=${after}`
      const page = await this.core.account.http.call<{ changes: ChangeJson[]; has_more_changes: boolean }>('GET', path)
      noteKnown(this.core, id)
      const fits = this.core.storage.transaction((tx) =>
        page.changes.every((each) => this.addLink(tx, id, readLink(each))),
      )
      if (!fits) this.core.events.emit('problem', { what: 'chain', detail: `the chain of ${id} does not continue` })
      const known = this.core.storage.transaction((tx) => rows.get(tx, id))?.links ?? 0
      // A page that brings nothing new would be asked for ever.
      more = fits && page.has_more_changes && known > after
    }
    this.core.events.emit('conversation', { conversationId: id })
  }

  private async create(kind: Roster['kind'], subjects: Uuid[], json: Record<string, unknown>): Promise<Uuid> {
    const link = { revision: 1, change: 'created' as const, actor: subjects[0]!, subjects, role: null }
    const signed_change = base64(this.signed(kind, '', link, new Uint8Array(32)))
    const path = '/v1/conversations'
    const answer = await this.core.account.http.call<{ conversation_id: Uuid }>('POST', path, {
      ...json,
      signed_change,
    })
    const id = answer.conversation_id
    await this.refresh(id)
    // The relay's word for which conversation this is: another one would be written to in its place.
    const first = this.core.storage.transaction((tx) => chain.get(tx, `${id}/${ordered(1)}`))
    const isOurs =
      kind === 'direct'
        ? first?.change === 'created' && isSameSet(first.subjects, subjects)
        : first !== null && isSame(first.signedChange, fromBase64(signed_change))
    if (isOurs) return id
    this.core.events.emit('problem', { what: 'chain', detail: `${id} is not the conversation that was asked for` })
    throw new RelayError('INTERNAL', 'the relay answered with another conversation')
  }

  private remove(id: Uuid, change: ChangeName, userId: Uuid): Promise<void> {
    return this.change(id, change, [userId], null, ({ signed_change, expected_revision }) => [
      'DELETE',
      `/members/${userId}?signed_change=${base64url(fromBase64(signed_change))}&expected_revision=${expected_revision}`,
      undefined,
    ])
  }

  /** @throws RelayError CONFLICT when the chain moved on meanwhile, FORBIDDEN, NOT_FOUND. */
  private async change(
    id: Uuid,
    change: ChangeName,
    subjects: Uuid[],
    role: RoleName | null,
    request: (signed: {
      signed_change: string
      expected_revision: number
    }) => [string, string, Record<string, unknown> | undefined],
  ): Promise<void> {
    const roster = await this.settle(id)
    const links = this.core.storage.transaction((tx) => rows.get(tx, id))!.links
    const link = { revision: links + 1, change, actor: this.core.account.self.userId, subjects, role }
    const signed_change = base64(this.signed(roster.kind, id, link, roster.head))
    const [method, path, json] = request({ signed_change, expected_revision: links })
    await this.core.account.http.call(method, `/v1/conversations/${id}${path}`, json)
    if (change !== 'member_left') await this.refresh(id)
  }

  private signed(
    kind: Roster['kind'],
    id: Uuid,
    link: Omit<Link, 'signedChange' | 'verifiedUnder'>,
    head: Uint8Array,
  ): Uint8Array {
    const nonce = globalThis.crypto.getRandomValues(new Uint8Array(16))
    const message = changeMessage(kind, id, link, nonce, head)
    return signedChange(nonce, head, this.core.crypto.sign(new Stage(this.core.storage), message))
  }
}

const readLink = (json: ChangeJson): Link => ({
  ...{ revision: json.revision, change: json.change, actor: json.actor_user_id, subjects: json.subject_user_ids },
  role: json.change === 'role_changed' ? json.role : null,
  signedChange: json.signed_change ? fromBase64(json.signed_change) : new Uint8Array(0),
  verifiedUnder: null,
})

const isSameSet = (some: Uuid[], others: Uuid[]): boolean =>
  some.length === others.length && some.every((each) => others.includes(each))
