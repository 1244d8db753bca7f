// Reauthenticate: a fresh token of the same device lets its connection live on. [C-6]
import { RelayError } from '../../proto/errors.ts'
import type { Caller } from '../../proto/route.ts'
import { encode } from '../codec.ts'
import type { Feature } from './feature.ts'

/** @param admit checks a token. It throws RelayError UNAUTHENTICATED. */
export const reauthenticate = (
  admit: (token: string) => Promise<{ caller: Caller; expiresAtMs: number }>,
): Feature<'reauthenticate'> => ({
  kind: 'reauthenticate',
  async handle(session, { requestId, token }) {
    const { caller, expiresAtMs } = await admit(token)
    if (caller.deviceKey !== session.caller.deviceKey)
      throw new RelayError('UNAUTHENTICATED', 'the token is for another device')
    session.expiresAtMs = expiresAtMs
    session.connection.send(encode.reauthenticated(requestId, expiresAtMs))
  },
})
