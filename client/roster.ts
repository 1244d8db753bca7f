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

/** One link as the relay tells it. @property verifiedUnder hex of the identity key under which it was found true, once. */
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
}

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

/** Whether the actor may do that, and what comes of it. null = not allowed. */
function applied(roster: Roster, link: Link): Map<Uuid, RoleName> | null {
  const { actor, subjects, change } = link
  const members = new Map(roster.members)
  const first = roster.revision === 0
  if (change === 'created') {
    if (!first || !subjects.includes(actor)) return null
    const admin = roster.kind === 'group' ? 'admin' : 'member'
    return new Map(subjects.map((userId) => [userId, userId === actor ? admin : 'member']))
  }
  if (first || !members.has(actor)) return null
  if (change === 'member_left')
    return subjects.every((each) => each === actor) && members.delete(actor) ? members : null
  if (change === 'archived' && roster.kind === 'direct') return members
  if (roster.kind === 'direct' || members.get(actor) !== 'admin') return null
  for (const each of subjects) {
    if (change === 'members_added') members.set(each, 'member')
    else if (change === 'member_removed') members.delete(each)
    else if (change === 'role_changed' && members.has(each) && link.role) members.set(each, link.role)
  }
  return members
}

/** The message a link signs, if it continues the chain. */
function continuation(roster: Roster, conversationId: Uuid, link: Link): Uint8Array | null {
  const { signedChange: raw } = link
  if (raw.length !== SIGNED_BYTES || raw[0] !== VERSION || !isSame(raw.slice(17, 49), roster.head)) return null
  return changeMessage(roster.kind, conversationId, link, raw.slice(1, 17), roster.head)
}

/**
 * Builds the roster from all links, ascending. Links found true get `verifiedUnder` set, and stay true when the actor's key
 * changes later. A direct conversation nobody signed is its two users: whom one talks to is in the session, not in the chain.
 */
export function buildRoster(kind: Roster['kind'], conversationId: Uuid, links: Link[], tools: Tools): Roster {
  const roster: Roster = {
    ...{ kind, revision: 0, members: new Map(), everybody: new Set(), archived: false, hashes: [], head: ZEROS },
    ...{ unknownActors: [], unsigned: [] },
  }
  for (const link of links) {
    const message = continuation(roster, conversationId, link)
    const members = applied(roster, link)
    const isPlainDirect = kind === 'direct' && link.change === 'created' && link.signedChange.length === 0
    if (!members || !(message || isPlainDirect)) {
      roster.unsigned.push(link.revision)
      continue
    }
    if (message && !link.verifiedUnder) {
      const identity = tools.identityOf(link.actor)
      if (!identity) {
        roster.unknownActors.push(link.actor)
        break
      }
      if (!tools.isSignedBy(identity, message, link.signedChange.slice(49))) {
        roster.unsigned.push(link.revision)
        continue
      }
      link.verifiedUnder = hex(identity)
    }
    roster.members = members
    for (const userId of members.keys()) roster.everybody.add(userId)
    roster.revision = link.revision
    roster.archived ||= link.change === 'archived'
    if (message) roster.head = tools.hash(message)
    roster.hashes.push(rosterHash(conversationId, link.revision, members, tools))
  }
  return roster
}
