// One owner at a time, however many start at once.
import { createHash } from 'node:crypto'
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

test('who died while he followed a dead owner is followed like him', async () => {
  const dead = ['1 1\n', '1 2\n', '1 3\n'] as const
  const heirOf = (text: string) => `relay.pid.${createHash('sha256').update(text).digest('hex')}`
  await writeFile(join(directory, 'relay.pid'), dead[0])
  await writeFile(join(directory, heirOf(dead[0])), dead[1])
  await writeFile(join(directory, heirOf(dead[1])), dead[2])
  const release = await claimDirectory(directory)
  expect(await readdir(directory)).toEqual(['relay.pid'])
  expect(await readFile(join(directory, 'relay.pid'), 'utf8')).toMatch(new RegExp(`^${process.pid} `))
  await expect(claimDirectory(directory)).rejects.toThrow(`in use by the relay with pid ${process.pid}`)
  await release()
})
