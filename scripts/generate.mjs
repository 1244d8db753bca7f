// Builds proto/generated/ from the .proto files; `npm ci` runs it, nothing of it is committed.
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const run = (tool, ...args) =>
  execFileSync(process.execPath, [`${root}node_modules/protobufjs-cli/bin/${tool}`, ...args], { cwd: root, stdio: 'inherit' })

mkdirSync(`${root}proto/generated`, { recursive: true })
for (const name of ['relay', 'content']) {
  const out = `proto/generated/${name}`
  // --force-number: no integer of the protocol exceeds 2^53 - 1. [C-2]
  run('pbjs', '-t', 'static-module', '-w', 'esm', '-r', name, '--force-number', '--no-convert', '--no-delimited', '--no-typeurl', '--no-verify', '-o', `${out}.js`, `proto/${name}.proto`)
  run('pbts', '-o', `${out}.d.ts`, `${out}.js`)
}
