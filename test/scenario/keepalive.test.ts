// What keeps a connection alive and what ends it below the frames. [C-4] [C-7.2]
import { once } from 'node:events'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { FRAME_HARD_MAX_BYTES } from '../../proto/limits.ts'
import { Client } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
let token: string
beforeAll(async () => {
  relay = await testRelay()
  token = (await Client.register({ url: relay.url, realm: relay.config.realm })).token
})
afterAll(() => relay.close())

const connect = () => new WebSocket(relay.socketUrl, { headers: { Authorization: `Bearer ${token}` } })

it('a connection that says nothing is pinged', async () => {
  const socket = connect()
  await once(socket, 'ping')
  socket.terminate()
})

it('a message beyond the hard limit ends the connection with 1009', async () => {
  const socket = connect()
  await once(socket, 'open')
  socket.send(Buffer.alloc(FRAME_HARD_MAX_BYTES + 1))
  const [code] = await once(socket, 'close')
  expect(code).toBe(1009)
})

it('a message of exactly the hard limit is answered', async () => {
  const socket = connect()
  await once(socket, 'message')
  socket.send(Buffer.alloc(FRAME_HARD_MAX_BYTES))
  await once(socket, 'message')
  expect(socket.readyState).toBe(WebSocket.OPEN)
  socket.terminate()
})
