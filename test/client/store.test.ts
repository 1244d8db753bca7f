// One store, one process: whoever comes second is told so, at once, and has changed nothing. The first one's death frees it.
import { afterAll, afterEach, expect, it } from 'vitest'
import { SqliteStorage, StorageInUse } from '../../client/node.ts'
import { runScript, type Watched } from '../support/processes.ts'
import { directory } from '../support/sdk.ts'

const files = directory()
const running: Watched[] = []
afterEach(async () => {
  for (const each of running) each.kill('SIGKILL')
  await Promise.all(running.splice(0).map((each) => each.ended))
})
afterAll(() => files.end())

function holder(path: string): Watched {
  const watched = runScript('test/support/storeholder.ts', [path])
  running.push(watched)
  return watched
}
const pidIn = (storage: SqliteStorage): number =>
  storage.transaction((tx) => Number(new TextDecoder().decode(tx.get('holder', 'pid')!)))

it('a store that another process has open is refused with a clear error, and given free by kill -9', async () => {
  const path = files.path('held.db')
  const first = holder(path)
  await first.says(/holds it/)
  expect(() => new SqliteStorage(path)).toThrow(StorageInUse)
  expect(() => new SqliteStorage(path)).toThrow(/held\.db is in use by another process/)
  first.kill('SIGKILL')
  await first.ended
  const storage = new SqliteStorage(path)
  expect(pidIn(storage)).toBe(first.pid)
  storage.close()
})

it('a process that comes second ends with that error; the first one goes on and keeps what it has', async () => {
  const path = files.path('ours.db')
  const storage = new SqliteStorage(path)
  storage.transaction((tx) => tx.put('holder', 'pid', new TextEncoder().encode('1')))
  const second = holder(path)
  expect(await second.ended).toBe(3)
  expect(second.stdout()).toMatch(/^in use: .*ours\.db is in use by another process\n$/)
  expect(pidIn(storage)).toBe(1)
  storage.transaction((tx) => tx.put('holder', 'pid', new TextEncoder().encode('2')))
  expect(pidIn(storage)).toBe(2)
  storage.close()
})
