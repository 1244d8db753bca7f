// After the relay's database was restored from a backup: what it had accepted and may have forgotten goes out again. [K-9.1]
import type { Core } from './core.ts'
import { frameOf } from './delivery.ts'
import { allSent } from './sentlog.ts'

/** The same ids and bytes: whoever has them drops them. What the relay refuses is left: its devices are others now. @throws Disconnected. */
export async function resendAll(core: Core): Promise<void> {
  for (const row of core.storage.transaction(allSent)) await core.connection.ask(frameOf({ ...row, to: null }))
}
