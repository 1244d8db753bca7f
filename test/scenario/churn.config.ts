// `npm run churn`: 10,000 connections come and go. The seed is in the test's name; CHURN_SEED repeats it, CHURN_CYCLES says how many.
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const { CHURN_SEED, CHURN_CYCLES = '10000' } = process.env
const seed = Number(CHURN_SEED ?? Math.floor(Math.random() * 1_000_000))

export default defineConfig({
  root: fileURLToPath(new URL('../..', import.meta.url)),
  test: {
    include: ['test/scenario/churn.test.ts'],
    globalSetup: ['test/support/postgres.ts'],
    provide: { churn: { cycles: Number(CHURN_CYCLES), seed } },
    pool: 'forks',
    reporters: ['verbose'],
    hookTimeout: 60_000,
  },
})
