// Who is in a conversation, by the chain of changes its members signed, and by nothing else. [V-2.3]
// A signed change is 113 bytes: 01 ‖ nonce 16 ‖ SHA-256 of the previous verified link's message (zeros for the first) 32 ‖ signature 64.
import type { Uuid } from '../proto/ids.ts'
import { bigEndian, concat, hex, isSame, utf8 } from './bytes.ts'
import { idBytes } from './wire.ts'

const VERSION = 1
const SIGNED_BYTES = 113
const ZEROS = new Uint8Array(32)

/** Numbers as on the wire: ConversationChange, Role. */
export const CHANGE = {
  created: 1,
  members_added: 2,
  member_removed: 3,
  member_left: 4,
  role_changed: 5,
  updated: 6,
  archived: 7,
} as const
/** A change by name. */
export type ChangeName = keyof typeof CHANGE
/** member or admin. */
export type RoleName = 'member' | 'admin'
const ROLE = { member: 1, admin: 2 } as const

/** Found true by the word of who could know, not by its signature. */
const VOUCHED = 'vouched'

/**
 * One link as the relay tells it. @property verifiedUnder hex of the identity key under which it was found true, once; `vouched` when
 * its signature is by a key that is known to nobody here.
 */
export type Link = {
  revision: number
  change: ChangeName
  actor: Uuid
  subjects: Uuid[]
  role: RoleName | null
  signedChange: Uint8Array
  verifiedUnder: string | null
}

/** What the chain comes to. */
export type Roster = {
  kind: 'direct' | 'group'
  /** Of the last verified link; 0 = none. */
  revision: number
  members: Map<Uuid, RoleName>
  /** Everybody who ever was one. */
  everybody: Set<Uuid>
  archived: boolean
  /** SHA-256 over the roster at every revision there was. [P-4] */
  hashes: Uint8Array[]
  /** Of the last verified link's message: what the next one continues. */
  head: Uint8Array
  /** Whose keys must be known before more can be verified. */
  unknownActors: Uuid[]
  /** Revisions that nobody in the roster signed. */
  unsigned: number[]
  /** What the chain would come to if links that cannot be verified were true, shorter before longer: signed under a replaced key, or made up. */
  candidates: Candidate[]
}

/** @property hash as in [P-4]. @property links those that are not known to be true, ascending. */
export type Candidate = { links: Link[]; members: Map<Uuid, RoleName>; hash: Uint8Array }

type Tools = {
  hash(message: Uint8Array): Uint8Array
  identityOf(userId: Uuid): Uint8Array | null
  isSignedBy(identityKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean
}
type Signable = Omit<Link, 'signedChange' | 'verifiedUnder'>

/** What is signed. A creation names no conversation, which has no id yet: its nonce must be new instead. */
export function changeMessage(
  kind: Roster['kind'],
  conversationId: Uuid,
  link: Signable,
  nonce: Uint8Array,
  previous: Uint8Array,
): Uint8Array {
  const first = link.change === 'created'
  const subjects = [...link.subjects].sort()
  return concat(
    utf8('sealpost.v1 change\0'),
    Uint8Array.of(VERSION, kind === 'direct' ? 1 : 2, CHANGE[link.change], link.role ? ROLE[link.role] : 0),
    first ? new Uint8Array(16) : idBytes(conversationId),
    bigEndian(link.revision, 8),
    ...[idBytes(link.actor), nonce, previous, bigEndian(subjects.length, 4)],
    ...subjects.map(idBytes),
  )
}

/** A signed change, ready for the relay. */
export const signedChange = (nonce: Uint8Array, previous: Uint8Array, signature: Uint8Array): Uint8Array =>
  concat(Uint8Array.of(VERSION), nonce, previous, signature)

/** The nonce of a creation, hex; '' when it has none. Twice the same: a creation was copied. */
export const nonceOf = (link: Link): string =>
  link.signedChange.length === SIGNED_BYTES ? hex(link.signedChange.slice(1, 17)) : ''

/** [P-4] */
function rosterHash(conversationId: Uuid, revision: number, members: Roster['members'], tools: Tools): Uint8Array {
  const parts = [...members]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([userId, role]) => [idBytes(userId), Uint8Array.of(ROLE[role])])
  return tools.hash(concat(utf8('sealpost.v1 roster\0'), idBytes(conversationId), bigEndian(revision, 8), ...parts))
}

/** A roster as far as a link needs it. */
type Ground = Pick<Roster, 'kind' | 'revision' | 'members'>

/** Whether the actor may do that, and what comes of it. null = not allowed. */
function applied(ground: Ground, link: Link): Map<Uuid, RoleName> | null {
  const { actor, subjects, change } = link
  const members = new Map(ground.members)
  const first = ground.revision === 0
  if (change === 'created') {
    if (!first || !subjects.includes(actor)) return null
    const admin = ground.kind === 'group' ? 'admin' : 'member'
    return new Map(subjects.map((userId) => [userId, userId === actor ? admin : 'member']))
  }
  if (first || !members.has(actor)) return null
  if (change === 'member_left')
    return subjects.every((each) => each === actor) && members.delete(actor) ? members : null
  if (change === 'archived' && ground.kind === 'direct') return members
  if (ground.kind === 'direct' || members.get(actor) !== 'admin') return null
  for (const each of subjects) {
    if (change === 'members_added') members.set(each, 'member')
    else if (change === 'member_removed') members.delete(each)
    else if (change === 'role_changed' && members.has(each) && link.role) members.set(each, link.role)
  }
  return members
}

/** A link with what comes of it. @property message null: a direct conversation's creation that nobody signed. */
type Step = { link: Link; members: Map<Uuid, RoleName>; message: Uint8Array | null }

/** Which steps a link follows: none = what is known to be true; null = nothing that is known. */
function stepsBefore(roster: Roster, branches: Map<string, Step[]>, { signedChange: raw }: Link): Step[] | null {
  if (raw.length !== SIGNED_BYTES || raw[0] !== VERSION) return null
  const previous = raw.slice(17, 49)
  return isSame(previous, roster.head) ? [] : (branches.get(hex(previous)) ?? null)
}

/**
 * Who signed on top of links that cannot be verified says by it that they are true, if that gives nobody a power he lacks: an admin of
 * the last roster known to be true could have made those changes himself. Where nothing is known yet nobody may: a relay could make up
 * links that make an accomplice an admin.
 */
const mayVouch = (roster: Roster, voucher: Uuid): boolean =>
  roster.revision > 0 && roster.members.get(voucher) === 'admin'

/**
 * Builds the roster from all links, ascending. Links found true get `verifiedUnder` set, and stay true when the actor's key
 * changes later. A direct conversation is its two users, whoever signed it: whom one talks to is in the session, not in the chain.
 */
export function buildRoster(kind: Roster['kind'], conversationId: Uuid, links: Link[], tools: Tools): Roster {
  const roster: Roster = {
    ...{ kind, revision: 0, members: new Map(), everybody: new Set(), archived: false, hashes: [], head: ZEROS },
    ...{ unknownActors: [], unsigned: [], candidates: [] },
  }
  const hashOf = (revision: number, members: Roster['members']) => rosterHash(conversationId, revision, members, tools)
  const take = ({ link, members, message }: Step): void => {
    roster.members = members
    for (const userId of members.keys()) roster.everybody.add(userId)
    roster.revision = link.revision
    roster.archived ||= link.change === 'archived'
    if (message) roster.head = tools.hash(message)
    roster.hashes.push(hashOf(link.revision, members))
  }
  /** What cannot be verified, by the hash of its last message: it may be true, or made up by the relay. */
  let branches = new Map<string, Step[]>()
  for (const link of links) {
    const isDirect = kind === 'direct' && link.change === 'created'
    const steps = isDirect && link.signedChange.length === 0 ? [] : stepsBefore(roster, branches, link)
    const last = steps?.at(-1)
    const members =
      steps && applied(last ? { kind, revision: last.link.revision, members: last.members } : roster, link)
    if (!steps || !members) {
      roster.unsigned.push(link.revision)
      continue
    }
    const { signedChange: raw } = link
    const message =
      raw.length > 0 ? changeMessage(kind, conversationId, link, raw.slice(1, 17), raw.slice(17, 49)) : null
    if (message && !link.verifiedUnder) {
      const identity = tools.identityOf(link.actor)
      if (!identity) {
        roster.unknownActors.push(link.actor)
        break
      }
      if (tools.isSignedBy(identity, message, raw.slice(49))) link.verifiedUnder = hex(identity)
    }
    const isTrue = isDirect || link.verifiedUnder !== null
    if (isTrue && (steps.length === 0 || mayVouch(roster, link.actor))) {
      confirm(steps.map((each) => each.link))
      roster.unsigned = roster.unsigned.filter((revision) => !steps.some((each) => each.link.revision === revision))
      for (const each of [...steps, { link, members, message }]) take(each)
      branches = new Map()
      roster.candidates = []
    } else if (message) {
      roster.unsigned.push(link.revision)
      const branch = [...steps, { link, members, message }]
      branches.set(hex(tools.hash(message)), branch)
      roster.candidates.push({ links: branch.map((each) => each.link), members, hash: hashOf(link.revision, members) })
    }
  }
  return roster
}

/** What a message says of the roster by its roster_hash. */
export type Word = { userId: Uuid; rosterHash: Uint8Array }

/**
 * What of the candidates somebody's word is enough for. @param by messages; otherwise the user, who looked at it up to that revision.
 * Where a roster is known, an admin's word counts as in `mayVouch`. Where none is, a relay may have made every link up, and whoever they
 * make a member or an admin may be in league with it: then it takes the word of who is said to have made the conversation, of a device
 * of one's own user, or of every other member, so that one honest one among them is enough to spoil it.
 */
export function confirmable(
  { revision, members, candidates }: Roster,
  by: { words: Word[]; self: Uuid } | { revision: number },
): Candidate | null {
  const isMeant = (each: Candidate): boolean => {
    if ('revision' in by) return each.links.at(-1)!.revision === by.revision
    const saying = new Set(
      by.words.filter(({ rosterHash }) => isSame(each.hash, rosterHash)).map(({ userId }) => userId),
    )
    if (saying.size === 0) return false
    if (revision > 0) return [...saying].some((userId) => members.get(userId) === 'admin')
    const [first] = each.links
    const who = (userId: Uuid) => each.members.has(userId) && saying.has(userId)
    if (who(by.self) || (first?.change === 'created' && who(first.actor))) return true
    return [...each.members.keys()].every((userId) => userId === by.self || saying.has(userId))
  }
  return candidates.find(isMeant) ?? null
}

/** Takes links for true from now on: somebody who may know said so. */
export function confirm(links: Link[]): void {
  for (const link of links) link.verifiedUnder ??= VOUCHED
}

/** Whether there is nothing to go by but what nobody known signed: nothing is sent or refused until somebody confirms it. */
export const isUnconfirmed = ({ revision, candidates }: Roster): boolean => revision === 0 && candidates.length > 0
