// Commands an operator runs beside the relay or while it is stopped: `npm run invite`, `npm run keys:void`, `npm run tokens:rotate`.
import { openDirectory } from '../keys/directory.ts'
import { readConfig, StartError } from './config.ts'
import { openDatabase, type Sql } from './database.ts'
import { prepareDatabase } from './database-check.ts'
import { createInvitation } from './invitations.ts'
import { findPostgres, startPostgres } from './postgres.ts'
import { openSigningKeys } from './signing.ts'

/** Each takes the migrated database and says what it did; a failure leaves everything as it was. */
const COMMANDS: Record<string, (sql: Sql) => Promise<string>> = {
  invite: (sql) => createInvitation(sql, Date.now()),
  'void-keys': async (sql) => {
    const voided = await voidAfterRestore(sql)
    return `${voided} one-time prekeys are void and the epoch is new: start the relay, clients upload fresh ones`
  },
  // Running relays notice within a minute; tokens that are out stay valid until they end. [T-4]
  'rotate-tokens': async (sql) => {
    const keys = await openSigningKeys(sql, Date.now())
    return `access tokens are signed with key ${await keys.rotate(Date.now())} from now on`
  },
}

/**
 * After the database came back from a backup: keys that left after the backup look unused, so none may be handed out. [K-9]
 * Nobody may be served before it; relays that run all the same notice the new epoch and send their clients away.
 * @returns how many one-time prekeys were voided, in the transaction that changed the epoch.
 */
export async function voidAfterRestore(sql: Sql): Promise<number> {
  const directory = openDirectory({ sql, clock: Date.now })
  return sql.begin(async (tx) => {
    const voided = await directory.voidAll(tx)
    await tx`update relay_state set epoch = gen_random_uuid()`
    // What was spent after the backup looks unspent.
    await tx`delete from link_codes`
    await tx`delete from invitations where used_by is null`
    return voided
  })
}

async function main(): Promise<void> {
  const command = COMMANDS[process.argv[2] ?? '']
  if (!command) throw new StartError(`name one of: ${Object.keys(COMMANDS).join(', ')}`)
  const { databaseUrl, dataDir } = readConfig()
  const running = databaseUrl ?? (await findPostgres(dataDir))
  if (running && !databaseUrl && command === COMMANDS['void-keys']) {
    throw new StartError(
      `the relay in ${dataDir} is running: stop it first, nobody may be served before the keys are void`,
    )
  }
  const own = running ? null : await startPostgres({ dataDir })
  try {
    const url = running ?? own!.url
    await prepareDatabase(url)
    const database = openDatabase(url)
    const said = await command(database.sql).finally(() => database.close())
    process.stdout.write(`${said}\n`)
  } finally {
    await own?.stop()
  }
}

if (import.meta.filename === process.argv[1]) {
  await main().catch((error: unknown) => {
    if (!(error instanceof StartError)) throw error
    for (const line of error.message.split('\n')) process.stderr.write(`sealpost: ${line}\n`)
    process.exitCode = 1
  })
}
