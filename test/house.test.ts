// The tree keeps the house rules, and each rule notices when it is broken.
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import {
  cycles,
  emptyNames,
  environmentReaders,
  importsOf,
  longFiles,
  nodeImports,
  type Sources,
  undocumented,
  unopened,
  wrongDirections,
  wrongOwners,
} from './support/house.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

async function readTree(): Promise<Sources> {
  const sources: Sources = new Map()
  for (const area of ['proto', 'keys', 'server', 'client', 'scripts', 'test']) {
    const names = await readdir(ROOT + area, { recursive: true }).catch(() => [])
    for (const name of names) {
      const path = `${area}/${name}`
      if (/\.(ts|tsx|mjs)$/.test(path) && !path.startsWith('proto/generated/')) {
        sources.set(path, await readFile(ROOT + path, 'utf8'))
      }
    }
  }
  return sources
}

const tree = await readTree()

test('there is a tree to check', () => {
  expect(tree.size).toBeGreaterThan(30)
  expect(importsOf('server/migrate.ts', tree.get('server/migrate.ts')!).map(({ to }) => to)).toContain(
    'server/database.ts',
  )
})

const made = (files: Record<string, string>): Sources => new Map(Object.entries(files))

describe.each([
  {
    rule: 'server → keys → proto, client → proto',
    check: wrongDirections,
    good: {
      'server/a.ts': "import '../keys/b.ts'\nimport '../proto/c.ts'",
      'keys/b.ts': "import type { Sql } from '../server/database.ts'\nimport { type Sql } from '../server/database.ts'",
      'test/d.ts': "import '../server/a.ts'",
    },
    bad: {
      'keys/b.ts':
        "import '../server/a.ts'\nimport { Sql } from '../server/database.ts'\nexport * from '../server/e.ts'",
      'proto/c.ts': "const late = () => import('../keys/b.ts')",
      'client/d.ts': "import type { X } from '../server/a.ts'",
      'server/a.ts': "import '../test/support/x.ts'",
    },
    complaints: 6,
  },
  {
    rule: 'one library, one file',
    check: wrongOwners,
    good: {
      'server/database.ts': "import postgres from 'postgres'",
      'keys/store.ts': "import type postgres from 'postgres'",
      'test/a.ts': "import postgres from 'postgres'",
      'server/http/a.ts': "import { z } from 'zod'",
    },
    bad: {
      'keys/store.ts': "import postgres from 'postgres'",
      'server/a.ts': "import { usernames } from '@signalapp/libsignal-client'\nimport { z } from 'zod'",
      'server/b.ts': "import * as $root from '../proto/generated/relay.js'\nimport 'pino/file.js'",
      'client/send.ts':
        "import '@signalapp/libsignal-client'\nimport '@signalapp/sqlcipher'\nimport '../proto/generated/relay.js'",
    },
    complaints: 8,
  },
  {
    rule: 'the core of the SDK needs nothing of Node',
    check: nodeImports,
    good: {
      'client/node.ts': "export * from './crypto/libsignal.ts'",
      'client/crypto/libsignal.ts': "import 'node:crypto'",
      'client/device.ts': "import './send.ts'\nimport '../proto/ids.ts'",
      'server/a.ts': "import 'node:net'",
    },
    bad: {
      'client/send.ts': "import 'node:crypto'\nimport './storage/sqlite.ts'",
      'client/index.ts': "export * from './crypto/libsignal.ts'\nexport * from './transport/ws.ts'",
    },
    complaints: 4,
  },
  {
    rule: 'no cycles',
    check: cycles,
    good: {
      'server/a.ts': "import './b.ts'\nimport './c.ts'",
      'server/b.ts': "import './c.ts'",
      'server/c.ts': "import type { A } from './a.ts'",
    },
    bad: {
      'server/a.ts': "import './b.ts'",
      'server/b.ts': "import './c.ts'",
      'server/c.ts': "import { a } from './a.ts'",
    },
    complaints: 1,
  },
  {
    rule: 'no names that say nothing',
    check: emptyNames,
    good: { 'server/mailbox.ts': '/** X. */\nexport const commonality = 1' },
    bad: {
      'server/utils.ts': '',
      'server/session-manager.ts': '',
      'keys/helpers/a.ts': '',
      'server/a.ts': 'export class KeyService {}\nexport const dateHelper = 1',
    },
    complaints: 5,
  },
  {
    rule: 'no file above 350 lines',
    check: longFiles,
    good: { 'server/a.ts': 'x\n'.repeat(350) },
    bad: { 'server/a.ts': 'x\n'.repeat(351), 'test/b.ts': 'x\n'.repeat(400) },
    complaints: 2,
  },
  {
    rule: 'process.env in server/config.ts only',
    check: environmentReaders,
    good: { 'server/config.ts': 'process.env', 'test/a.ts': 'process.env', 'scripts/a.ts': 'process.env' },
    bad: { 'server/a.ts': 'process.env.PORT', 'keys/b.ts': "import { env } from 'node:process'" },
    complaints: 2,
  },
  {
    rule: 'every file opens with what lives in it',
    check: unopened,
    good: {
      'server/a.ts': '// What lives here.\nimport "x"',
      'scripts/b.ts': '#!/usr/bin/env node\n// What it does.\n',
    },
    bad: { 'server/a.ts': 'import "x"\n// What lives here.', 'test/b.ts': '//\n' },
    complaints: 2,
  },
  {
    rule: 'every export of server, keys and proto has a docstring',
    check: undocumented,
    good: {
      'server/a.ts':
        '/** Both. */\nexport const A = 1\nexport const B = 2\n\n/** F. */\nexport function f() {}\nconst own = 1',
      'keys/d.ts': 'export type D = {\n  /** Unix milliseconds. */\n  at: number\n}',
      'test/b.ts': 'export const A = 1',
    },
    bad: {
      'server/a.ts': '/** A. */\nexport const A = 1\n\nexport const B = 2',
      'keys/b.ts': '// Not a docstring.\nexport function f() {}\nexport type T = 1',
      'proto/c.ts': 'export default class {}\n\nexport type E = { at: number }',
    },
    complaints: 5,
  },
])('$rule', ({ check, good, bad, complaints }) => {
  test('holds in this tree', () => {
    expect(check(tree)).toEqual([])
  })

  test('is checked', () => {
    expect(check(made(good as Record<string, string>))).toEqual([])
    expect(check(made(bad as Record<string, string>))).toHaveLength(complaints)
  })
})
