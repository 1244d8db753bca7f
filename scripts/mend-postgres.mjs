// postgres.js 3.4.9 throws out of a setImmediate, past every try, when a connection dies with something still to be written in an
// open transaction: the process ends (porsager/postgres#1154, #1208; open there as #1209). `npm ci` puts the guard in; delete this
// when a release has one.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const file = fileURLToPath(new URL('../node_modules/postgres/src/connection.js', import.meta.url))
const broken = `  function nextWrite(fn) {
    const x = socket.write(chunk, fn)`
const mended = `  function nextWrite(fn) {
    if (socket === null) {
      nextWriteTimer !== null && clearImmediate(nextWriteTimer)
      chunk = nextWriteTimer = null
      error(Errors.connection('CONNECTION_CLOSED', options, socket))
      return false
    }
    const x = socket.write(chunk, fn)`

const code = readFileSync(file, 'utf8')
if (!code.includes(mended)) {
  if (!code.includes(broken))
    throw new Error('postgres.js has changed: see whether scripts/mend-postgres.mjs is still needed')
  writeFileSync(file, code.replace(broken, mended))
}
