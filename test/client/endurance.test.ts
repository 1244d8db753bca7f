// Every message exactly once on every device, in the order of its sender, and none left in `sending`, through kills of the relay and
// broken connections. A few of them here; `npm run endure` is the long form: 1,000 messages and ten kills.
import { expect, inject, it } from 'vitest'
import { testDatabase } from '../support/database.ts'
import { type Course, endure } from '../support/endurance.ts'
import { queueFaults } from '../support/node.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The long form; absent = the short one. */
    endurance?: Course
  }
}

const course: Course = inject('endurance') ?? { messages: 90, kills: 2, breaks: 12, seed: 3 }

it(`${course.messages} messages, ${course.kills} kills, ${course.breaks} broken connections, seed ${course.seed}: every message once, in order, on six devices`, {
  timeout: course.messages * 600 + 60_000,
}, async () => {
  const db = await testDatabase()
  try {
    const { shown, said } = await endure(db, course)
    for (const { name, listed, told } of shown) {
      const texts = listed.map(({ body }) => body.text ?? '(nothing)')
      for (const [sender, theirs] of said)
        expect(
          texts.filter((text) => text.startsWith(`${sender} says`)),
          `${name} of ${sender}`,
        ).toEqual(theirs)
      expect(texts, name).toHaveLength(course.messages)
      expect(told, name).toEqual(texts)
      const states = new Set(listed.map(({ state }) => state))
      expect(states.has('sending') || states.has('failed'), `${name}: ${[...states]}`).toBe(false)
    }
    expect(await queueFaults(db.database.sql)).toEqual([])
  } finally {
    await db.close()
  }
})
