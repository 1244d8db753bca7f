// The core of the SDK as one file for browsers: nothing of Node is in it. How it runs there is in browser.test.ts.
import { expect, it } from 'vitest'
import { bundle } from '../support/browser.ts'

it('bundles for browsers without anything of Node', async () => {
  const { code, sources } = await bundle('client/index.ts')
  expect(sources.filter((each) => !/^(client|proto|node_modules\/(protobufjs|long))\//.test(each))).toEqual([])
  expect(sources.filter((each) => /libsignal|sqlite|transport\/ws/.test(each))).toEqual([])
  expect(code.length).toBeLessThan(250_000)
})

it('which is not so of what Node needs', async () => {
  await expect(bundle('client/node.ts')).rejects.toThrow(/Could not resolve "(node:)?\w+"/)
})
