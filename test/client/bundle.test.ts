// The core of the SDK as one file for browsers: nothing of Node is in it.
import { fileURLToPath } from 'node:url'
import { build } from 'vite'
import { expect, it } from 'vitest'

it('bundles for browsers without anything of Node', async () => {
  const entry = fileURLToPath(new URL('../../client/index.ts', import.meta.url))
  const lib = { entry, formats: ['es' as const], fileName: 'sealpost' }
  const result = await build({
    ...{ configFile: false, logLevel: 'silent', root: fileURLToPath(new URL('../..', import.meta.url)) },
    build: { lib, write: false, minify: true, rollupOptions: { external: [/^node:/] } },
  })
  const [output] = result as { output: { code: string; imports: string[] }[] }[]
  const [chunk] = output!.output
  expect(chunk!.imports).toEqual([])
  expect(chunk!.code).not.toMatch(/libsignal|sqlcipher|require\(/)
  expect(chunk!.code.length).toBeLessThan(250_000)
})
