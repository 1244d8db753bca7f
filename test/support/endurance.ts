// Three users with two devices each talk in a group while the relay is killed with -9 and started again, connections break in every
// way there is, and devices are closed and opened: a course that a seed repeats, as far as processes can be repeated.
import { type Device, MemoryStorage, type Message, type Storage } from '../../client/index.ts'
import { seeded } from './chance.ts'
import type { TestDatabase } from './database.ts'
import { type KillableRelay, startKillable } from './killable.ts'
import { until } from './processes.ts'
import { device, directory, joined, linked } from './sdk.ts'
import { Tamper } from './tamper.ts'

/** How often the relay is killed, and how often one device's connection breaks. */
export type Course = { messages: number; kills: number; breaks: number; seed: number }

/** What one device showed. */
export type Shown = {
  name: string
  /** As its lists have it, in order. */
  listed: Message[]
  /** Texts as they were told to the app. */
  told: string[]
}

/** @property said texts in order, by the device's name. */
export type Outcome = { shown: Shown[]; said: Map<string, string[]> }

/** abrupt: 1006. away: the relay says goodbye. hole: nothing gets through and nobody says so. off: by the app. reopened: closed, and another process. */
const BREAKS = ['abrupt', 'away', 'hole', 'off', 'reopened'] as const

class Member {
  readonly name: string
  readonly wire = new Tamper()
  readonly told: string[] = []
  device!: Device
  group = ''
  private readonly storage: () => Storage
  private readonly listeners = new Set<() => void>()

  /** @param storage opens it; called again when the device is opened again. */
  constructor(name: string, storage: () => Storage, host: () => string, url: string) {
    this.name = name
    this.storage = storage
    // The relay comes back on another port each time; the device knows one address.
    this.wire.route = (to) => to.replace(new URL(url).host, host())
  }

  options() {
    return { transport: this.wire, storage: this.storage() }
  }

  watch(it: Device): void {
    this.device = it
    const changed = () => {
      for (const tell of this.listeners) tell()
    }
    it.on('message', ({ body }) => {
      this.told.push(body.text ?? '(nothing)')
      changed()
    })
    it.on('message_changed', changed)
    it.on('state', changed)
  }

  listed(): Message[] {
    return this.device.messages(this.group, { limit: 100_000 }).map(({ message }) => message)
  }

  /** Resolves once it holds; looked at whenever the device tells anything. The device wants its connection meanwhile. */
  once(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (holds()) {
          this.listeners.delete(look)
          resolve()
        } else if (this.device.state.name === 'offline') this.device.retryNow()
        else if (this.device.state.name === 'closed') this.device.connect()
      }
      this.listeners.add(look)
      look()
    })
  }

  async break(how: (typeof BREAKS)[number], relay: Pick<KillableRelay, 'url' | 'realm'>): Promise<void> {
    if (how === 'abrupt') this.wire.cut(1006)
    else if (how === 'away') this.wire.cut(1001)
    else if (how === 'off') this.device.disconnect()
    else if (how === 'hole' && this.device.state.name === 'live') {
      this.wire.hole = true
      void this.device.once('state').then(() => {
        this.wire.hole = false
      })
    } else if (how === 'reopened') {
      await this.device.close()
      this.watch(device(relay, this.options()))
      this.device.connect()
    }
  }
}

/** Runs the course to its end. @throws when a device ends for good; otherwise it takes as long as it takes. */
export async function endure(db: TestDatabase, course: Course): Promise<Outcome> {
  const chance = seeded(course.seed)
  const files = directory()
  let relay = await startKillable(db)
  const known = { url: relay.url, realm: relay.realm }
  const members = await gather(() => new URL(relay.url).host, known, files.sqlite)
  const said = new Map<string, string[]>(members.map(({ name }) => [name, []]))
  const kills = chance.places(course.kills, 10, course.messages - 5)
  const breakages = chance.places(course.breaks, 5, course.messages - 5)
  let restart = Promise.resolve()
  try {
    for (let i = 0; i < course.messages; i++) {
      const member = chance.of(members)
      const texts = said.get(member.name)!
      const text = `${member.name} says ${texts.length}`
      texts.push(text)
      const { id } = member.device.send(member.group, { text })
      if (kills.has(i)) {
        await restart
        await relay.kill()
        restart = startKillable(db).then((next) => {
          relay = next
          for (const each of members) each.device.retryNow()
        })
      }
      if (breakages.has(i)) {
        const how = chance.of(BREAKS)
        await chance.of(members).break(how, known)
      }
      // Most are left to themselves; now and then somebody waits for the sign that it left.
      if (chance.next() < 0.15) await member.once(() => hasLeft(member, id))
    }
    await restart
    await Promise.all(members.map((each) => each.once(() => isComplete(each, course.messages))))
    await Promise.all(members.map((each) => each.device.settled()))
    // Everything shown was acked: nothing waits for anybody.
    const { sql } = db.database
    await until(
      async () => (await sql<[{ n: number }]>`select count(*) as n from message_deliveries_waiting`)[0].n === 0,
    )
    const shown = members.map((each) => ({ name: each.name, listed: each.listed(), told: each.told }))
    return { shown, said }
  } finally {
    await Promise.all(members.map((each) => each.device.close()))
    await relay.kill()
    files.end()
  }
}

const hasLeft = ({ device, group }: Member, id: string): boolean =>
  device.messages(group, { limit: 100_000 }).find(({ message }) => message.id === id)?.message.state !== 'sending'

function isComplete(member: Member, messages: number): boolean {
  const listed = member.listed()
  return listed.length >= messages && listed.every(({ state }) => state !== 'sending')
}

/** Three users, the first device of each in a file and the second in memory, all in one group. */
async function gather(
  host: () => string,
  relay: { url: string; realm: string },
  file: (name: string) => Storage,
): Promise<Member[]> {
  const members: Member[] = []
  for (const user of ['alice', 'bob', 'carol']) {
    const phone = new Member(`${user}.1`, () => file(`${user}.db`), host, relay.url)
    phone.watch(await joined(relay, phone.options()))
    const memory = new MemoryStorage()
    const laptop = new Member(`${user}.2`, () => memory, host, relay.url)
    laptop.watch(await linked(phone.device, relay, laptop.options()))
    members.push(phone, laptop)
  }
  const [alice, , bob, , carol] = members.map(({ device: each }) => each)
  const group = await alice!.conversations.group([bob!.userId, carol!.userId])
  for (const each of members) each.group = group
  return members
}
