// `npm run test:nodes`: the stories of one relay with every relay in them being two nodes, sender and recipient on different ones
// (../support/spread.ts). SEALPOST_TEST_NODES=3 makes it three. A short form is in `npm test`: across.test.ts.
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { notForNodes, notTold } from '../support/not-for-nodes.ts'

const literally = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

export default defineConfig({
  root: fileURLToPath(new URL('../..', import.meta.url)),
  test: {
    include: ['test/scenario/*.test.ts'],
    exclude: Object.keys(notForNodes),
    testNamePattern: new RegExp(`^(?!.*(${Object.keys(notTold).map(literally).join('|')}))`),
    globalSetup: ['test/support/postgres.ts'],
    env: { SEALPOST_TEST_NODES: process.env.SEALPOST_TEST_NODES ?? '2' },
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 30_000,
  },
})
