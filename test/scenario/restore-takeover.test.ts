// The database went back under nodes that hold connections (a restore, a replica that lagged): epochs are given out anew, and an old,
// high one neither keeps a device out nor displaces who came since. I6 [C-5.1] [K-9]
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import type { Sql } from '../../server/database.ts'
import { Queue } from '../../server/queue.ts'
import { deviceKeyOf } from '../support/backlog.ts'
import { Client, type Socket } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { openRig, type Rig } from '../support/rig.ts'

let relay: TestRelay
let sql: Sql
/** Two nodes, which ask the database when the test says so. */
let [one, two]: Rig[] = []
let bob: Client
let bobKey: number
let opened: Socket[]

beforeAll(async () => {
  relay = await testRelay()
  sql = relay.db.database.sql
  ;[one, two] = await Promise.all([openRig(relay.db), openRig(relay.db)])
})
afterAll(async () => {
  one?.close()
  two?.close()
  await relay?.close()
})
beforeEach(async () => {
  // A deployment that has seen some connections.
  await sql`select setval('session_epoch', nextval('session_epoch') + 1000)`
  bob = await Client.register(relay)
  bobKey = await deviceKeyOf(sql, bob)
  opened = []
})
afterEach(() => Promise.all(opened.map((each) => each.close())))

async function connect(node: Rig | undefined): Promise<{ socket: Socket; epoch: number }> {
  const { socket, session } = await node!.connect(bob)
  opened.push(socket)
  return { socket, epoch: session.epoch }
}
/** What the table says of the device. */
async function epoch(): Promise<number | null> {
  const [row] = await sql<{ epoch: number }[]>`select epoch from device_consumers where device_key = ${bobKey}`
  return row?.epoch ?? null
}
/** It forgot the last epochs, and who the consumers are. @param known the operator said so. [K-9] */
async function wentBack(to: number, known: boolean): Promise<void> {
  await sql`truncate device_consumers`
  await sql`select setval('session_epoch', ${to})`
  if (known) await sql`update relay_state set epoch = gen_random_uuid()`
}

it.each([
  ['and this is known', true],
  ['and nobody knows', false],
])('the database went back, %s: who is connected is sent away, and let in again', async (_, known) => {
  const older = await connect(one)
  await wentBack(older.epoch - 500, known)
  await one!.confirm(bob)
  const newer = await connect(one)
  expect(newer.epoch).toBeLessThan(older.epoch)
  expect(await epoch()).toBe(newer.epoch)
  expect(await older.socket.end()).toBe(1001)
  expect(older.socket.frames.some((frame) => frame.goingAway)).toBe(true)
  expect(await one!.confirm(bob)).toBe(newer.epoch)
})

it.each([
  ['before the old epoch is given out again', true, 0],
  ['after others took all epochs up to the old one', true, 1000],
  ['and nobody knows that the database went back', false, 0],
])('a node that is late displaces nobody who came since: %s', async (_, known, others) => {
  const older = await connect(one)
  await wentBack(older.epoch - 500, known)
  const newer = await connect(two)
  await sql`select setval('session_epoch', ${newer.epoch + others})`
  await one!.confirm(bob)
  expect(await two!.confirm(bob)).toBe(newer.epoch)
  expect(await older.socket.end()).toBe(1001)
  expect(await epoch()).toBe(newer.epoch)
  expect(newer.socket.closed).toBe(null)
})

it('the database goes back between question and claim: nothing is written', async () => {
  const older = await connect(one)
  const queue = new Queue(relay.db.database.reader)
  const { history } = (await queue.tails([bobKey])).get(bobKey)!
  await wentBack(older.epoch - 500, false)
  await queue.claim([{ deviceKey: bobKey, epoch: older.epoch }], history)
  expect(await epoch()).toBe(null)
  await wentBack(older.epoch, true)
  await queue.claim([{ deviceKey: bobKey, epoch: older.epoch }], history)
  expect(await epoch()).toBe(null)
  await sql`update relay_state set epoch = ${history.slice(0, 36)}`
  await queue.claim([{ deviceKey: bobKey, epoch: older.epoch }], history)
  expect(await epoch()).toBe(older.epoch)
})

it('an epoch that was never given out keeps nobody out and ends nobody', async () => {
  const only = await connect(one)
  await sql`update device_consumers set epoch = 9000000000000000 where device_key = ${bobKey}`
  expect(await one!.confirm(bob)).toBe(only.epoch)
  const newer = await connect(two)
  expect(await epoch()).toBe(newer.epoch)
  expect(await one!.confirm(bob)).toBe(null)
  expect(await only.socket.end()).toBe(4409)
})
