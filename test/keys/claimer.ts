// A second relay process for race.test.ts: `claimer.ts <url> <user id> <claims>`. Says ready, waits for a line, claims
// all at once, prints one JSON line of what it got.
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { openDirectory } from '../../keys/directory.ts'
import { openDatabase } from '../../server/database.ts'

const [url, userId, count] = process.argv.slice(2)
const database = openDatabase(url!, { sql: 8, writer: 1, acker: 1, reader: 1 })
const directory = openDirectory({
  sql: database.sql,
  clock: Date.now,
  budget: {
    charge: async () => 0,
    admit: async (_caller, groups) => ({
      admitted: true,
      oneTime: new Set(groups.flatMap((group) => group.deviceKeys)),
    }),
  },
})

await database.sql`select 1`
process.stdout.write('ready\n')
await once(process.stdin, 'data')
const got = await Promise.all(
  Array.from({ length: Number(count) }, async () => {
    const caller = { userId: randomUUID(), deviceId: 1, deviceKey: -1 }
    const [user] = await directory.bundles(caller, [{ userId: userId!, deviceId: 1 }])
    const { oneTimePrekey, kyberPrekey } = user!.devices[0]!
    return { ec: oneTimePrekey?.keyId ?? null, kyber: kyberPrekey?.keyId ?? null }
  }),
)
process.stdout.write(`${JSON.stringify(got)}\n`)
await database.close()
process.stdin.destroy()
