// Three nodes restarted one after the other under load: nothing is lost, order is kept, and whoever is refused or sent away is told
// when to come back. Clients do what the protocol asks of them, except that they do not wait that long. [C-8] I1 I2 I3
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { deviceKeyOf, numberOf } from '../support/backlog.ts'
import { Client, idOf, type Socket } from '../support/client.ts'
import { type TestCluster, testCluster } from '../support/cluster.ts'
import { messageTo, numbered, post } from '../support/http-frames.ts'
import { until } from '../support/processes.ts'

const PAIRS = 6
/** Every pair sends on until all nodes are new, and so many in any case. */
const LEAST = 30

let cluster: TestCluster
beforeAll(async () => {
  cluster = await testCluster({ proxied: false, config: { drain: { pauseMs: 0, perSecond: 50, graceMs: 10_000 } } })
})
afterAll(() => cluster?.close())

type Story = {
  accepted: number
  arrived: number[]
  /** How often it was refused, and sent away; and what was said without a time to come back. */
  refused: number
  sentAway: number
  unhinted: string[]
}

const soon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 10))
let turns = 0
/** As a balancer would: some node that takes new connections. */
const somewhere = (client: Client): Client => cluster.nodes[turns++ % cluster.nodes.length]!.from(client)

/** A socket that empties its queue first, at whatever node lets it in. */
async function reach(client: Client): Promise<Socket> {
  for (;;) {
    const socket = await somewhere(client)
      .connect()
      .catch(() => null)
    if (socket) return socket
    await soon()
  }
}

function leave({ frames, closed }: Socket, story: Story): void {
  story.sentAway++
  const goodbye = frames.find((frame) => frame.goingAway)?.goingAway
  if (closed?.code !== 1001 || goodbye?.retryAfterMs == null) story.unhinted.push(`closed ${closed?.code}`)
}

/** Takes what comes until the story is over, in the order in which it comes first; acks everything. */
async function receive(client: Client, story: Story, isOver: () => boolean): Promise<void> {
  const seen = new Set<string>()
  const take = async (socket: Socket, envelopes: sealpost.v1.Envelope.$Properties[]): Promise<void> => {
    for (const { messageId, ciphertext } of envelopes) {
      // Not what the relay itself has to say.
      if (!ciphertext || seen.has(idOf(messageId))) continue
      seen.add(idOf(messageId))
      story.arrived.push(numberOf(ciphertext.content))
    }
    await socket.ack(...envelopes.map((each) => each.messageId))
  }
  const over = until(isOver, 60_000).then(() => null)
  while (!isOver()) {
    const socket = await reach(client)
    try {
      for (let hasMore = true; hasMore; ) {
        const page = await socket.sync()
        await take(socket, page.messages ?? [])
        hasMore = page.hasMore ?? false
      }
      while (!isOver()) {
        const next = await Promise.race([socket.next('envelope'), over])
        if (next) await take(socket, [next])
      }
      await socket.close()
    } catch (error) {
      if (!socket.closed) throw error
      leave(socket, story)
    }
  }
}

/** Sends numbers one after the other, each again until it is accepted. @param over by HTTP, or by a socket. */
async function sendOn(
  client: Client,
  conversation: string,
  to: Client,
  story: Story,
  over: 'http' | 'socket',
  isOver: () => boolean,
): Promise<void> {
  let socket: Socket | null = null
  for (let number = 0; number < LEAST || !isOver(); number++) {
    const frame = messageTo(conversation, [to.to(numbered(number))], {
      clientMessageId: uuidToBytes(uuidV7(Date.now())),
    })
    for (;;) {
      if (over === 'socket') socket ??= await reach(client)
      const answer = await (socket
        ? socket.ask(frame)
        : post(somewhere(client), frame).then((each) => each.frame!)
      ).catch(() => null)
      if (answer?.messageAccepted) break
      if (answer) {
        story.refused++
        const { code, retryAfterMs } = answer.error!
        if (!retryAfterMs) story.unhinted.push(`refused ${sealpost.v1.ErrorCode[code!]}`)
      }
      if (socket) {
        await socket.end()
        leave(socket, story)
        socket = null
      } else await soon()
    }
    story.accepted++
  }
  await socket?.close()
}

it('nothing is lost, nothing is out of order, and nobody is refused or sent away without a time to come back', async () => {
  let areNew = false
  const stories: Story[] = []
  const receivers: number[] = []
  const courses = Array.from({ length: PAIRS }, async (_, i) => {
    const home = cluster.nodes[i % cluster.nodes.length]!
    const [from, to] = [await Client.register(home), await Client.register(home)]
    const conversation = await from.direct(to)
    const story: Story = { accepted: 0, arrived: [], refused: 0, sentAway: 0, unhinted: [] }
    receivers.push(await deviceKeyOf(cluster.db.database.sql, to))
    stories.push(story)
    const sent = sendOn(from, conversation, to, story, i === 0 ? 'http' : 'socket', () => areNew)
    let areSent = false
    void sent.then(() => {
      areSent = true
    })
    await Promise.all([sent, receive(to, story, () => areSent && story.arrived.length >= story.accepted)])
  })
  const restarted = (async () => {
    await until(() => stories.length === PAIRS && stories.every((each) => each.accepted >= 5))
    for (const old of [...cluster.nodes]) {
      await old.close()
      await cluster.grow()
      const before = stories.map((each) => each.accepted)
      await until(() => stories.every((each, at) => each.accepted > before[at]!))
    }
    areNew = true
  })()
  await Promise.all([restarted, ...courses])
  for (const { accepted, arrived, unhinted } of stories) {
    expect(arrived).toEqual(Array.from({ length: accepted }, (_, number) => number))
    expect(unhinted).toEqual([])
  }
  // Each socket at least once: nodes it was connected to went down.
  expect(stories.reduce((sum, each) => sum + each.sentAway, 0)).toBeGreaterThanOrEqual(2 * PAIRS)
  const left = await cluster.db.database.sql`
    select 1 from message_deliveries_waiting where device_key = any(${receivers})`
  expect(left).toHaveLength(0)
  expect(cluster.reported).toEqual([])
})
