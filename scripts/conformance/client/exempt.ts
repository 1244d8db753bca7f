// Clauses for clients that no scenario names, and why; and clauses for nobody.
import type { Exempt } from '../accounting.ts'

const unseen = (reason: string): Exempt => ({ verdict: 'unseen', reason })

const PERSON = 'what a person is shown or asked is not in the control protocol'

export const clientExempt: Record<string, Exempt> = {
  'C-5.3': unseen('allowed, never owed'),
  'Q-7.1': unseen('how much lies unsent in a buffer is not told'),
  'V-2.4': unseen(PERSON),
  'V-3.6': unseen('names are not in the control protocol'),
  'G-1.2': unseen('what a person types is not in the control protocol'),
  'K-4.3': unseen('no request makes a device without a signed prekey'),
  'K-7.2': unseen('says what the digest is not'),
  'K-9.2': unseen(PERSON),
  'I-1.4': unseen('what a relay counts by address is not the client’s'),
  'I-4.4': unseen('needs an outside issuer’s token'),
  'T-5': unseen('needs an outside issuer’s token'),
  'P-6': unseen(PERSON),
  'P-7': unseen(PERSON),
}
