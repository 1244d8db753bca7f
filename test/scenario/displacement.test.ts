// One consumer per device: the newer connection wins (I6) [C-5].
import { once } from 'node:events'
import { connect, type Socket as NetSocket } from 'node:net'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import { StartError } from '../../server/config.ts'
import { Client, idOf, Socket } from '../support/client.ts'
import { pair } from '../support/pair.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { upgrade } from '../support/upgrade.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay?.close())

it('two sockets of one device: the newer wins, the older gets 4409 and nothing after it', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const [from, older] = [await alice.live(), await bob.live()]
  const newer = await bob.live()
  expect(await older.end()).toBe(4409)
  older.frames.length = 0
  const { messageAccepted } = await from.send(conversation, [bob.to()])
  expect((await newer.next('envelope')).messageId).toEqual(messageAccepted!.messageId)
  expect(older.frames).toEqual([])
  expect(newer.closed).toBe(null)
  await Promise.all([from.close(), newer.close()])
})

it('the older one leaving later does not take the newer one along', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const from = await alice.live()
  const sockets = [await bob.live()]
  for (let i = 0; i < 3; i++) sockets.push(await bob.live())
  const last = sockets.pop()!
  expect(await Promise.all(sockets.map((each) => each.end()))).toEqual([4409, 4409, 4409])
  const ids: string[] = []
  for (let i = 0; i < 5; i++) ids.push(idOf((await from.send(conversation, [bob.to()])).messageAccepted!.messageId))
  const got: string[] = []
  while (got.length < 5) got.push(idOf((await last.next('envelope')).messageId))
  expect(got).toEqual(ids)
  await Promise.all([from.close(), last.close()])
})

it('an envelope the older connection did not ack comes again on the newer; what it did ack does not', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const [from, older] = [await alice.live(), await bob.live()]
  await from.send(conversation, [bob.to(Buffer.from('acked'))])
  await from.send(conversation, [bob.to(Buffer.from('unacked'))])
  const [acked] = [await older.next('envelope'), await older.next('envelope')]
  // Sent before it is displaced: valid, whoever is faster. [C-5.2]
  const ack = older.ack(acked!.messageId).catch(() => {})
  const newer = await bob.connect()
  await ack
  expect(newer.hello.queueWaiting).toBe(true)
  const waiting = await newer.drain()
  expect(waiting.map((each) => Buffer.from(each.ciphertext!.content!).toString())).toContain('unacked')
  expect(await older.end()).toBe(4409)
  await newer.close()
  const again = await bob.connect()
  expect(again.hello.queueWaiting).toBe(false)
  await Promise.all([from.close(), again.close()])
})

it('20 connections of one device at once: exactly one survives, and it gets everything', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const from = await alice.live()
  const opening = Array.from({ length: 20 }, () => Socket.open(relay.url, bob.token))
  // Traffic while they come.
  const sends = Array.from({ length: 40 }, () => from.send(conversation, [bob.to()]))
  const sockets = await Promise.all(opening)
  const ids = (await Promise.all(sends)).map((each) => idOf(each.messageAccepted!.messageId))
  const [survivor, ...others] = await survivorOf(sockets)
  await survivor!.next('hello')
  // Nobody else acked anything, so all of it is the survivor's: what waited when it came, and what came since.
  const drained = await survivor!.drain()
  for (let i = 0; i < 5; i++) ids.push(idOf((await from.send(conversation, [bob.to()])).messageAccepted!.messageId))
  const got = new Set(drained.map((each) => idOf(each.messageId)))
  // From another node they come when its hints do.
  while (got.size < ids.length) got.add(idOf((await survivor!.next('envelope')).messageId))
  await survivor!.fence()
  for (const each of survivor!.envelopes()) got.add(idOf(each.messageId))
  expect(got).toEqual(new Set(ids))
  expect(others.map((each) => each.closed?.code)).toEqual(Array(19).fill(4409))
  await Promise.all([from.close(), survivor!.close()])
})

/** All but one of them end; the one that does not comes first. */
async function survivorOf(sockets: Socket[]): Promise<Socket[]> {
  const ended = new Set<Socket>()
  await new Promise<void>((resolve) => {
    for (const each of sockets)
      void each.end().then(() => {
        ended.add(each)
        if (ended.size === sockets.length - 1) resolve()
      })
  })
  return [...sockets.filter((each) => !ended.has(each)), ...ended]
}

it('a send repeated on the connection that displaced the first is one message (I2)', async () => {
  const { alice, bob, conversation } = await pair(relay)
  const [older, to] = [await alice.live(), await bob.live()]
  const clientMessageId = uuidToBytes(uuidV7(Date.now()))
  const first = older.send(conversation, [bob.to()], { clientMessageId }).catch(() => null)
  const newer = await alice.connect()
  const second = await newer.send(conversation, [bob.to()], { clientMessageId })
  const answered = await first
  expect(second.messageAccepted).toBeTruthy()
  if (answered) expect(answered.messageAccepted!.messageId).toEqual(second.messageAccepted!.messageId)
  expect((await to.next('envelope')).messageId).toEqual(second.messageAccepted!.messageId)
  await to.fence()
  expect(to.envelopes()).toEqual([])
  await Promise.all([newer.close(), to.close()])
})

it('an upgrade whose client has hung up displaces nobody', async () => {
  const bob = await Client.register(relay)
  const { hostname, port } = new URL(relay.url)
  const request = [
    'GET /v1/ws HTTP/1.1',
    `Host: ${hostname}`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    `Authorization: Bearer ${bob.token}`,
  ]
  const socket = await bob.live()
  const hangUps: ((raw: NetSocket) => unknown)[] = [
    (raw) => raw.end(),
    (raw) => raw.destroy(),
    (raw) => raw.resetAndDestroy(),
  ]
  for (const hangUp of hangUps) {
    const raw = connect(Number(port), hostname)
    raw.on('error', () => {})
    await once(raw, 'connect')
    // Written and hung up before the relay, which runs in this process, reads any of it.
    await new Promise((resolve) => raw.write(`${request.join('\r\n')}\r\n\r\n`, resolve))
    const closed = once(raw, 'close')
    hangUp(raw)
    await closed
    // A round trip through the same door and back: what was to be let in is in.
    await upgrade(`${relay.url}/v1/ws`)
    expect(socket.closed).toBe(null)
    await socket.fence()
  }
  await socket.close()
})

it('devices of one user do not displace each other', async () => {
  const alice = await Client.register(relay)
  const tablet = await alice.link()
  const [one, two] = [await alice.live(), await tablet.live()]
  await one.fence()
  await two.fence()
  expect([one.closed, two.closed]).toEqual([null, null])
  await Promise.all([one.close(), two.close()])
})

it('a second relay on the same port is refused with one clear line, and the first one goes on', async () => {
  const port = Number(new URL(relay.url).port)
  const second = testRelay({ config: { port } })
  await expect(second).rejects.toThrow(StartError)
  await expect(second).rejects.toThrow(new RegExp(`^[^\\n]*${port}[^\\n]*in use[^\\n]*$`))
  const alice = await Client.register(relay)
  await (await alice.live()).close()
})
