// What users and groups are called, as told inside of ciphertexts: claims, until the relay's look-up bears them out. [P-6] [P-7]
import { type Uuid, uuidV7 } from '../proto/ids.ts'
import { addressOf } from './book.ts'
import type { Naming } from './content.ts'
import type { Conversations } from './conversations.ts'
import type { Core } from './core.ts'
import { InvalidUsername } from './crypto.ts'
import { enqueue, hasRoom } from './outbox.ts'
import type { Reader, Transaction, Writer } from './storage.ts'
import { Table } from './tables.ts'
import type { Usernames } from './usernames.ts'

/** A user's name. @property isChecked the relay named this user when it was asked for the name: still only its word. */
export type UserName = { username: string; isChecked: boolean }

/** Characters of a group's name at most; longer ones are cut. */
export const GROUP_NAME_MAX = 100
/** What can be a username at all; anything else is no claim. */
const USERNAME = /^[a-z_][a-z0-9_]{2,31}\.\d{2,10}$/i

/** @property checked was looked up. @property claimed was not yet. @property own the user said so, not another. @property refused was looked up, and is somebody else's. */
type Row = { checked: string; claimed: string; own: boolean; refused: string }
const UNKNOWN: Row = { checked: '', claimed: '', own: false, refused: '' }

const users = new Table<Row>('user_names')
const groups = new Table<string>('group_names')

/** Takes a name somebody told. @returns whether that changed what is known. */
export function noteClaim(tx: Reader & Writer, userId: Uuid, username: string, source: 'own' | 'other'): boolean {
  const row = users.get(tx, userId) ?? UNKNOWN
  const isOwn = source === 'own'
  if (!USERNAME.test(username) || username === row.checked || username === row.refused) return false
  if (username === row.claimed && (row.own || !isOwn)) return false
  // A user's own word counts more than another's.
  if (!isOwn && (row.own || row.checked)) return false
  users.put(tx, userId, { ...row, claimed: username, own: isOwn })
  return true
}

/** Takes what another device told about names. @returns what changed, for its events. */
export function takeNaming(
  tx: Reader & Writer,
  conversationId: Uuid,
  naming: Naming,
  self: Uuid,
): { groupName: string | null; userIds: Uuid[] } {
  const userIds = naming.users
    .filter(({ userId, username }) => userId !== self && noteClaim(tx, userId, username, 'other'))
    .map(({ userId }) => userId)
  const groupName = [...naming.groupName].slice(0, GROUP_NAME_MAX).join('')
  const isNews = groupName !== '' && groupName !== groups.get(tx, conversationId)
  if (isNews) groups.put(tx, conversationId, groupName)
  return { groupName: isNews ? groupName : null, userIds }
}

/** Names, read, checked and told. */
export class Names {
  private readonly core: Core
  private readonly usernames: Usernames
  private readonly conversations: Conversations
  private readonly flush: (conversationId: Uuid) => void

  /** @param flush told where something waits to be sent. */
  constructor(
    core: Core,
    { usernames, conversations }: { usernames: Usernames; conversations: Conversations },
    flush: (conversationId: Uuid) => void,
  ) {
    this.core = core
    this.usernames = usernames
    this.conversations = conversations
    this.flush = flush
  }

  /** null when nobody told one. */
  user(userId: Uuid): UserName | null {
    const { checked, claimed } = this.row(userId)
    if (checked) return { username: checked, isChecked: true }
    return claimed ? { username: claimed, isChecked: false } : null
  }
  /** null when it has none, or it was not told here. */
  group(conversationId: Uuid): string | null {
    return this.core.storage.transaction((tx) => groups.get(tx, conversationId))
  }

  /** Users with a name that is not checked: for `check`, sparingly. */
  unchecked(): Uuid[] {
    const rows = this.core.storage.transaction((tx) => users.scan(tx))
    return rows.filter(({ record }) => record.claimed).map(({ key }) => key)
  }

  /** Who holds this username, remembered as that user's name; null = nobody. @throws as `usernames.find`. */
  async find(username: string): Promise<Uuid | null> {
    const userId = await this.usernames.find(username)
    if (userId) this.put(userId, { ...this.row(userId), checked: username, claimed: '', refused: '' })
    return userId
  }

  /** Asks the relay about a claimed name. @returns whether it is that user's. @throws RelayError RATE_LIMITED among others. */
  async check(userId: Uuid): Promise<boolean> {
    const { claimed } = this.row(userId)
    if (!claimed) return false
    const holder = await this.usernames.find(claimed).catch((error: unknown) => {
      if (error instanceof InvalidUsername) return null
      throw error
    })
    const row = this.row(userId)
    if (row.claimed !== claimed) return false
    const isTrue = holder === userId
    this.put(userId, isTrue ? { ...row, checked: claimed, claimed: '' } : { ...row, claimed: '', refused: claimed })
    return isTrue
  }

  /**
   * Tells everybody in a conversation what it and its members are called. Sent like a message; shown to nobody as one.
   * @param groupName another name for the group; absent = the one it has. @throws OutboxFull.
   */
  tell(conversationId: Uuid, groupName?: string): void {
    this.core.storage.transaction((tx) => {
      if (groupName !== undefined)
        takeNaming(tx, conversationId, { groupName, users: [] }, this.core.account.self.userId)
      this.queue(tx, conversationId, null)
    })
    const { userId: byUserId } = this.core.account.self
    if (groupName !== undefined) this.core.events.emit('group_named', { conversationId, byUserId, groupName })
    this.flush(conversationId)
  }

  /** Tells a new device of one's own user every conversation there is, with its names. @param conversationIds as far as there is room. */
  tellOwn(deviceId: number, conversationIds: Uuid[]): void {
    for (const id of conversationIds) {
      const hasSent = this.core.storage.transaction((tx) => {
        if (!hasRoom(tx)) return false
        this.queue(tx, id, deviceId)
        return true
      })
      if (hasSent) this.flush(id)
    }
  }

  private queue(tx: Transaction, conversationId: Uuid, deviceId: number | null): void {
    const { userId: self } = this.core.account.self
    const told = users.scan(tx).map(({ key, record }) => ({ userId: key, username: record.checked || record.claimed }))
    const members = this.conversations.rosterIn(tx, conversationId)?.members
    enqueue(tx, {
      ...{ kind: 'naming', clientMessageId: uuidV7(this.core.account.now()), conversationId, resendOf: '' },
      queuedAtMs: this.core.account.now(),
      to: deviceId === null ? null : [addressOf(this.core, tx, { userId: self, deviceId })],
      body: {
        naming: {
          groupName: groups.get(tx, conversationId) ?? '',
          users: told.filter(({ userId, username }) => username && members?.has(userId)),
        },
      },
    })
  }

  private row(userId: Uuid): Row {
    return this.core.storage.transaction((tx) => users.get(tx, userId)) ?? UNKNOWN
  }
  private put(userId: Uuid, row: Row): void {
    this.core.storage.transaction((tx) => users.put(tx, userId, row))
    this.core.events.emit('user_named', { userId })
  }
}
