// Errors as one sentence for the person in front of the screen.
import { Disconnected, InvalidUsername, OutboxFull, RelayError, Unreachable } from '../../client/index.ts'
import { safeLine } from './text.ts'
import { NAME_RULE } from './usernames.ts'

/** Something the user can put right; the message is the sentence. */
export class Refusal extends Error {}

const SENTENCES: Partial<Record<string, string>> = {
  FORBIDDEN: 'The relay does not allow that: you may not be an admin or a member here.',
  NOT_FOUND: 'There is no such thing on the relay.',
  CONFLICT: 'Somebody changed it at the same moment; try again.',
  UNAUTHENTICATED: 'The relay does not know this device.',
}

/** Whether nothing is wrong but the connection. */
export const isOfConnection = (error: unknown): boolean => error instanceof Unreachable || error instanceof Disconnected

/** What went wrong, in one line. */
export function sentenceOf(error: unknown): string {
  if (error instanceof Refusal) return error.message
  if (isOfConnection(error)) return 'The relay does not answer; this needs a connection. Ctrl+T tries again.'
  if (error instanceof OutboxFull) return 'Too many messages wait to be sent already.'
  if (error instanceof InvalidUsername) return `That cannot be a username: ${NAME_RULE}.`
  if (!(error instanceof RelayError)) return safeLine(error instanceof Error ? error.message : String(error))
  if (error.code === 'RATE_LIMITED') {
    const seconds = Math.max(1, Math.ceil(error.retryAfterMs / 1000))
    return `Too often: the relay takes that again in ${seconds} s.`
  }
  return SENTENCES[error.code] ?? `The relay says ${error.code}: ${safeLine(error.message)}`
}
