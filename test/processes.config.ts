// `npm run test:processes`: the messenger in terminals, the demo, the embedded PostgreSQL, each in every way they start and end; and a hunt for races.
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { PROCESSES } from '../vitest.config.ts'

export default defineConfig({
  root: fileURLToPath(new URL('..', import.meta.url)),
  test: {
    include: PROCESSES,
    globalSetup: ['test/support/postgres.ts'],
    pool: 'forks',
    maxWorkers: 3,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 30_000,
  },
})
