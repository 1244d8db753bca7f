// [U-1] to [U-4]: usernames as libsignal's hashes.
import { randomBytes } from 'node:crypto'
import { usernames } from '@signalapp/libsignal-client'
import { base64, base64url } from '../bytes.ts'
import { type Check, hold, same } from '../check.ts'
import type { Device } from '../device.ts'
import { type Answer, ok, refused } from '../http.ts'
import type { Kit } from '../world.ts'

/** A name nobody else has thought of. */
const newName = (): string => `conformance_${randomBytes(6).toString('hex')}.42`
const hashOf = (name: string): Uint8Array => usernames.hash(name)
const put = (by: Device, name: string, proof: Uint8Array = usernames.generateProof(name)): Promise<Answer> =>
  by.put('/v1/username', { username_hash: base64(hashOf(name)), proof: base64(proof) })
const find = (by: Device, name: string): Promise<Answer> => by.get(`/v1/usernames/${base64url(hashOf(name))}`)

export const usernameChecks: Check<Kit>[] = [
  {
    clauses: ['U-1', 'U-2', 'H-7'],
    title: 'a name is taken with its proof, found by its hash, and released by the next',
    async run(kit) {
      const [alice, bob] = [await kit.fresh(), await kit.fresh()]
      const [first, second] = [newName(), newName()]
      refused(await put(alice, first, usernames.generateProof(second)), 'INVALID_REQUEST', 'a proof for another name')
      refused(await put(alice, first, randomBytes(128)), 'INVALID_REQUEST', 'a proof that is none')
      refused(await find(bob, first), 'NOT_FOUND', 'a name that was not taken')
      ok(await put(alice, first), 204)
      same(ok(await find(bob, first), 200).body, { user_id: alice.userId }, 'as answer')
      refused(await put(bob, first), 'CONFLICT', 'a name that another holds')
      ok(await put(alice, second), 204)
      refused(await find(bob, first), 'NOT_FOUND', 'the former name')
      same(ok(await find(bob, second), 200).body.user_id, alice.userId, 'for the new name')
      ok(await alice.delete('/v1/username'), 204)
      refused(await find(bob, second), 'NOT_FOUND', 'a name that was given up')
      return 'taken, found, CONFLICT for another, released by a new one and by DELETE'
    },
  },
  {
    clauses: ['U-3'],
    title: 'a released name is locked to all but its former holder, who holds at most 3 locked',
    async run(kit) {
      const [alice, bob] = [await kit.fresh(), await kit.fresh()]
      const names = [newName(), newName(), newName(), newName()]
      ok(await put(alice, names[0]!), 204)
      ok(await alice.delete('/v1/username'), 204)
      refused(await put(bob, names[0]!), 'CONFLICT', 'a locked name')
      ok(await put(alice, names[0]!), 204)
      // Four names held one after the other lock three; what more is refused is refused for this, or for the rate of changes.
      for (const name of names.slice(1, 3)) ok(await put(alice, name), 204)
      let took = 3
      let last = await put(alice, names[3]!)
      while (last.status === 204 && took < 6) {
        took++
        last = await put(alice, newName())
      }
      refused(last, 'RATE_LIMITED', 'one change more')
      return `CONFLICT for others, taken back by its holder; RATE_LIMITED after ${took} names`
    },
  },
  {
    clauses: ['U-4'],
    title: 'look-ups: 20, then one every 30 s',
    async run(kit) {
      const by = await kit.fresh()
      for (let at = 0; at < 20; at++) refused(await find(by, newName()), 'NOT_FOUND', `look-up ${at + 1}`)
      const over = refused(await find(by, newName()), 'RATE_LIMITED', 'the 21st')
      const waitMs = over.body.error.retry_after_ms
      hold(waitMs > 0 && waitMs <= 31_000, 'a wait of at most 30 s', waitMs)
      return `20 answered, then RATE_LIMITED for ${waitMs} ms`
    },
  },
  {
    clauses: ['U-4'],
    title: 'changes of one’s own name: 5, then one an hour',
    async run(kit) {
      const by = await kit.fresh()
      const holder = await kit.fresh()
      const taken = newName()
      ok(await put(holder, taken), 204)
      for (let at = 0; at < 5; at++) refused(await put(by, taken), 'CONFLICT', `try ${at + 1} for a taken name`)
      const over = refused(await put(by, taken), 'RATE_LIMITED', 'the 6th')
      hold(over.body.error.retry_after_ms > 60_000, 'a wait of up to an hour', over.body.error)
      return `5 guesses answered CONFLICT, then RATE_LIMITED for ${Math.round(over.body.error.retry_after_ms / 60_000)} minutes`
    },
  },
]
