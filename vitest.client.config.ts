// `npm run test:client`: the SDK's tests, crashes at every step among them.
import { defineConfig } from 'vitest/config'
import base from './vitest.config.ts'

export default defineConfig({ ...base, test: { ...base.test, include: ['test/client/**/*.test.ts'], exclude: [] } })
