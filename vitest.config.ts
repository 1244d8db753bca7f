// One PostgreSQL for the whole run, one database per file: see test/support/database.ts.
import { readdirSync, readFileSync } from 'node:fs'
import { configDefaults, defineConfig } from 'vitest/config'

/** Test files that say so. */
const needing = (what: RegExp): string[] =>
  readdirSync('test', { recursive: true })
    .map((name) => `test/${name}`)
    .filter((path) => path.endsWith('.test.ts') && what.test(readFileSync(path, 'utf8')))

/**
 * `npm run test:processes`: what starts a process or a terminal for nearly every line of it, too long for every run. Short forms that
 * stay: chat/talking, scenario/start (its other half is start-operator), workers, cluster and durability.
 */
export const PROCESSES = [
  ...['start', 'terminal', 'trust', 'link', 'groups', 'asking'].map((name) => `test/chat/${name}.test.ts`),
  ...[
    'test/scenario/demo.test.ts',
    'test/scenario/start-operator.test.ts',
    'test/server/postgres.test.ts',
    'test/scenario/races-hunt.test.ts',
  ],
]

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: [
      ...configDefaults.exclude,
      ...PROCESSES,
      // `npm test -- --without-redis`
      ...(process.env.SEALPOST_TEST_WITHOUT_REDIS ? needing(/support\/(redis|cluster|spread)\.ts'|HAPROXY/) : []),
    ],
    globalSetup: ['test/support/postgres.ts'],
    pool: 'forks',
    maxWorkers: 3,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 30_000,
    coverage: {
      provider: 'v8',
      include: ['proto/**/*.ts', 'keys/**/*.ts', 'server/**/*.ts', 'client/**/*.ts'],
      exclude: ['proto/generated/**', 'client/examples/**'],
      reporter: ['text-summary', 'html'],
      thresholds: { lines: 85 },
    },
  },
})
