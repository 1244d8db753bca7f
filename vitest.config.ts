// One PostgreSQL for the whole run, one database per file: see test/support/database.ts.
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // `npm test -- --without-redis`: files of that name need Redis, HAProxy or both.
    exclude: process.env.SEALPOST_TEST_WITHOUT_REDIS
      ? ['redis', 'haproxy', 'cluster'].map((each) => `test/**/${each}*.test.ts`)
      : [],
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
