// All checks of a relay, in the order of the protocol.
import type { Check } from '../check.ts'
import type { Kit } from '../world.ts'
import { accountChecks } from './accounts.ts'
import { browserChecks } from './browsers.ts'
import { bundleChecks } from './bundles.ts'
import { chainChecks } from './chain.ts'
import { connectionChecks } from './connection.ts'
import { conversationChecks } from './conversations.ts'
import { countChecks } from './counts.ts'
import { encodingChecks } from './encodings.ts'
import { frameChecks } from './frames.ts'
import { frameOverHttpChecks } from './frames-over-http.ts'
import { httpChecks } from './http.ts'
import { linkingChecks } from './linking.ts'
import { memberChecks } from './members.ts'
import { presenceChecks } from './presence.ts'
import { provisioningChecks } from './provisioning.ts'
import { queueChecks } from './queue.ts'
import { quotaChecks } from './quota.ts'
import { rateChecks } from './rates.ts'
import { receiptChecks } from './receipts.ts'
import { recoveryChecks } from './recovery.ts'
import { scopeChecks } from './scope.ts'
import { sendChecks } from './send.ts'
import { strangerChecks } from './strangers.ts'
import { tokenChecks } from './tokens.ts'
import { uploadChecks } from './uploads.ts'
import { usernameChecks } from './usernames.ts'

export const relayChecks: readonly Check<Kit>[] = [
  ...connectionChecks,
  ...frameChecks,
  ...frameOverHttpChecks,
  ...sendChecks,
  ...scopeChecks,
  ...queueChecks,
  ...quotaChecks,
  ...rateChecks,
  ...chainChecks,
  ...memberChecks,
  ...conversationChecks,
  ...strangerChecks,
  ...presenceChecks,
  ...receiptChecks,
  ...encodingChecks,
  ...uploadChecks,
  ...countChecks,
  ...bundleChecks,
  ...accountChecks,
  ...linkingChecks,
  ...provisioningChecks,
  ...recoveryChecks,
  ...tokenChecks,
  ...usernameChecks,
  ...httpChecks,
  ...browserChecks,
]
