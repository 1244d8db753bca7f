// `npm run fuzz`: the same properties, many more runs.
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  root: fileURLToPath(new URL('../..', import.meta.url)),
  test: {
    include: ['test/fuzz/**/*.test.ts', 'test/**/fuzz.test.ts'],
    globalSetup: ['test/support/postgres.ts'],
    provide: { fuzzFactor: 100 },
    pool: 'forks',
    maxWorkers: 2,
    hookTimeout: 60_000,
  },
})
