// One owner at a time, however many start at once.
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { claimDirectory } from '../../server/ownership.ts'
import { runScript } from '../support/processes.ts'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'sealpost-claim-'))
})
afterEach(() => rm(directory, { recursive: true, force: true }))

test('of several processes that find a dead owner at once, one gets the directory', async () => {
  await writeFile(join(directory, 'relay.pid'), '1 1\n')
  const rivals = Array.from({ length: 4 }, () => runScript('test/support/own-directory.ts', [directory]))
  await Promise.all(rivals.map((rival) => rival.says(/ready/)))
  for (const rival of rivals) rival.kill('SIGUSR2')
  await Promise.all(rivals.map((rival) => rival.says(/owner|StartError.*/)))
  const owners = rivals.filter((rival) => rival.stdout().includes('owner'))
  expect(owners).toHaveLength(1)
  expect(await readFile(join(directory, 'relay.pid'), 'utf8')).toMatch(new RegExp(`^${owners[0]!.pid} `))
  expect(await readdir(directory)).toEqual(['relay.pid'])
  for (const rival of rivals) rival.kill('SIGKILL')
  await Promise.all(rivals.map((rival) => rival.ended))
  const release = await claimDirectory(directory)
  await release()
  expect(await readdir(directory)).toEqual([])
})
