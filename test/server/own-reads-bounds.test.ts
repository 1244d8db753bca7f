// How much is remembered of marks for one's own devices, and of whom it is forgotten first. I10
import { expect, it } from 'vitest'
import { OwnReads } from '../../server/features/own-reads.ts'
import type { Session } from '../../server/session.ts'
import { FakeTime } from '../support/faketime.ts'

/** What a mark's way needs of a session: it takes signals, or it does not at the moment. */
class Device {
  readonly caller: { userId: string; deviceKey: number }
  readonly state = 'live'
  takesSignals = true
  frames = 0
  constructor(userId: string) {
    this.caller = { userId, deviceKey: 2 }
  }
  signal(): boolean {
    if (this.takesSignals) this.frames++
    return this.takesSignals
  }
}

const uuid = (n: number): string => `00000000-0000-7000-8000-${n.toString(16).padStart(12, '0')}`
const MARK = uuid(0)
function open(devices: Device[]) {
  const time = new FakeTime()
  const byUser = new Map(devices.map((each) => [each.caller.userId, each as unknown as Session]))
  const ownReads = new OwnReads({ time, sessions: { ofUser: (userId) => [byUser.get(userId)!] } })
  const mark = (device: Device, conversation: number) => ({
    userId: device.caller.userId,
    deviceKey: 1,
    conversationId: uuid(conversation),
    messageId: MARK,
  })
  return {
    time,
    tell: (device: Device, conversation: number) => ownReads.tell(mark(device, conversation)),
    wasTold: (device: Device, conversation: number) => ownReads.wasTold(mark(device, conversation)),
  }
}

it('a device that takes nothing has 1,000 marks kept, so that others have theirs; what is left out was not told', () => {
  const devices = Array.from({ length: 51 }, (_, n) => new Device(uuid(n)))
  const { time, tell, wasTold } = open(devices)
  for (const each of devices) each.takesSignals = false
  const [greedy, ...others] = devices as [Device, ...Device[]]
  for (let n = 0; n < 50_000; n++) tell(greedy, n)
  for (const each of others.slice(0, 49)) tell(each, 7)
  expect([wasTold(greedy, 999), wasTold(greedy, 1_000), wasTold(others[0]!, 7)]).toEqual([true, false, true])
  for (const each of devices) each.takesSignals = true
  time.advance(10_000)
  expect(greedy.frames).toBe(2)
  expect(others.slice(0, 49).every((each) => each.frames === 1)).toBe(true)
  // It took what there was: there is room for it again.
  tell(greedy, 1_000)
  expect([greedy.frames, wasTold(greedy, 1_000)]).toEqual([3, true])
})

it('of 100,000 marks that were told, those of the user who was told longest ago are forgotten', () => {
  const devices = Array.from({ length: 1_001 }, (_, n) => new Device(uuid(n)))
  const { tell, wasTold } = open(devices)
  const [first, second, third] = devices as [Device, Device, Device]
  for (const each of devices.slice(0, 1_000)) for (let n = 0; n < 100; n++) tell(each, n)
  tell(first, 100)
  expect([wasTold(first, 100), wasTold(second, 99)]).toEqual([true, true])
  tell(devices.at(-1)!, 0)
  expect([first, second, third].map((each) => wasTold(each, 99))).toEqual([true, false, true])
  expect(wasTold(devices.at(-1)!, 0)).toBe(true)
})
