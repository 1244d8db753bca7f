// How a client keeps its published keys, and what it does when the relay was restored. [K-2.5] [K-2.7] [K-3.3] [K-6] [K-9.1]
import { randomBytes } from 'node:crypto'
import { type Check, hold, same } from '../../check.ts'
import { Person } from '../person.ts'
import type { Seen } from '../relay.ts'
import type { Stage } from '../stage.ts'

type Key = { key_id: number; public_key: string }

const uploads = (stage: Stage): Seen[] => stage.relay.asked('PUT', '/v1/keys')
const idsOf = (json: { one_time_prekeys?: Key[] }): number[] => (json.one_time_prekeys ?? []).map((each) => each.key_id)

/** The relay runs out of one-time keys, and says so. */
function drain(stage: Stage, left = 3): void {
  const { device } = stage.relay
  device.oneTime.splice(0, Math.max(0, device.oneTime.length - left))
  device.kyber.splice(0, Math.max(0, device.kyber.length - left))
}
const keysLow = (stage: Stage): void => {
  const { oneTime, kyber, lastResortUsed } = stage.relay.device
  stage.relay.say({ keysLow: { counts: { ecOneTime: oneTime.length, kyberOneTime: kyber.length, lastResortUsed } } })
}

export const upkeep: Check<Stage>[] = [
  {
    clauses: ['K-2.7', 'K-6', 'K-8.2', 'K-3.2'],
    title: 'KeysLow: it fills up, with ids above all it ever used',
    async run(stage) {
      await stage.talk()
      const highest = stage.relay.device.highest.ec
      drain(stage)
      keysLow(stage)
      const value = await stage.later(
        () => uploads(stage).find(({ json }) => idsOf(json).length > 0),
        'an upload of one-time keys',
        20_000,
      )
      const ids = idsOf(value.json)
      hold(Math.min(...ids) > highest, `ids above ${highest}`, Math.min(...ids))
      hold(stage.relay.device.oneTime.length >= 20, 'at least 20 in stock', stage.relay.device.oneTime.length)
      return `${ids.length} keys from id ${Math.min(...ids)}`
    },
  },
  {
    clauses: ['K-2.7', 'K-6', 'C-3.1'],
    title: 'Hello with little stock: it fills up',
    async run(stage) {
      await stage.talk()
      await stage.call('disconnect')
      await stage.relay.when(() => stage.relay.line === null, 'the client to disconnect')
      drain(stage, 0)
      await stage.connect()
      await stage.later(
        () => stage.relay.device.oneTime.length >= 20 && stage.relay.device.kyber.length >= 20,
        'at least 20 of each kind in stock',
        20_000,
      )
      return `${stage.relay.device.oneTime.length} EC and ${stage.relay.device.kyber.length} Kyber keys`
    },
  },
  {
    clauses: ['K-6.1', 'K-2.5'],
    title: 'a used last-resort key is replaced, and what was encrypted with the old one is still read',
    async run(stage) {
      const { relay } = stage
      const { conversation } = await stage.talk()
      const before = relay.device.lastResort?.key_id
      const late = new Person(relay)
      const room = relay.rooms.all.get(conversation)!
      drain(stage, 0)
      await late.device.meet()
      hold(relay.device.lastResortUsed, 'the last-resort key to be handed out', 'a one-time key')
      keysLow(stage)
      await stage.later(
        () => relay.device.lastResort?.key_id !== before && relay.device.oneTime.length > 0,
        'a new last-resort key',
        30_000,
      )
      // Whoever met the client before is heard in a conversation of their own.
      const own = await stage.conversation('direct', [late])
      await stage.acked()
      await late.say(own, 'from before')
      await stage.shown(own, 'from before')
      same(room.links.length, 1, 'as links of the first conversation')
      return `last-resort key ${before}, then ${relay.device.lastResort?.key_id}; a message made with ${before} was read`
    },
  },
  {
    clauses: ['K-3.3', 'K-3', 'E-2.3'],
    title: 'an upload whose answer was lost is sent again as it was',
    async run(stage) {
      const { relay } = stage
      await stage.talk()
      let lost = 0
      relay.script.answered = ({ method, path, json }, reply) => {
        if (method !== 'PUT' || path !== '/v1/keys' || idsOf(json).length === 0 || lost++ > 0) return reply
        return 'hang up'
      }
      drain(stage)
      keysLow(stage)
      await stage.later(() => uploads(stage)[0], 'an upload', 20_000)
      keysLow(stage)
      const again = await stage.pass(40_000, () => uploads(stage).length > 1)
      if (!again) {
        // At the latest the next connection finds out.
        relay.line!.close(1001)
        await stage.later(() => uploads(stage).length > 1, 'the upload again after a new connection', 90_000)
      }
      const [first, second] = uploads(stage).map(({ json }) => json.one_time_prekeys as Key[])
      same(
        second!.map((each) => [each.key_id, each.public_key]),
        first!.map((each) => [each.key_id, each.public_key]),
        'as keys of the second upload',
      )
      return `the same ${first!.length} keys${!again ? ', on the next connection' : ''}`
    },
  },
  {
    clauses: ['K-9.1', 'K-9'],
    title:
      'another epoch: fresh one-time keys above all ids, the digest checked, and lately accepted messages sent again under their ids',
    async run(stage) {
      const { relay } = stage
      const { conversation } = await stage.talk()
      const sent = await stage.say(conversation, 'before the restore')
      const highest = { ...relay.device.highest }
      const [uploaded, checked, listed] = [
        uploads(stage).length,
        relay.asked('POST', '/v1/keys/check').length,
        relay.asked('GET', '/v1/devices').length,
      ]
      relay.epoch = randomBytes(16)
      relay.device.oneTime.length = 0
      relay.device.kyber.length = 0
      relay.sent.splice(0)
      relay.line!.close(1001)
      await stage.later(
        () =>
          uploads(stage)
            .slice(uploaded)
            .some(({ json }) => idsOf(json).length > 0),
        'an upload of one-time keys',
        90_000,
      )
      const fresh = uploads(stage)
        .slice(uploaded)
        .flatMap(({ json }) => idsOf(json))
      hold(Math.min(...fresh) > highest.ec, `ids above ${highest.ec}`, Math.min(...fresh))
      await stage.later(
        () => relay.sent.some((each) => each.clientMessageId === sent.clientMessageId),
        'the message of before, under its id',
        60_000,
      )
      await stage.later(() => relay.asked('POST', '/v1/keys/check').length > checked, 'a digest check', 30_000)
      await stage.later(() => relay.asked('GET', '/v1/devices').length > listed, 'GET /v1/devices', 30_000)
      return `${fresh.length} keys from id ${Math.min(...fresh)}; digest and devices checked; the message came again`
    },
  },
  {
    clauses: ['K-7', 'K-7.1'],
    title: 'a digest it computes is that of its published keys',
    async run(stage) {
      await stage.talk()
      const asked = await stage.pass(10_000, () => stage.relay.asked('POST', '/v1/keys/check').length > 0)
      const [check] = stage.relay.asked('POST', '/v1/keys/check')
      if (!asked || !check) return 'it did not ask for a check'
      same(check.json.digest, stage.relay.directory.digest(stage.relay.device), 'as digest')
      return 'the digest is right'
    },
  },
]
