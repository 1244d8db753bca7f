// All scenarios for clients, in the order of the protocol.
import type { Check } from '../check.ts'
import { binding } from './scenarios/binding.ts'
import { closing } from './scenarios/closing.ts'
import { enrolling } from './scenarios/enrolling.ts'
import { linking } from './scenarios/linking.ts'
import { mismatches } from './scenarios/mismatches.ts'
import { receiving } from './scenarios/receiving.ts'
import { sending } from './scenarios/sending.ts'
import { signals } from './scenarios/signals.ts'
import { upkeep } from './scenarios/upkeep.ts'
import type { Stage } from './stage.ts'

export const scenarios: readonly Check<Stage>[] = [
  ...enrolling,
  ...closing,
  ...sending,
  ...mismatches,
  ...receiving,
  ...binding,
  ...upkeep,
  ...linking,
  ...signals,
]
