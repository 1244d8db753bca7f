// `npm run endure`: three users, six devices, 1,000 messages, ten kills of the relay. The seed is in the test's name; ENDURE_SEED repeats it.
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const seed = Number(process.env.ENDURE_SEED ?? Math.floor(Math.random() * 1_000_000))

export default defineConfig({
  root: fileURLToPath(new URL('../..', import.meta.url)),
  test: {
    include: ['test/client/endurance.test.ts'],
    globalSetup: ['test/support/postgres.ts'],
    provide: { endurance: { messages: 1000, kills: 10, breaks: 150, seed } },
    pool: 'forks',
    reporters: ['verbose'],
    hookTimeout: 60_000,
  },
})
