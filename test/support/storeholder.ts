// A process that opens a store and keeps it until it is killed: `storeholder.ts <path>`.
import { SqliteStorage, StorageInUse } from '../../client/node.ts'

try {
  const storage = new SqliteStorage(process.argv[2]!)
  storage.transaction((tx) => tx.put('holder', 'pid', new TextEncoder().encode(String(process.pid))))
  console.log('holds it')
  setInterval(() => {}, 60_000)
} catch (error) {
  console.log(error instanceof StorageInUse ? `in use: ${error.message}` : `failed: ${error}`)
  process.exitCode = 3
}
