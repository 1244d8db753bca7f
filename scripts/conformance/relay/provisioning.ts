// [I-5]: the channel through which a primary device hands a sealed message to a new one.
import { randomBytes } from 'node:crypto'
import { base64, base64url } from '../bytes.ts'
import { type Check, hold, same } from '../check.ts'
import { call, type Device } from '../device.ts'
import { type Answer, refused } from '../http.ts'
import { Socket, UpgradeRefused } from '../socket.ts'
import type { Kit } from '../world.ts'

const listen = (kit: Kit, address: string): Promise<Socket> =>
  Socket.open(kit.relay.url, null, { path: `/v1/provisioning/${address}` })
const listenStatus = (kit: Kit, address: string): Promise<number> =>
  listen(kit, address).then(
    async (socket) => {
      await socket.close()
      return 101
    },
    (error) => {
      if (error instanceof UpgradeRefused) return error.status
      throw error
    },
  )
const hand = (by: Device, address: string, message: Uint8Array): Promise<Answer> =>
  by.put(`/v1/provisioning/${address}`, { message: base64(message) })

export const provisioningChecks: Check<Kit>[] = [
  {
    clauses: ['I-5', 'I-5.2', 'I-5.3', 'H-10'],
    title: 'the provisioning channel hands over one message, once',
    async run(kit) {
      const primary = await kit.user()
      const address = base64url(randomBytes(16))
      const sealed = randomBytes(500)
      refused(await hand(primary, address, sealed), 'NOT_FOUND', 'an address nobody waits at')
      const socket = await listen(kit, address)
      const message = new Promise<Buffer>((resolve) => socket.ws.once('message', (data: Buffer) => resolve(data)))
      same(await listenStatus(kit, address), 409, 'for a second who waits there, HTTP')
      refused(await hand(primary, address, Buffer.alloc(0)), 'INVALID_REQUEST', 'nothing')
      same((await hand(primary, address, sealed)).status, 204, 'for the message, HTTP')
      same(await message, sealed, 'as message')
      same(await socket.end(), 1000, 'as close code')
      refused(await hand(primary, address, sealed), 'NOT_FOUND', 'a second message')
      for (const bad of ['short', 'x'.repeat(23), '*'.repeat(22)])
        same(await listenStatus(kit, bad), 400, `for the address ${bad}, HTTP`)
      refused(
        await call(kit.relay, 'PUT', `/v1/provisioning/${address}`, { json: { message: base64(sealed) } }),
        'UNAUTHENTICATED',
        'no token',
      )
      return '409 for a second listener; the bytes as they were, 1000; then NOT_FOUND; 400 for what is no address'
    },
  },
  {
    clauses: ['I-5.3', 'L-1'],
    title: 'a provisioning message has at most 64 KiB; 10 at once, then RATE_LIMITED',
    async run(kit) {
      const primary = await kit.fresh()
      const address = base64url(randomBytes(16))
      const socket = await listen(kit, address)
      const largest = randomBytes(65_536)
      const message = new Promise<Buffer>((resolve) => socket.ws.once('message', (data: Buffer) => resolve(data)))
      refused(await hand(primary, address, randomBytes(65_537)), 'TOO_LARGE', '65,537 bytes')
      same((await hand(primary, address, largest)).status, 204, 'for 65,536 bytes, HTTP')
      hold(largest.equals(await message), 'the same bytes', 'others')
      let answer: Answer
      let tries = 2
      do {
        answer = await hand(primary, address, sealedSmall)
        tries++
      } while (answer.status === 404 && tries < 15)
      refused(answer, 'RATE_LIMITED', 'more than 10')
      hold(tries >= 10 && tries <= 13, '10 at once', tries)
      return `65,536 bytes handed over, 65,537 TOO_LARGE; RATE_LIMITED at request ${tries}`
    },
  },
  {
    clauses: ['I-5.2'],
    title: 'who waits at an address is not to speak: what it sends is ignored, the fifth message ends it',
    async run(kit) {
      const socket = await listen(kit, base64url(randomBytes(16)))
      for (let at = 0; at < 5; at++) socket.raw('hello?')
      same(await socket.end(), 4400, 'as close code')
      return '4400 after five'
    },
  },
  {
    clauses: ['I-5.2', 'L-1'],
    title: 'a provisioning channel ends after 90 s with 1001',
    slow: 'takes 90 s',
    withinMs: 150_000,
    async run(kit) {
      const began = performance.now()
      const socket = await listen(kit, base64url(randomBytes(16)))
      same(await socket.end(120_000), 1001, 'as close code')
      const seconds = Math.round((performance.now() - began) / 1000)
      hold(seconds >= 85 && seconds <= 100, '90 s', seconds)
      return `1001 after ${seconds} s`
    },
  },
]

const sealedSmall = randomBytes(60)
