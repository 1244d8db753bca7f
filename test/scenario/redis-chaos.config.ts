// `npm run chaos:redis`: each calamity so many times, Redis away for 30 s of the machine's time. The seed is in the test's name;
// CHAOS_SEED repeats it, CHAOS_ROUNDS and CHAOS_AWAY_MS make it longer or shorter.
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { CALAMITIES } from '../support/calamities.ts'

const { CHAOS_SEED, CHAOS_ROUNDS = '1', CHAOS_AWAY_MS = '30000' } = process.env
const seed = Number(CHAOS_SEED ?? Math.floor(Math.random() * 1_000_000))
const calamities = Array.from({ length: Number(CHAOS_ROUNDS) }, () => CALAMITIES).flat()

export default defineConfig({
  root: fileURLToPath(new URL('../..', import.meta.url)),
  test: {
    include: ['test/scenario/redis-chaos.test.ts'],
    globalSetup: ['test/support/postgres.ts'],
    provide: { redisChaos: { seed, calamities, burst: 25, awayMs: Number(CHAOS_AWAY_MS), real: true } },
    pool: 'forks',
    reporters: ['verbose'],
    hookTimeout: 60_000,
  },
})
