// The harness of our own SDK, as the kit starts it:
//
//   npm run conformance -- --client --command "node --import tsx scripts/conformance/sdk-harness.ts"
import { serve } from './serve-sdk.ts'

serve()
