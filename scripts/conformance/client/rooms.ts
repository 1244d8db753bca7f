// Conversations as the scripted relay has them, with their chain of changes. [V-2] [H-8]
import { randomUUID } from 'node:crypto'
import { uuidToBytes } from '../../../proto/ids.ts'
import { fromBase64 } from '../bytes.ts'
import { v1 } from '../socket.ts'
import type { Members } from './content.ts'

/** As on the wire. */
export const CHANGE = {
  created: 1,
  members_added: 2,
  member_removed: 3,
  member_left: 4,
  role_changed: 5,
  updated: 6,
  archived: 7,
} as const
export type ChangeName = keyof typeof CHANGE
const ROLE = ['', 'member', 'admin']

export type Link = {
  revision: number
  change: ChangeName
  actor: string
  subjects: string[]
  role: number
  signedChange: string | null
  atMs: number
}

export type Room = { id: string; kind: 'direct' | 'group'; createdAtMs: number; members: Members; links: Link[] }

/** What a SystemEvent says of a link. */
export const eventOf = ({ revision, change, actor, subjects, role, signedChange }: Link) => ({
  conversationChanged: v1.ConversationChanged.create({
    ...{ change: CHANGE[change] as never, actorUserId: uuidToBytes(actor), subjectUserIds: subjects.map(uuidToBytes) },
    ...{ role: role as never, revision, signedChange: signedChange ? fromBase64(signedChange) : new Uint8Array(0) },
  }),
})

export class Rooms {
  readonly all = new Map<string, Room>()

  create(kind: Room['kind'], userIds: string[], signedChange: string | null, atMs: number): Room {
    const [creator] = userIds as [string]
    const role = kind === 'group' ? 2 : 1
    const members = userIds.map((userId) => ({ userId, role: userId === creator ? role : 1 }))
    const room: Room = { id: randomUUID(), kind, createdAtMs: atMs, members, links: [] }
    this.all.set(room.id, room)
    this.link(room, { change: 'created', actor: creator, subjects: userIds, role: 0, signedChange, atMs })
    return room
  }

  link(room: Room, link: Omit<Link, 'revision'>): Link {
    const whole = { ...link, revision: room.links.length + 1 }
    room.links.push(whole)
    return whole
  }

  /** Where the pair talks already. */
  direct(a: string, b: string): Room | undefined {
    return [...this.all.values()].find(
      (each) =>
        each.kind === 'direct' && [a, b].every((userId) => each.members.some((member) => member.userId === userId)),
    )
  }

  /** GET /v1/conversations/{id}. */
  json(room: Room, caller: string, after = 0): object {
    const peer = room.members.find((each) => each.userId !== caller)
    return {
      ...{ conversation_id: room.id, kind: room.kind, privacy_mode: 'strict_e2e', name: '', description: '' },
      ...{ created_at_ms: room.createdAtMs, archived_at_ms: null, revision: room.links.length },
      role: ROLE[room.members.find((each) => each.userId === caller)?.role ?? 1],
      ...{
        muted_until_ms: null,
        read_up_to: null,
        peer_user_id: room.kind === 'direct' ? (peer?.userId ?? null) : null,
      },
      members: room.members.map(({ userId, role }) => ({
        ...{ user_id: userId, role: ROLE[role], state: 'active', joined_at_ms: room.createdAtMs },
      })),
      changes: room.links.slice(after).map((link) => ({
        ...{ revision: link.revision, change: link.change, actor_user_id: link.actor, subject_user_ids: link.subjects },
        ...{ role: ROLE[link.role] || null, signed_change: link.signedChange, changed_at_ms: link.atMs },
      })),
      has_more_changes: false,
    }
  }
}
