// A process that starts PostgreSQL in the directory of its first argument, says so, and waits to be killed.
import { startPostgres } from '../../server/postgres.ts'

const { url } = await startPostgres({ dataDir: process.argv[2]!, settings: { shared_buffers: '32MB' } })
process.stdout.write(`${url}\n`)
setInterval(() => {}, 1000)
