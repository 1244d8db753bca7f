// Claims under concurrency: each one-time key leaves once, the last-resort key only when there is none (I7).
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Transaction } from '../../server/database.ts'
import { type Enrolled, openWorld, stranger, upload, type World } from './world.ts'

let world: World
beforeAll(async () => {
  world = await openWorld()
})
afterAll(() => world.close())

const LAST_RESORT = 1000
const CLAIMER = fileURLToPath(new URL('./claimer.ts', import.meta.url))
type Got = { ec: number | null; kyber: number | null }

async function claimer(userId: string, claims: number): Promise<{ go(): void; got: Promise<Got[]> }> {
  const child = spawn(process.execPath, ['--import', 'tsx', CLAIMER, world.url, userId, String(claims)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (): Promise<string> => {
    const line = await lines.next()
    if (line.done) throw new Error('the claimer ended without an answer')
    return line.value
  }
  expect(await next()).toBe('ready')
  return {
    go: () => child.stdin.write('go\n'),
    got: next().then(async (line) => {
      if (child.exitCode === null) await once(child, 'exit')
      return JSON.parse(line) as Got[]
    }),
  }
}

async function claimFromTwoProcesses(userId: string, claims: number): Promise<Got[]> {
  const both = await Promise.all([claimer(userId, claims / 2), claimer(userId, claims / 2)])
  for (const each of both) each.go()
  return (await Promise.all(both.map((each) => each.got))).flat()
}

/** Beyond the 200 an upload may leave in stock. */
async function stock(target: Enrolled, count: number): Promise<void> {
  const { device, deviceKey } = target
  const ec = device
    .makeOneTimePrekeys(count)
    .map((key) => ({ device_key: deviceKey, key_id: key.keyId, public_key: key.publicKey }))
  const kyber = device.makeKyberPrekeys(count).map((key) => ({
    ...{ device_key: deviceKey, key_id: key.keyId, public_key: key.publicKey, signature: key.signature },
    ...{ last_resort: false, created_at: new Date(0) },
  }))
  await world.sql`insert into keys.one_time_prekeys ${world.sql(ec)}`
  await world.sql`insert into keys.kyber_prekeys ${world.sql(kyber)}`
}

const ids = (count: number): number[] => Array.from({ length: count }, (_, id) => id)
const sorted = (values: (number | null)[]): (number | null)[] => values.toSorted((a, b) => a! - b!)

test('1,000 concurrent claims on 300 keys from two processes: all distinct, then the last-resort key', {
  timeout: 60_000,
}, async () => {
  const target = await world.enrol()
  await stock(target, 300)
  const got = await claimFromTwoProcesses(target.userId, 1000)
  expect(got).toHaveLength(1000)
  expect(sorted(got.map((each) => each.ec).filter((id) => id !== null))).toEqual(ids(300))
  expect(sorted(got.map((each) => each.kyber).filter((id) => id !== LAST_RESORT))).toEqual(ids(300))
  expect(got.filter((each) => each.kyber === LAST_RESORT)).toHaveLength(700)
})

test('300 concurrent claims on 300 keys from two processes: nobody gets the last-resort key', {
  timeout: 60_000,
}, async () => {
  const target = await world.enrol()
  await stock(target, 300)
  const got = await claimFromTwoProcesses(target.userId, 300)
  expect(sorted(got.map((each) => each.ec))).toEqual(ids(300))
  expect(sorted(got.map((each) => each.kyber))).toEqual(ids(300))
  expect((await world.directory.counts(target.deviceKey)).lastResort?.used).toBe(false)
})

const claim = async (target: Enrolled): Promise<Got> => {
  const [user] = await world.directory.bundles(stranger(), [{ userId: target.userId, deviceId: target.deviceId }])
  const { oneTimePrekey, kyberPrekey } = user!.devices[0]!
  return { ec: oneTimePrekey?.keyId ?? null, kyber: kyberPrekey?.keyId ?? null }
}

/** Returns once so many statements of this database wait for a lock. */
async function untilWaiting(statements: number): Promise<void> {
  for (;;) {
    const [row] = await world.sql`select count(*)::int as waiting from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'`
    if (row!.waiting >= statements) return
    await setTimeout(5)
  }
}

/** Starts `during` while a transaction that did `work` is open; ends that once `ready` is done, by default when `during` waits for it. */
async function whileOpen<T>(
  work: (tx: Transaction) => Promise<unknown>,
  end: 'commit' | 'rollback',
  during: () => Promise<T>,
  ready: () => Promise<unknown> = () => untilWaiting(1),
): Promise<T> {
  const opened = withResolvers()
  const release = withResolvers()
  const rolledBack = new Error('rolled back on purpose')
  const transaction = world.sql.begin(async (tx) => {
    await tx`set local idle_in_transaction_session_timeout = 0`
    await work(tx)
    opened.resolve()
    await release.promise
    if (end === 'rollback') throw rolledBack
  })
  transaction.catch(opened.reject)
  await opened.promise
  const result = during()
  await ready()
  release.resolve()
  await transaction.catch((error) => {
    if (error !== rolledBack) throw error
  })
  return result
}

function withResolvers(): { promise: Promise<void>; resolve: () => void; reject: (error: unknown) => void } {
  let resolve = () => {}
  let reject: (error: unknown) => void = () => {}
  const promise = new Promise<void>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

const takeOldest = (target: Enrolled) => async (tx: Transaction) => {
  for (const table of ['one_time_prekeys', 'kyber_prekeys'])
    await tx`delete from ${tx(`keys.${table}`)} where device_key = ${target.deviceKey} and key_id = 0`
}

async function withStock(count: number): Promise<Enrolled> {
  const target = await world.enrol()
  await stock(target, count)
  return target
}

test('a claim that fails gives the last key back: the next claim gets it, not the last-resort key', async () => {
  const target = await withStock(1)
  expect(await whileOpen(takeOldest(target), 'rollback', () => claim(target))).toEqual({ ec: 0, kyber: 0 })
  expect(await claim(target)).toEqual({ ec: null, kyber: LAST_RESORT })
})

test('a claim that commits took the last key: the next claim gets the last-resort key', async () => {
  const target = await withStock(1)
  expect(await whileOpen(takeOldest(target), 'commit', () => claim(target))).toEqual({ ec: null, kyber: LAST_RESORT })
})

test('a claim that waited goes on to the next key', async () => {
  const target = await withStock(2)
  expect(await whileOpen(takeOldest(target), 'commit', () => claim(target))).toEqual({ ec: 1, kyber: 1 })
})

test('claim against the same upload again: the key does not come back', async () => {
  const target = await world.enrol()
  const same = upload({
    oneTimePrekeys: target.device.makeOneTimePrekeys(2),
    oneTimeKyberPrekeys: target.device.makeKyberPrekeys(2),
  })
  await world.directory.publish(target, same)
  const lock = (tx: Transaction) =>
    tx`select from keys.devices where device_key = ${target.deviceKey} for no key update`
  let first: Got | undefined
  await whileOpen(
    lock,
    'commit',
    () => world.directory.publish(target, same),
    async () => {
      await untilWaiting(1)
      first = await claim(target)
    },
  )
  expect([first, await claim(target), await claim(target)]).toEqual([
    { ec: 0, kyber: 0 },
    { ec: 1, kyber: 1 },
    { ec: null, kyber: LAST_RESORT },
  ])
})

test('uploads again and claims, all at once: every key at most once', async () => {
  const target = await world.enrol()
  const same = upload({
    oneTimePrekeys: target.device.makeOneTimePrekeys(40),
    oneTimeKyberPrekeys: target.device.makeKyberPrekeys(40),
  })
  await world.directory.publish(target, same)
  const uploads = Array.from({ length: 20 }, () => world.directory.publish(target, same))
  const got = await Promise.all(Array.from({ length: 60 }, () => claim(target)))
  await Promise.all(uploads)
  const rest = await Promise.all(Array.from({ length: 5 }, () => claim(target)))
  expect(sorted(got.map((each) => each.ec).filter((id) => id !== null))).toEqual(ids(40))
  expect(sorted(got.map((each) => each.kyber).filter((id) => id !== LAST_RESORT))).toEqual(ids(40))
  expect(rest).toEqual(Array.from({ length: 5 }, () => ({ ec: null, kyber: LAST_RESORT })))
})

test('two uploads of one id at once: one is stored, the other is CONFLICT', async () => {
  const target = await world.enrol()
  const attempts = ids(8).map(() =>
    world.directory.publish(target, upload({ oneTimePrekeys: target.device.makeOneTimePrekeys(1, 5) })),
  )
  const outcomes = await Promise.allSettled(attempts)
  expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1)
  for (const outcome of outcomes)
    if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'CONFLICT' })
})

test('lists in opposite orders at once: no deadlock, every key once', async () => {
  const targets = await Promise.all(ids(5).map(() => withStock(20)))
  const list = targets.map((target) => ({ userId: target.userId, deviceId: 1 }))
  const got = await Promise.all(
    ids(40).map((turn) => world.directory.bundles(stranger(), turn % 2 ? list : list.toReversed())),
  )
  for (const target of targets) {
    const bundles = got.map((users) => users.find((user) => user.userId === target.userId)!.devices[0]!)
    expect(sorted(bundles.flatMap((bundle) => bundle.oneTimePrekey?.keyId ?? []))).toEqual(ids(20))
    expect(sorted(bundles.map((bundle) => bundle.kyberPrekey!.keyId)).slice(0, 20)).toEqual(ids(20))
  }
})

test('claims, replacements and removal at once: no deadlock, no error but NOT_FOUND', async () => {
  const target = await withStock(100)
  const replacing = ids(10).map((turn) =>
    world.directory.publish(
      target,
      upload({
        ...{ replace: true, signedPrekey: target.device.makeSignedPrekey(10 + turn) },
        oneTimePrekeys: target.device.makeOneTimePrekeys(10, 1000 + 100 * turn),
        oneTimeKyberPrekeys: target.device.makeKyberPrekeys(10, 2000 + 100 * turn),
      }),
    ),
  )
  const claiming = ids(60).map(() => world.directory.bundles(stranger(), [{ userId: target.userId, deviceId: '*' }]))
  const removing = world.sql.begin((tx) => world.directory.remove(tx, [target.deviceKey]))
  const outcomes = await Promise.allSettled([...replacing, ...claiming, removing])
  // A rotation that comes after a higher one is refused; an upload after the removal finds no device.
  for (const outcome of outcomes)
    if (outcome.status === 'rejected') expect(['NOT_FOUND', 'CONFLICT']).toContain(outcome.reason.code)
  const tables = ['devices', 'signed_prekeys', 'one_time_prekeys', 'kyber_prekeys', 'tombstones', 'highest_ids']
  for (const table of tables) {
    const left = await world.sql`select from ${world.sql(`keys.${table}`)} where device_key = ${target.deviceKey}`
    expect(left, table).toHaveLength(0)
  }
})
