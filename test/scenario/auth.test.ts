// Who is let in: tokens at the upgrade and on HTTP. [C-1] [T-1] [T-2]
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { TOKEN_TTL_SECONDS } from '../../proto/limits.ts'
import { Client, request, Socket } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { upgrade } from '../support/upgrade.ts'

let nowMs = Date.now()
let relay: TestRelay
/** The same database and signing key under another issuer; the same issuer under another key. */
let otherIssuer: TestRelay
let otherKey: TestRelay
let alice: Client
beforeAll(async () => {
  relay = await testRelay({ clock: () => nowMs })
  otherIssuer = await testRelay({ config: { realm: 'https://elsewhere.test' }, db: relay.db })
  otherKey = await testRelay()
  alice = await Client.register(relay)
})
afterAll(async () => {
  await otherIssuer.close()
  await Promise.all([relay.close(), otherKey.close()])
})

const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
const claimsOf = (token: string) => JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())
/** The token with other claims under the old signature. */
const altered = (token: string, claims: Record<string, unknown>): string => {
  const [header, , signature] = token.split('.')
  return `${header}.${part({ ...claimsOf(token), ...claims })}.${signature}`
}

/** Both doors of the relay: the upgrade and a route that needs a device. */
async function knock(token: string | null): Promise<{ socket: number; http: number; codes: string[] }> {
  const headers: Record<string, string> = token === null ? {} : { Authorization: `Bearer ${token}` }
  const socket = await upgrade(relay.socketUrl, { headers })
  socket.ws.terminate()
  const http = await request(relay.url, 'GET', '/v1/devices', { headers })
  const codes = [socket.body && JSON.parse(socket.body).error.code, http.body.error?.code]
  return { socket: socket.status, http: http.status, codes }
}
const REFUSED = { socket: 401, http: 401, codes: ['UNAUTHENTICATED', 'UNAUTHENTICATED'] }

describe('401 at the upgrade, as an HTTP answer, and on HTTP', () => {
  it('lets a good token in', async () => {
    expect(await knock(alice.token)).toMatchObject({ socket: 101, http: 200 })
  })

  it('no token', async () => {
    expect(await knock(null)).toEqual(REFUSED)
  })

  it.each(['', 'x', 'a.b.c', '....', 'null', 'x'.repeat(5000)])('garbage %#', async (token) => {
    expect(await knock(token)).toEqual(REFUSED)
  })

  it('expired, to the second', async () => {
    const before = nowMs
    nowMs = claimsOf(alice.token).exp * 1000 - 1
    expect(await knock(alice.token)).toMatchObject({ socket: 101, http: 200 })
    nowMs += 1
    expect(await knock(alice.token)).toEqual(REFUSED)
    nowMs = before
  })

  it('wrong issuer: another realm on the same keys', async () => {
    const elsewhere = await Client.register(otherIssuer)
    expect(claimsOf(elsewhere.token).iss).toBe('https://elsewhere.test')
    expect(await knock(elsewhere.token)).toEqual(REFUSED)
  })

  it('wrong key: the same realm elsewhere', async () => {
    const elsewhere = await Client.register(otherKey)
    expect(claimsOf(elsewhere.token).iss).toBe(relay.realm)
    expect(await knock(elsewhere.token)).toEqual(REFUSED)
  })

  it('altered: another user, another device, a later end', async () => {
    const bob = await Client.register(relay)
    const { sub, dev } = claimsOf(bob.token)
    for (const claims of [{ sub }, { dev }, { sub, dev }, { device_id: 2 }, { exp: 9_999_999_999 }])
      expect(await knock(altered(alice.token, claims))).toEqual(REFUSED)
  })

  it('unsigned: alg none, and HS256 under the public key', async () => {
    const claims = part(claimsOf(alice.token))
    for (const header of [{ alg: 'none' }, { alg: 'HS256' }, { alg: 'EdDSA', kid: 'unknown' }])
      for (const signature of ['', 'AAAA'])
        expect(await knock(`${part(header)}.${claims}.${signature}`)).toEqual(REFUSED)
  })

  it("another device's: an unlinked device's token, also for the device that has come since", async () => {
    const second = await alice.link()
    expect(await knock(second.token)).toMatchObject({ socket: 101, http: 200 })
    expect((await alice.delete(`/v1/devices/${second.deviceId}`)).status).toBe(204)
    expect(await knock(second.token)).toEqual(REFUSED)
    const third = await alice.link()
    expect(await knock(altered(second.token, { device_id: third.deviceId }))).toEqual(REFUSED)
    expect(await knock(second.token)).toEqual(REFUSED)
  })

  it('a token in the query string is not read', async () => {
    for (const name of ['token', 'access_token', 'authorization']) {
      const answer = await upgrade(`${relay.socketUrl}?${name}=${alice.token}`)
      expect(answer.status).toBe(401)
      expect((await request(relay.url, 'GET', `/v1/devices?${name}=${alice.token}`)).status).toBe(401)
    }
  })

  it('every route that needs a device says 401 without one, whatever else the request holds', async () => {
    const { paths } = (await request(relay.url, 'GET', '/openapi.json')).body
    let asked = 0
    for (const [path, methods] of Object.entries<Record<string, { security?: unknown }>>(paths))
      for (const [method, { security }] of Object.entries(methods)) {
        if (!security) continue
        asked++
        const options = method === 'get' ? {} : { body: '{"half', headers: { 'Content-Type': 'application/json' } }
        const answer = await request(relay.url, method.toUpperCase(), path.replace(/\{\w+\}/g, 'x'), options)
        expect([path, method, answer.status]).toEqual([path, method, 401])
        // Refusals of the frame endpoints are frames: test/server/frames-http.test.ts. [C-9]
        const isFrame = answer.headers.get('content-type') === 'application/x-protobuf'
        if (!isFrame) expect([path, method, answer.body.error?.code]).toEqual([path, method, 'UNAUTHENTICATED'])
        expect(answer.headers.get('www-authenticate')).toBe('Bearer')
      }
    expect(asked).toBeGreaterThan(10)
  })

  it('says the same for every reason', async () => {
    const ended = altered(alice.token, { exp: 1 })
    const bodies = await Promise.all(
      [ended, altered(alice.token, { dev: crypto.randomUUID() }), 'a.b.c'].map(async (token) => {
        const { body } = await request(relay.url, 'GET', '/v1/devices', { token })
        return JSON.stringify(body)
      }),
    )
    expect(new Set(bodies).size).toBe(1)
  })
})

describe('a browser cannot set headers [C-1.2]', () => {
  const offered = (token: string): string[][] => [
    ['sealpost.v1', `bearer.${token}`],
    [`bearer.${token}`, 'sealpost.v1'],
    ['other', 'sealpost.v1', `bearer.${token}`, 'more'],
  ]

  it('it is let in by subprotocols, answered exactly sealpost.v1; the token is nowhere in the answer', async () => {
    for (const subprotocols of offered(alice.token)) {
      const answer = await upgrade(relay.socketUrl, { subprotocols })
      expect([answer.status, answer.headers['sec-websocket-protocol']]).toEqual([101, 'sealpost.v1'])
      expect(answer.rawHeaders.join('\n')).not.toContain(alice.token)
      answer.ws.terminate()
    }
  })

  it('and talks like any other', async () => {
    const socket = await Socket.open(relay.url, null, { subprotocols: offered(alice.token)[0]! })
    expect((await socket.next('hello')).deviceId).toBe(alice.deviceId)
    await socket.fence()
    await socket.close()
  })

  it('without sealpost.v1, or with a bad token, it is 401', async () => {
    for (const subprotocols of [[`bearer.${alice.token}`], ['sealpost.v1'], ['sealpost.v1', 'bearer.x']])
      expect((await upgrade(relay.socketUrl, { subprotocols })).status).toBe(401)
  })
})

it('GET /v1/ws without an upgrade is an HTTP refusal', async () => {
  const answer = await request(relay.url, 'GET', '/v1/ws')
  expect(answer.status).toBeGreaterThanOrEqual(400)
  expect(answer.status).toBeLessThan(500)
})

it('a token lives an hour', () => {
  const { iat, exp } = claimsOf(alice.token)
  expect(exp - iat).toBe(TOKEN_TTL_SECONDS)
})
