// Builds proto/generated/ from the .proto files; `npm ci` runs it, nothing of it is committed.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const run = (tool, ...args) =>
  execFileSync(process.execPath, [`${root}node_modules/protobufjs-cli/bin/${tool}`, ...args], {
    cwd: root,
    stdio: 'inherit',
  })

mkdirSync(`${root}proto/generated`, { recursive: true })
for (const name of ['relay', 'content']) {
  const out = `proto/generated/${name}`
  // --force-number: no integer of the protocol exceeds 2^53 - 1. [C-2]
  run(
    'pbjs',
    '-t',
    'static-module',
    '-w',
    'esm',
    '-r',
    name,
    '--force-number',
    '--no-convert',
    '--no-delimited',
    '--no-typeurl',
    '--no-verify',
    '-o',
    `${out}.js`,
    `proto/${name}.proto`,
  )
  // Plain numbers also at run time, defaults included: they are made when the generated module is loaded.
  const code = readFileSync(`${root}${out}.js`, 'utf8')
  const plain = code.replace(/^import \$protobuf .*$/m, '$&\n$protobuf.util.Long = undefined;\n$protobuf.configure();')
  if (plain === code) throw new Error('the generated code imports protobufjs in a way not known here')
  writeFileSync(`${root}${out}.js`, plain)
  run('pbts', '-o', `${out}.d.ts`, `${out}.js`)
}
