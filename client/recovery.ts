// The recovery code: made here, shown to the user once, and known to the relay as a hash. Whoever has it has the user. [I-6.3]
import type { Uuid } from '../proto/ids.ts'
import { base64, bigEndian, concat, fromBase64url, utf8 } from './bytes.ts'
import type { Core } from './core.ts'
import type { Warrant } from './renewal.ts'
import { Stage } from './stage.ts'
import type { Writer } from './storage.ts'
import { Table } from './tables.ts'
import { idBytes } from './wire.ts'

const CODE_BYTES = 16
/** `self`: when the present code was made. */
const rows = new Table<{ atMs: number }>('recovery_code')

/** The relay has none any more. */
export const forgetCode = (from: Writer): void => rows.delete(from, 'self')

/** This is no recovery code: a letter is missing or wrong. Nothing was asked. */
export class InvalidRecoveryCode extends Error {}

/** The code as the relay knows it, whitespace apart. */
function readCode(text: string): string {
  const code = text.replace(/\s/g, '')
  try {
    if (fromBase64url(code).length === CODE_BYTES) return code
  } catch {
    // Said below.
  }
  throw new InvalidRecoveryCode('a recovery code has 22 letters, digits, - and _, and this is none')
}

/** Who lost every device, and what they have: the code, and their id or their username. @property name of the new device. */
export type Lost = ({ userId: Uuid } | { username: string }) & { code: string; name?: string }

/** What `Renewal.begin` takes. @throws InvalidRecoveryCode, InvalidUsername. */
export function warrantOf(
  { crypto }: Core,
  { code, name, ...who }: Lost,
): [Warrant, { name?: string; username: string }] {
  const username = 'username' in who ? who.username : ''
  const user = 'userId' in who ? { userId: who.userId } : { usernameHash: crypto.usernameHash(username) }
  return [
    { user, code: readCode(code) },
    { username, ...(name && { name }) },
  ]
}

/** Codes of the primary device. */
export class Recovery {
  private readonly core: Core

  constructor(core: Core) {
    this.core = core
  }

  /** When the code was made that is good now, as far as this device knows, Unix milliseconds; null = none: its user has no way back. */
  get madeAtMs(): number | null {
    return this.core.storage.transaction((tx) => rows.get(tx, 'self'))?.atMs ?? null
  }

  /**
   * Makes a code in the place of the former one. It is kept nowhere: show it, once, to be written down.
   * @returns 22 characters. @throws RelayError FORBIDDEN: not the primary; Unreachable and others: the former code may be void, make another.
   */
  async makeCode(): Promise<string> {
    const code = this.core.crypto.createRecoveryCode()
    await this.store(this.core.crypto.hash(utf8(code)))
    this.core.storage.transaction((tx) => rows.put(tx, 'self', { atMs: this.core.account.now() }))
    return code
  }

  /** There shall be no code. @throws RelayError. */
  removeCode(): Promise<void> {
    return this.store(null)
  }

  private async store(hash: Uint8Array | null): Promise<void> {
    const { account, crypto, storage } = this.core
    const timestampMs = account.now()
    const message = concat(
      utf8(`sealpost.v1 recovery\0${account.realm}`),
      idBytes(account.self.userId),
      hash ?? new Uint8Array(32),
      bigEndian(timestampMs, 8),
    )
    const signature = base64(crypto.sign(new Stage(storage), message))
    storage.transaction(forgetCode)
    const json = { recovery_code_hash: hash && base64(hash), timestamp_ms: timestampMs, signature }
    await account.http.call('PUT', '/v1/recovery-code', json)
  }
}
