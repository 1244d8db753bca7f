// Three users with two devices each in a group, while the relay is stopped and started and connections break: every message once, in order, on every device.
import { expect, it } from 'vitest'
import type { Device } from '../../client/index.ts'
import { testDatabase } from '../support/database.ts'
import { testRelay } from '../support/relay.ts'
import { joined, linked, texts } from '../support/sdk.ts'
import { Tamper } from '../support/tamper.ts'

const MESSAGES = 300
const RESTARTS = 10

it('everything is shown exactly once on every device, and nothing is left in `sending`', {
  timeout: 180_000,
}, async () => {
  const db = await testDatabase()
  let relay = await testRelay({ db })
  const { url } = relay
  const wires: Tamper[] = []
  const wire = () => {
    const made = new Tamper()
    const hostOf = (whole: string) => new URL(whole).host
    made.route = (to) => to.replace(hostOf(url), hostOf(relay.url))
    wires.push(made)
    return made
  }
  const devices: Device[] = []
  for (let user = 0; user < 3; user++) {
    const primary = await joined(relay, { transport: wire() })
    devices.push(primary, await linked(primary, relay, { transport: wire() }))
  }
  const group = await devices[0]!.conversations.group([devices[2]!.userId, devices[4]!.userId])
  const said: string[][] = devices.map(() => [])
  const done = () =>
    devices.every((each) => {
      const all = each.messages(group, { limit: 10_000 })
      return all.length === MESSAGES && all.every(({ message }) => message.state !== 'sending')
    })
  for (let i = 0; i < MESSAGES; i++) {
    const who = i % devices.length
    const text = `${who} says ${said[who]!.length}`
    said[who]!.push(text)
    devices[who]!.send(group, { text })
    if (i % 17 === 0) wires[i % wires.length]!.cut(1001)
    if (i % (MESSAGES / RESTARTS) === 20) {
      await relay.close()
      for (const each of devices) each.retryNow()
      relay = await testRelay({ db })
    }
    for (const each of devices) each.retryNow()
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  const ends = Date.now() + 60_000
  while (!done() && Date.now() < ends) {
    for (const each of devices) each.retryNow()
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  for (const [at, each] of devices.entries()) {
    const shown = texts(each, group)
    expect(shown.length, `device ${at}`).toBe(MESSAGES)
    for (const [who, theirs] of said.entries())
      expect(
        shown.filter((text) => text.startsWith(`${who} says`)),
        `device ${at} of ${who}`,
      ).toEqual(theirs)
    expect(each.messages(group, { limit: 10_000 }).filter(({ message }) => message.state === 'sending')).toEqual([])
  }
  await Promise.all(devices.map((each) => each.close()))
  await relay.close()
  await db.close()
})
