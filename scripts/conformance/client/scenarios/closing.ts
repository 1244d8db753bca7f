// What a client does when its connection ends: when it comes back, how soon, and when it stays away. [C-5] [C-6] [C-8]
import { type Check, hold, same } from '../../check.ts'
import { v1 } from '../../socket.ts'
import type { Stage } from '../stage.ts'

const { GOING_AWAY_REASON_SHUTDOWN: SHUTDOWN, GOING_AWAY_REASON_TOKEN_EXPIRED: TOKEN_EXPIRED } = v1.GoingAwayReason

/** When a connection was ended, by the relay's clock, and how many upgrades there had been. */
type End = { atMs: number; upgrades: number }

/** Ends the present connection, and waits until both sides have seen it end. */
async function end(stage: Stage, code: number): Promise<End> {
  const { relay } = stage
  const line = relay.line!
  const ended = { atMs: relay.now(), upgrades: relay.asked('GET', '/v1/ws').length }
  line.close(code)
  await relay.when(() => line.closed, 'the connection to end')
  const isBack = () => relay.asked('GET', '/v1/ws').length > ended.upgrades
  await stage.until(async () => isBack() || (await stage.state()) !== 'live', 'the client to notice the end')
  return ended
}

/** How long after that end the client connected again; null = not within so long. */
async function back(stage: Stage, { atMs, upgrades }: End, mostMs: number, stepMs = 1000): Promise<number | null> {
  const next = () => stage.relay.asked('GET', '/v1/ws')[upgrades]
  await stage.pass(mostMs, next, stepMs)
  const found = next()
  return found ? found.atMs - atMs : null
}

export const closing: Check<Stage>[] = [
  {
    clauses: ['C-5.1', 'C-8'],
    title: '4409: it does not reconnect by itself',
    async run(stage) {
      await stage.join()
      const ended = await end(stage, 4409)
      same(await back(stage, ended, 600_000, 30_000), null, 'within 10 minutes, as time of a new connection')
      const state = await stage.state()
      same(state, 'closed', 'as state')
      return `no connection within 10 minutes, state ${state}`
    },
  },
  {
    clauses: ['C-8'],
    title: '4400: it does not reconnect in a loop',
    async run(stage) {
      const { relay } = stage
      await stage.join()
      relay.script.frame = (line) => {
        line.close(4400)
        return true
      }
      await end(stage, 4400)
      const before = relay.lines.length
      await stage.pass(120_000, () => relay.lines.length - before > 4, 5000)
      const again = relay.lines.length - before
      hold(again <= 4, 'at most a few connections within 2 minutes', again)
      return `${again} connections in 2 minutes`
    },
  },
  {
    clauses: ['C-8', 'C-6', 'T-2'],
    title: '4401: it gets a new token and comes back; if that is refused, it stays away',
    async run(stage) {
      const { relay } = stage
      await stage.join()
      const before = relay.asked('POST', '/oauth/token').length
      relay.tokens.clear()
      const ended = await end(stage, 4401)
      hold((await back(stage, ended, 60_000)) !== null, 'a new connection within a minute', 'none')
      await stage.ready(1)
      hold(relay.asked('POST', '/oauth/token').length > before, 'a new token', 'none')
      relay.script.http = ({ path }) =>
        path === '/oauth/token' ? { status: 401, body: { error: 'invalid_client' } } : null
      relay.tokens.clear()
      await end(stage, 4401)
      const lines = relay.lines.length
      await stage.until(async () => {
        await stage.pass(2000)
        return (await stage.state()) === 'closed'
      }, 'the client to see that its device is gone')
      await stage.pass(120_000, () => false, 30_000)
      same(relay.lines.length, lines, 'after that, as count of connections')
      return 'a new token and a new connection; then closed for good'
    },
  },
  {
    clauses: ['C-8'],
    title: '1001 with a retry time: it waits that long, and comes back',
    async run(stage) {
      await stage.join()
      stage.relay.say({ goingAway: { reason: SHUTDOWN, retryAfterMs: 9000 } })
      const afterMs = await back(stage, await end(stage, 1001), 60_000)
      hold(afterMs !== null && afterMs >= 9000, 'a connection after 9 s', afterMs)
      await stage.ready(1)
      return `back after ${afterMs} ms`
    },
  },
  {
    clauses: ['C-8'],
    title: '4429: it waits at least 30 s',
    async run(stage) {
      await stage.join()
      const afterMs = await back(stage, await end(stage, 4429), 180_000, 2000)
      hold(afterMs !== null && afterMs >= 30_000, 'a connection after 30 s', afterMs)
      return `back after ${afterMs} ms`
    },
  },
  {
    clauses: ['C-8.1', 'C-8'],
    title: '1006: it comes back with backoff; after two within 10 s of connecting it waits at least 30 s',
    async run(stage) {
      await stage.join()
      const first = await back(stage, await end(stage, 1006), 31_000)
      hold(first !== null, 'a connection within 30 s of the first', first)
      await stage.ready(1)
      const second = await back(stage, await end(stage, 1006), 180_000, 2000)
      hold(second !== null && second >= 30_000, 'a connection 30 s after the second', second)
      return `back after ${first} ms, then after ${second} ms`
    },
  },
  {
    clauses: ['C-8.1'],
    title: 'while nobody lets it in it tries again at most every second and at least every 30 s or so',
    async run(stage) {
      const { relay } = stage
      await stage.join()
      let refusing = true
      relay.script.upgrade = () => (refusing ? 503 : null)
      await end(stage, 1001)
      const before = relay.asked('GET', '/v1/ws').length
      await stage.pass(120_000, () => relay.asked('GET', '/v1/ws').length - before > 60, 4000)
      const tries = relay.asked('GET', '/v1/ws').length - before
      hold(tries >= 3 && tries <= 60, '3 to 60 tries in 2 minutes', tries)
      refusing = false
      delete relay.script.upgrade
      const tried = { atMs: relay.now(), upgrades: relay.asked('GET', '/v1/ws').length }
      hold((await back(stage, tried, 61_000, 2000)) !== null, 'a connection within a minute of being let in', 'none')
      await stage.ready(1)
      return `${tries} tries in 2 minutes of 503, then in`
    },
  },
  {
    clauses: ['C-6', 'C-6.2', 'C-8'],
    title: 'GoingAway for a token’s end: it reauthenticates, or comes back with another token',
    async run(stage) {
      const { relay } = stage
      const line = await stage.join()
      const { token } = line
      relay.say({ goingAway: { reason: TOKEN_EXPIRED, retryAfterMs: 0 } })
      const renewed = await stage.later(
        () => line.frames.find((each) => each.reauthenticate)?.reauthenticate?.token ?? relay.lines[1]?.token,
        'a Reauthenticate, or a new connection',
        40_000,
      )
      hold(renewed !== token, 'another token', 'the same')
      return relay.lines.length > 1 ? 'a new connection with another token' : 'Reauthenticate with another token'
    },
  },
  {
    clauses: ['C-7.2', 'C-8'],
    title: '1009: the message that caused it is not sent again',
    async run(stage) {
      const { relay } = stage
      const { conversation } = await stage.talk()
      const seen: string[] = []
      relay.script.frame = (line, { signalMessage }) => {
        if (!signalMessage) return false
        seen.push(Buffer.from(signalMessage.clientMessageId!).toString('hex'))
        if (seen.filter((each) => each === seen[0]).length > 4 || seen.at(-1) !== seen[0]) return false
        line.close(1009)
        return true
      }
      const id = await stage.post(conversation, 'too large')
      await relay.when(() => seen.length > 0, 'a message')
      await stage.pass(30_000, () => seen.length > 1, 2000)
      same(seen.length, 1, 'as count of sends of that message')
      await stage.stateOf(conversation, id, 'failed')
      await stage.say(conversation, 'small')
      return 'sent once and failed; the next message went through'
    },
  },
  {
    clauses: ['C-8.1', 'S-9.6'],
    title: 'what was said while it was away is sent when it is back',
    async run(stage) {
      const { relay } = stage
      const { conversation } = await stage.talk()
      const ended = await end(stage, 1001)
      const id = await stage.post(conversation, 'said offline')
      hold((await back(stage, ended, 61_000)) !== null, 'a connection within a minute', 'none')
      await stage.ready(relay.lines.length - 1)
      await stage.stateOf(conversation, id, 'sent')
      return 'queued, then sent'
    },
  },
]
