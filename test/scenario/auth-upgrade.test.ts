// Every accepted upgrade stays open, whatever lies in memory around it.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Client, Socket } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

// uWebSockets reads a flag from where HTTP's was after an upgrade inside cork(): about one connection in three was cut off.
it('of 200 connections of one device, each is closed for the next one only', async () => {
  const { url, token } = await Client.register(relay)
  const sockets: Socket[] = []
  for (let round = 0; round < 10; round++)
    sockets.push(...(await Promise.all(Array.from({ length: 20 }, () => Socket.open(url, token)))))
  const last = await Socket.open(url, token)
  await last.next('hello')
  const codes = await Promise.all(sockets.map((each) => each.end()))
  expect(codes.filter((code) => code !== 4409)).toEqual([])
  await last.close()
})
