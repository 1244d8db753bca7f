// DEVICE_MISMATCH repaired: each kind by itself, in bounded rounds, never at the price of a session that works.

import { copyFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Core } from '../../client/core.ts'
import { noteOffer } from '../../client/identities.ts'
import type { Device } from '../../client/index.ts'
import { decide, judge, outsidersOf, repairOf } from '../../client/mismatch.ts'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes } from '../../proto/ids.ts'
import { Client } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, directory, joined, linked, live, quiet, say, shown, texts, until } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

let relay: TestRelay
const files = directory()
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(async () => {
  await relay.close()
  files.end()
})

const stockOf = async (it: Device, deviceId: number): Promise<number> => {
  const [row] = await relay.db.database.sql<[{ n: number }]>`select count(*) as n from keys.one_time_prekeys k
    join devices d using (device_key) where d.user_id = ${it.userId} and d.device_id = ${deviceId}`
  return row.n
}
const bye = (...all: Device[]) => Promise.all(all.map((each) => each.close()))

async function couple() {
  const wire = new Tamper()
  const [alice, bob] = [await joined(relay, { transport: wire }), await joined(relay)]
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'hello')
  await shown(bob, conversation, 'hello')
  await say(bob, conversation, 'hello yourself')
  await shown(alice, conversation, 'hello yourself')
  return { alice, bob, conversation, wire }
}

describe('decisions', () => {
  const address = { userId: 'u', deviceId: 1, registrationId: 7 }
  const facts = { isInRoster: true, session: { registrationId: 7 }, withheldLately: null }

  it('a usable session is used, and no key is spent', () => {
    expect(decide(address, facts)).toEqual({ do: 'encrypt' })
    expect(decide(address, { ...facts, session: null })).toEqual({ do: 'fetch' })
    expect(decide(address, { ...facts, session: { registrationId: 8 } })).toEqual({ do: 'fetch' })
    expect(decide(address, { ...facts, isInRoster: false })).toEqual({ do: 'withhold', reason: 'not_in_roster' })
  })

  it('a session is given up only if the device really has another registration id', () => {
    const key = { keyId: 1, publicKey: new Uint8Array(33), signature: new Uint8Array(64) }
    const keys = { identityKey: key.publicKey, signed: key, oneTime: null, kyber: key }
    const bundle = { deviceId: 1, registrationId: 8, ...keys }
    expect(judge({ registrationId: 7 }, bundle)).toBe('rebuild')
    expect(judge({ registrationId: 8 }, bundle)).toBe('keep')
    expect(judge({ registrationId: 7 }, null)).toBe('keep')
    expect(judge(null, null)).toBe('incompatible')
    expect(judge(null, { ...bundle, kyber: null })).toBe('incompatible')
  })

  it('only what the relay names is touched, and the sending device is never addressed', () => {
    const sent = [1, 2, 3].map((deviceId) => ({
      ...address,
      deviceId,
      type: 2,
      content: Uint8Array.of(deviceId),
      withheld: null,
    }))
    const mismatch = {
      missing: [
        { ...address, deviceId: 4 },
        { ...address, userId: 'me', deviceId: 1 },
      ],
      extra: [{ ...address, deviceId: 2 }],
      stale: [{ ...address, deviceId: 3, registrationId: 9 }],
    }
    const repair = repairOf(sent, mismatch, { userId: 'me', deviceId: 1 }, false)
    expect(repair.kept).toEqual([sent[0]])
    expect(repair.wanted.map(({ deviceId }) => deviceId)).toEqual([4, 3])
    expect(
      repairOf(sent, mismatch, { userId: 'me', deviceId: 1 }, true).wanted.map(({ deviceId }) => deviceId),
    ).toEqual([3])
  })

  it('who is outside has every addressed device extra, and none missing or stale', () => {
    const [one, two, other] = [address, { ...address, deviceId: 2 }, { ...address, userId: 'other' }]
    const none = { missing: [], extra: [], stale: [] }
    expect(outsidersOf([one, two, other], { ...none, extra: [one, two] })).toEqual(new Set(['u']))
    expect(outsidersOf([one, two, other], { ...none, extra: [two] })).toEqual(new Set())
    // Began anew: the old device is gone, not outside.
    expect(outsidersOf([one, other], { ...none, extra: [one], missing: [two] })).toEqual(new Set())
    expect(outsidersOf([one, two], { ...none, extra: [one], stale: [two] })).toEqual(new Set())
  })
})

it('missing: a new device is met, and the sessions with the others stay', async () => {
  const { alice, bob, conversation } = await couple()
  const before = await stockOf(bob, 1)
  const laptop = await linked(bob, relay)
  await say(alice, conversation, 'to both')
  for (const each of [bob, laptop]) await shown(each, conversation, 'to both')
  expect(await stockOf(bob, 1)).toBe(before)
  await bye(alice, bob, laptop)
})

it('extra: a device that is gone is dropped', async () => {
  const { alice, bob, conversation } = await couple()
  const laptop = await linked(bob, relay)
  await say(alice, conversation, 'to both')
  await shown(laptop, conversation, 'to both')
  await bob.unlink(laptop.deviceId)
  await say(alice, conversation, 'to one')
  await shown(bob, conversation, 'to one')
  laptop.disconnect()
  await bye(alice, bob)
})

it('stale: a device that lost its store and started over is met anew, and its old copy says so', async () => {
  const { alice, bob: first } = await couple()
  await first.close()
  const bob = await joined(relay, { storage: files.sqlite('old.db') })
  const conversation = await alice.conversations.direct(bob.userId)
  await say(alice, conversation, 'one')
  await shown(bob, conversation, 'one')
  await say(bob, conversation, 'two')
  await quiet(bob)
  await bob.close()
  copyFileSync(files.path('old.db'), files.path('copy.db'))
  // The original lives on: its keys run low and it makes new ones. Then the backup comes back.
  await relay.db.database
    .sql`delete from keys.one_time_prekeys where device_key in (select device_key from devices where user_id = ${bob.userId})`
  const original = await live(device(relay, { storage: files.sqlite('old.db') }))
  await quiet(original)
  await say(original, conversation, 'three')
  await original.close()
  const restored = device(relay, { storage: files.sqlite('copy.db') })
  const told = until(restored, 'problem', ({ what }) => what === 'rewound')
  await live(restored)
  await told
  await quiet(restored)
  await say(alice, conversation, 'welcome back')
  await shown(restored, conversation, 'welcome back')
  await say(restored, conversation, 'I lost some')
  await shown(alice, conversation, 'I lost some')
  await restored.close()
  // It started over once, and is a device like any other now.
  const again = device(relay, { storage: files.sqlite('copy.db') })
  const problems: string[] = []
  again.on('problem', ({ what }) => problems.push(what))
  await live(again)
  await quiet(again)
  await say(alice, conversation, 'and now?')
  await shown(again, conversation, 'and now?')
  expect(problems).toEqual([])
  await bye(alice, again)
})

it('stale by the relay alone: the session stays, the contradiction is told', async () => {
  const { alice, bob, conversation, wire } = await couple()
  const { ErrorCode } = sealpost.v1
  const before = alice.safetyNumber(bob.userId)
  let lies = 1
  wire.frames = (frame) => {
    if (!frame.messageAccepted || lies-- <= 0) return [frame]
    const stale = [{ userId: uuidToBytes(bob.userId), deviceId: 1, registrationId: 16_000 }]
    const error = { code: ErrorCode.ERROR_CODE_DEVICE_MISMATCH, message: '', deviceMismatch: { stale } }
    return [sealpost.v1.ServerFrame.create({ requestId: frame.requestId, error })]
  }
  const told = until(alice, 'problem', ({ what }) => what === 'contradiction')
  await say(alice, conversation, 'still here?')
  await told
  await shown(bob, conversation, 'still here?')
  expect(texts(bob, conversation).filter((text) => text === 'still here?')).toHaveLength(1)
  expect(alice.safetyNumber(bob.userId)).toBe(before)
  await bye(alice, bob)
})

it('a relay that always finds a mismatch: given up after five rounds, and a retry works once it is over', async () => {
  const { alice, bob, conversation, wire } = await couple()
  wire.frames = (frame) => {
    if (!frame.messageAccepted) return [frame]
    const extra = [{ userId: uuidToBytes(bob.userId), deviceId: 99, registrationId: 1 }]
    const error = { code: sealpost.v1.ErrorCode.ERROR_CODE_DEVICE_MISMATCH, message: '', deviceMismatch: { extra } }
    return [sealpost.v1.ServerFrame.create({ requestId: frame.requestId, error })]
  }
  const failed = await say(alice, conversation, 'round and round', 'failed')
  expect(failed.failure).toBe('devices_unsettled')
  wire.frames = null
  const sent = until(alice, 'message_changed', ({ state }) => state === 'sent')
  alice.retry(failed.id)
  await sent
  await shown(bob, conversation, 'round and round')
  await quiet(bob)
  expect(texts(bob, conversation).filter((text) => text === 'round and round')).toHaveLength(1)
  await bye(alice, bob)
})

it('no Kyber key: the device is told that a message exists, and nobody is blocked', async () => {
  const [alice, old] = [await joined(relay), await Client.register(relay, { kyber: false })]
  const conversation = await alice.conversations.direct(old.userId)
  await say(alice, conversation, 'can you read this?')
  const socket = await old.connect()
  const withheld = (await socket.drain())
    .filter(({ ciphertext }) => ciphertext)
    .map(({ ciphertext }) => ciphertext!.withheld)
  expect(withheld).toEqual([sealpost.v1.Withheld.WITHHELD_NO_COMPATIBLE_KEYS])
  await socket.close()
  await alice.close()
})

it('only the key that was compared is accepted: another one that comes meanwhile is offered anew', async () => {
  const { alice, bob, conversation, wire } = await couple()
  const strangers = [await Client.register(relay), await Client.register(relay)].map(({ device }) => device.identityKey)
  const { core } = alice as unknown as { core: Core }
  const offer = (identityKey: Uint8Array) => core.storage.transaction((tx) => noteOffer(tx, bob.userId, identityKey))
  offer(strangers[0]!)
  // While the device asks for what it needs to accept the one, the relay hands out the other.
  wire.answers = (request, answer) => {
    if (request.url.includes(conversation)) offer(strangers[1]!)
    return answer
  }
  const before = alice.safetyNumber(bob.userId)
  await expect(alice.acceptIdentity(bob.userId)).rejects.toThrow('compare that one')
  expect(alice.safetyNumber(bob.userId)).toBe(before)
  expect(alice.offeredIdentity(bob.userId)).toEqual(Uint8Array.from(strangers[1]!))
  await bye(alice, bob)
})

it('a ghost: whom the relay delivers to without a member’s word gets nothing, and is shown', async () => {
  const [alice, bob, carol] = [await joined(relay), await joined(relay), await joined(relay)]
  const mallory = await joined(relay)
  const group = await alice.conversations.group([bob.userId, carol.userId])
  await say(alice, group, 'before')
  await shown(bob, group, 'before')
  const unsigned = alice as unknown as { core: { account: { http: { call(...args: unknown[]): Promise<unknown> } } } }
  await unsigned.core.account.http.call('POST', `/v1/conversations/${group}/members`, { user_ids: [mallory.userId] })

  const seen = until(bob, 'ghost', ({ userId }) => userId === mallory.userId)
  await say(bob, group, 'who is here?')
  await seen
  await shown(alice, group, 'who is here?')
  await quiet(mallory)
  expect(texts(mallory, group)).not.toContain('who is here?')
  expect(bob.conversations.get(group)).toMatchObject({ ghosts: [mallory.userId] })
  expect(bob.conversations.get(group)!.members.map(({ userId }) => userId)).not.toContain(mallory.userId)
  // And what the ghost writes is not shown.
  const caught = until(bob, 'quarantined')
  mallory.send(group, { text: 'hello from nowhere' })
  await caught
  expect(texts(bob, group)).not.toContain('hello from nowhere')
  await bye(alice, bob, carol, mallory)
})

it('an identity change is surfaced, nothing is encrypted to it, and accepting it goes on', async () => {
  const { alice, bob, conversation, wire } = await couple()
  const laptop = await linked(bob, relay)
  // The relay hands out a stranger's keys as those of Bob's new device.
  const { device: stranger } = await Client.register(relay)
  const bundle = { signed: stranger.makeSignedPrekey(9), kyber: stranger.makeLastResort(9) }
  const json = (key: { keyId: number; publicKey: Uint8Array; signature?: Uint8Array }) => ({
    ...{ key_id: key.keyId, public_key: Buffer.from(key.publicKey).toString('base64') },
    signature: Buffer.from(key.signature ?? []).toString('base64'),
  })
  wire.answers = (request, answer) => {
    if (!request.url.endsWith('/v1/keys/bundles')) return answer
    const body = JSON.parse(answer.body)
    for (const each of body.bundles) {
      each.identity_key = Buffer.from(stranger.identityKey).toString('base64')
      for (const one of each.devices) {
        Object.assign(one, {
          signed_prekey: json(bundle.signed),
          kyber_prekey: json(bundle.kyber),
          one_time_prekey: null,
        })
      }
    }
    return { ...answer, body: JSON.stringify(body) }
  }
  const told = until(alice, 'identity_changed', ({ userId }) => userId === bob.userId)
  const withheld = until(laptop, 'message', (message) => message.withheld)
  const before = alice.safetyNumber(bob.userId)
  await say(alice, conversation, 'only to the one I know')
  expect((await told).offered).toEqual(Uint8Array.from(stranger.identityKey))
  await shown(bob, conversation, 'only to the one I know')
  await withheld
  expect(texts(laptop, conversation)).toEqual(['(withheld)'])
  expect(alice.safetyNumber(bob.userId)).toBe(before)

  // The user insists: then the relay is honest again, and the real key is a change in turn.
  await alice.acceptIdentity(bob.userId)
  wire.answers = null
  const again = until(alice, 'identity_changed', ({ userId }) => userId === bob.userId)
  await say(alice, conversation, 'to nobody')
  await again
  await alice.acceptIdentity(bob.userId)
  await say(alice, conversation, 'to both')
  for (const each of [bob, laptop]) await shown(each, conversation, 'to both')
  expect(texts(bob, conversation)).not.toContain('to nobody')
  await bye(alice, bob, laptop)
})

describe('missing: a member whom the chain has and no event told of yet', () => {
  async function added() {
    const wire = new Tamper()
    const [alice, bob, carol] = [await joined(relay), await joined(relay, { transport: wire }), await joined(relay)]
    const id = await alice.conversations.group([bob.userId, carol.userId])
    await say(alice, id, 'hello')
    await shown(bob, id, 'hello')
    await say(bob, id, 'hello yourself')
    const dave = await joined(relay)
    wire.frames = (frame) => (frame.envelope?.systemEvent?.conversationChanged ? [] : [frame])
    await alice.conversations.addMembers(id, [dave.userId])
    return { alice, bob, carol, dave, id, wire }
  }

  it('is written to like everybody', async () => {
    const { alice, bob, carol, dave, id } = await added()
    const ghosts: string[] = []
    bob.on('ghost', ({ userId }) => ghosts.push(userId))
    await say(bob, id, 'to all four')
    await shown(dave, id, 'to all four')
    expect([ghosts, bob.conversations.get(id)!.ghosts, bob.conversations.get(id)!.members.length]).toEqual([[], [], 4])
    await bye(alice, bob, carol, dave)
  })

  it('is no ghost any more once the chain has him', async () => {
    const { alice, bob, carol, dave, id, wire } = await added()
    wire.answers = (request, answer) => {
      if (!request.url.includes(`/v1/conversations/${id}?`)) return answer
      return { ...answer, body: JSON.stringify({ ...JSON.parse(answer.body), changes: [] }) }
    }
    const ghost = until(bob, 'ghost')
    await say(bob, id, 'to three')
    expect([(await ghost).userId, bob.conversations.get(id)!.ghosts]).toEqual([dave.userId, [dave.userId]])
    wire.answers = null
    await bob.conversations.settle(id)
    expect(bob.conversations.get(id)!.ghosts).toEqual([])
    await say(bob, id, 'to four')
    await shown(dave, id, 'to four')
    await bye(alice, bob, carol, dave)
  })
})
