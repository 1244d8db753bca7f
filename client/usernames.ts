// The user's name, `nick.NN`: taken, given back, and looked up by its hash. The relay never sees names. [U-1]
// What was asked for is stored before it is asked, so that a lost answer leaves a question and not a wrong name.
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { base64, base64url } from './bytes.ts'
import type { Core } from './core.ts'
import { Mutex } from './mutex.ts'
import type { Reader, Writer } from './storage.ts'
import { Table } from './tables.ts'

/** @property asked a change whose outcome is not known: the name that would be held then, '' = none. */
type Row = { name: string; asked?: string }
const rows = new Table<Row>('username')

/** Notes a name that came with the account: of a linked or recovered device. '' = none. */
export const noteUsername = (to: Writer, name: string): void => rows.put(to, 'self', { name })

/** The user's own, '' = none. */
export const ownUsername = (from: Reader): string => rows.get(from, 'self')?.name ?? ''

/** A device's usernames; calls after registration. */
export class Usernames {
  private readonly core: Core
  private readonly turns = new Mutex()

  constructor(core: Core) {
    this.core = core
  }

  /** The user's own as far as this device knows, also offline; null = none. Another device of the user may have changed it. */
  get own(): string | null {
    return this.row().name || null
  }

  /** Twenty names with that nick, short numbers first; claim a few of them. @throws InvalidUsername for a nick that cannot be one. */
  candidates(nick: string): string[] {
    return this.core.crypto.usernameCandidates(nick)
  }

  /**
   * Takes the first of these names that is free; a former one is released, and locked for 30 days. [U-2] [U-3]
   * @returns the name that was taken. @throws InvalidUsername before anything is asked; RelayError CONFLICT when none is free,
   * RATE_LIMITED: the relay counts every try. [U-4]
   */
  async claim(names: string | string[]): Promise<string> {
    const hashed = [names].flat().map((name) => ({ name, username_hash: base64(this.core.crypto.usernameHash(name)) }))
    return this.turns.run(async () => {
      let refusal: unknown = new Error('no name was given')
      for (const { name, username_hash } of hashed) {
        const proof = base64(this.core.crypto.usernameProof(name))
        try {
          await this.change(name, 'PUT', { username_hash, proof })
          return name
        } catch (error) {
          if (!(error instanceof RelayError) || error.code !== 'CONFLICT') throw error
          refusal = error
        }
      }
      throw refusal
    })
  }

  /** Gives the own name back. Nobody else can take it for 30 days. [U-3] @throws RelayError. */
  release(): Promise<void> {
    return this.turns.run(() => this.change('', 'DELETE'))
  }

  /**
   * Who holds a name now; null = nobody. It is the relay's word: compare safety numbers. Keep the id and not the name,
   * which may come to mean somebody else. [U-5]
   * @throws InvalidUsername; RelayError RATE_LIMITED after 20 look-ups, then one every 30 s.
   */
  async find(name: string): Promise<Uuid | null> {
    const path = `/v1/usernames/${base64url(this.core.crypto.usernameHash(name))}`
    try {
      return (await this.core.account.http.call<{ user_id: Uuid }>('GET', path)).user_id
    } catch (error) {
      if (error instanceof RelayError && error.code === 'NOT_FOUND') return null
      throw error
    }
  }

  /** Learns what became of a change whose answer was lost; nothing to do otherwise. @throws what asking throws. */
  settle(): Promise<void> {
    return this.turns.run(async () => {
      const { name, asked } = this.row()
      if (asked === undefined) return
      // For a name given back: whether it is still held.
      const holder = await this.find(asked || name)
      const isOurs = holder === this.core.account.self.userId
      this.put({ name: asked ? (isOurs ? asked : name) : isOurs ? name : '' })
    })
  }

  private async change(asked: string, method: 'PUT' | 'DELETE', json?: Record<string, unknown>): Promise<void> {
    const { name } = this.row()
    if (asked || name) this.put({ name, asked })
    try {
      await this.core.account.http.call(method, '/v1/username', json)
    } catch (error) {
      // [E-2.3] Only a refusal says that nothing changed.
      if (error instanceof RelayError && !['UNAVAILABLE', 'INTERNAL'].includes(error.code)) this.put({ name })
      throw error
    }
    this.put({ name: asked })
  }

  private row(): Row {
    return this.core.storage.transaction((tx) => rows.get(tx, 'self')) ?? { name: '' }
  }
  private put(row: Row): void {
    this.core.storage.transaction((tx) => rows.put(tx, 'self', row))
  }
}
