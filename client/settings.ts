// What a user shows of themselves to others, kept by the relay for all their devices. [H-10]
import type { Account } from './account.ts'

/** readReceipts off: nobody is told what was read, and one tells nobody. presence off: everybody is offline, in both directions. [G-2.3] [G-4.3] */
export type Settings = { readReceipts: boolean; presence: boolean }

type Json = { read_receipts: boolean; presence: boolean }

const readSettings = (json: Json): Settings => ({ readReceipts: json.read_receipts, presence: json.presence })

/** As the relay has them. @throws RelayError, Unreachable. */
export const fetchSettings = async (account: Account): Promise<Settings> =>
  readSettings(await account.http.call<Json>('GET', '/v1/settings'))

/** Changes what is given. @returns all of them. @throws RelayError, Unreachable. */
export async function changeSettings(account: Account, change: Partial<Settings>): Promise<Settings> {
  const json = {
    ...(change.readReceipts !== undefined && { read_receipts: change.readReceipts }),
    ...(change.presence !== undefined && { presence: change.presence }),
  }
  return readSettings(await account.http.call<Json>('PATCH', '/v1/settings', json))
}
