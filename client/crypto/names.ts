// Usernames as libsignal hashes and proves them. [U-1]
import { usernames } from '@signalapp/libsignal-client'
import { InvalidUsername } from '../crypto.ts'

const [NICK_MIN, NICK_MAX] = [3, 32]

function valid<T>(make: () => T): T {
  try {
    return make()
  } catch (error) {
    throw new InvalidUsername(error instanceof Error ? error.message : 'no username', { cause: error })
  }
}

/** 32 bytes. @throws InvalidUsername. */
export const usernameHash = (name: string): Uint8Array =>
  valid(() => {
    const at = name.lastIndexOf('.')
    if (at < 0) throw new Error("a username is a nick, '.' and two digits or more")
    return usernames.fromParts(name.slice(0, at), name.slice(at + 1), NICK_MIN, NICK_MAX).hash
  })

/** 128 bytes. @throws InvalidUsername. */
export const usernameProof = (name: string): Uint8Array => valid(() => usernames.generateProof(name))

/** Twenty. @throws InvalidUsername. */
export const usernameCandidates = (nick: string): string[] =>
  valid(() => usernames.generateCandidates(nick, NICK_MIN, NICK_MAX))
