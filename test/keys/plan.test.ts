// The claim reaches its rows through their indexes, however much other devices have in stock.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { claimStatement } from '../../keys/claim.ts'
import { openWorld, type World } from './world.ts'

let world: World
beforeAll(async () => {
  world = await openWorld()
  const { sql } = world
  await sql.begin(async (tx) => {
    await tx`insert into keys.identities select gen_random_uuid(), '\x05'::bytea || sha256(n::text::bytea) from generate_series(1, 20000) n`
    await tx`insert into keys.devices select row_number() over (), user_id, 1, 1 from keys.identities`
    await tx`insert into keys.signed_prekeys
      select device_key, 1, '\x05'::bytea || sha256(device_key::text::bytea), decode(repeat('00', 64), 'hex'), now() from keys.devices`
    await tx`insert into keys.one_time_prekeys (device_key, key_id, public_key)
      select device_key, id, decode(repeat('05', 33), 'hex') from keys.devices, generate_series(1, 50) id where device_key <= 2000`
    await tx`insert into keys.kyber_prekeys (device_key, key_id, public_key, signature, last_resort, created_at)
      select device_key, id, decode(repeat('08', 1537), 'hex') || sha256((device_key::text || id)::bytea),
        decode(repeat('00', 64), 'hex'), id = 1, now() from keys.devices, generate_series(1, 10) id where device_key <= 2000`
  })
  await sql`analyze`
})
afterAll(() => world.close())

type Node = { 'Node Type': string; 'Relation Name'?: string; 'Index Name'?: string; Plans?: Node[] }
const nodesOf = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(nodesOf)]

function expectIndexes(plan: { Plan: Node }[]): void {
  const nodes = nodesOf(plan[0]!.Plan)
  const scanned = nodes.filter((node) => node['Node Type'] === 'Seq Scan').map((node) => node['Relation Name'])
  expect(scanned).toEqual([])
  const indexes = nodes.flatMap((node) => node['Index Name'] ?? [])
  for (const index of [
    'one_time_prekeys_pkey',
    'kyber_prekeys_stock',
    'kyber_prekeys_last_resort',
    'signed_prekeys_pkey',
  ])
    expect(indexes).toContain(index)
}

test.each([1, 100])('planned for %i devices', async (count) => {
  const claims = Array.from({ length: count }, (_, at) => ({ deviceKey: at * 20 + 1, oneTime: true }))
  const statement = claimStatement(world.sql, claims, 0)
  const [row] = await world.sql`explain (format json) ${statement}`
  expectIndexes(row!['QUERY PLAN'])
})

test('planned once for all, as a prepared statement is', async () => {
  const { string } = await claimStatement(world.sql, [{ deviceKey: 1, oneTime: true }], 0).describe()
  await world.sql.begin(async (tx) => {
    await tx`set local plan_cache_mode = force_generic_plan`
    const name = `claim_${randomUUID().replaceAll('-', '')}`
    await tx.unsafe(`prepare ${name} as ${string}`)
    const [row] = await tx.unsafe(`explain (format json) execute ${name} ('{1}', '{1}', 1, now(), 2, now())`)
    expectIndexes(row!['QUERY PLAN'])
    await tx.unsafe(`deallocate ${name}`)
  })
})
