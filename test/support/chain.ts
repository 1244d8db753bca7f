// A chain of changes, signed or made up, without a relay.
import { createHash } from 'node:crypto'
import { IdentityKeyPair } from '@signalapp/libsignal-client'
import { libsignal } from '../../client/node.ts'
import {
  buildRoster,
  type ChangeName,
  changeMessage,
  type Link,
  type RoleName,
  type Roster,
  signedChange,
} from '../../client/roster.ts'

export const ID = '11111111-0000-4000-8000-000000000000'
export const [ALICE, BOB, CAROL, DAVE, GHOST] = ['a', 'b', 'c', 'd', 'e'].map(
  (letter) => `${letter.repeat(8)}-0000-4000-8000-000000000000`,
) as [string, string, string, string, string]
const hash = (message: Uint8Array): Uint8Array => Uint8Array.from(createHash('sha256').update(message).digest())

/** Keys by user; `known` is what the device that reads believes. */
export class Chain {
  readonly links: Link[] = []
  readonly keys = new Map([ALICE, BOB, CAROL, DAVE, GHOST].map((user) => [user, IdentityKeyPair.generate()]))
  readonly known = new Map<string, Uint8Array>()
  readonly kind: Roster['kind']
  private readonly heads: Uint8Array[] = [new Uint8Array(32)]

  constructor(kind: Roster['kind'] = 'group') {
    this.kind = kind
    for (const user of this.keys.keys()) this.learn(user)
  }

  /** The reading device believes the present key. */
  learn(user: string): void {
    this.known.set(user, this.keys.get(user)!.publicKey.serialize())
  }
  renew(user: string): void {
    this.keys.set(user, IdentityKeyPair.generate())
    this.learn(user)
  }

  /** @param options.after the revision it builds on, otherwise the last. @param options.forged nobody who could signed it. */
  add(
    actor: string,
    change: ChangeName,
    subjects: string[],
    options: { role?: RoleName; after?: number; forged?: boolean } = {},
  ): this {
    const revision = this.links.length + 1
    const previous = this.heads[options.after ?? revision - 1]!
    const nonce = globalThis.crypto.getRandomValues(new Uint8Array(16))
    const link = { revision, change, actor, subjects, role: options.role ?? null }
    const message = changeMessage(this.kind, ID, link, nonce, previous)
    const signer = options.forged ? IdentityKeyPair.generate() : this.keys.get(actor)!
    const signature = signer.privateKey.sign(Uint8Array.from(message))
    this.links.push({ ...link, signedChange: signedChange(nonce, previous, signature), verifiedUnder: null })
    this.heads.push(hash(message))
    return this
  }

  read(): Roster {
    const { isSignedBy } = libsignal()
    return buildRoster(this.kind, ID, this.links, {
      hash,
      isSignedBy,
      identityOf: (user) => this.known.get(user) ?? null,
    })
  }
}
