// Whose address counts when a request came through proxies, and who may say so.
import { get } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readConfig } from '../../server/config.ts'
import { clientOf, parseNetworks } from '../../server/forwarded.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { request } from '../support/request.ts'

const networks = parseNetworks('127.0.0.0/8, ::1, 10.0.0.0/8, fd00::/8')!

describe('the client of a way through proxies', () => {
  it.each([
    ['nobody in between', '203.0.113.9', '', '203.0.113.9'],
    ['a stranger who names another', '203.0.113.9', '198.51.100.1', '203.0.113.9'],
    ['one proxy', '10.1.2.3', '203.0.113.9', '203.0.113.9'],
    ['one proxy behind another', '127.0.0.1', '203.0.113.9, 10.0.0.7', '203.0.113.9'],
    ['what a client wrote in front of it', '10.1.2.3', '198.51.100.1,203.0.113.9', '203.0.113.9'],
    ['a proxy that says nothing', '10.1.2.3', '', '10.1.2.3'],
    ['a proxy that was told nonsense', '10.1.2.3', '198.51.100.1, unknown', '10.1.2.3'],
    ['proxies only', '127.0.0.1', '10.0.0.8,10.0.0.7', '10.0.0.8'],
    ['IPv6', 'fd00::5', '2001:db8::1', '2001:db8::1'],
    ['uWebSockets writes IPv6 in full', '0000:0000:0000:0000:0000:0000:0000:0001', '2001:db8::1', '2001:db8::1'],
    ['a mapped IPv4 address', '0000:0000:0000:0000:0000:ffff:0a01:0203', '203.0.113.9', '203.0.113.9'],
  ])('%s', (_, remote, forwarded, client) => {
    expect(clientOf(remote, forwarded, networks)).toBe(client)
  })
})

it.each(['10.0.0.0/33', 'fd00::/129', 'localhost', '10.0.0', '10.0.0.0/-1', '10.0.0.0/', 'fd00::/8,x'])(
  '%s is no network, and no way to start',
  (text) => {
    expect(parseNetworks(text)).toBeNull()
    expect(() => readConfig({ SEALPOST_TRUSTED_PROXIES: text })).toThrow(/TRUSTED_PROXIES.*no IP address or network/)
  },
)

describe('a relay', () => {
  let believes: TestRelay
  let doubts: TestRelay
  beforeAll(async () => {
    believes = await testRelay()
    doubts = await testRelay({ db: believes.db, config: { trustedProxies: parseNetworks('10.0.0.0/8')! } })
  })
  afterAll(async () => {
    await doubts?.close()
    await believes?.close()
  })
  const addressesAt = ({ logged }: TestRelay): unknown[] =>
    logged.map((line) => JSON.parse(line).address).filter(Boolean)

  it('believes a proxy on its own machine, the last of several lines of it, and no other unless it is told to', async () => {
    // As written by two proxies that each add a line; fetch joins them.
    const headers = { 'X-Forwarded-For': '198.51.100.1, 203.0.113.9' }
    for (const relay of [believes, doubts])
      expect((await request(relay.url, 'GET', '/v1/devices', { token: 'x', headers })).status).toBe(401)
    expect(addressesAt(believes)).toEqual(['203.0.113.9'])
    expect(addressesAt(doubts)).toEqual([expect.stringMatching(/127.0.0.1|7f00:0001/)])
  })

  it('takes who comes through such a proxy for no machine of its own: /metrics is not for him', async () => {
    const headers = { 'X-Forwarded-For': '203.0.113.9' }
    expect((await request(believes.url, 'GET', '/metrics', { headers })).status).toBe(404)
    expect((await request(believes.url, 'GET', '/metrics')).status).toBe(200)
    expect((await request(doubts.url, 'GET', '/metrics', { headers })).status).toBe(200)
  })

  it('is not misled by an empty line that a client put in front of what its proxy wrote', async () => {
    // fetch joins lines, a proxy leaves them as they came.
    const status = await new Promise((resolve, reject) => {
      const headers = { 'X-Forwarded-For': ['', '203.0.113.9'] }
      get(`${believes.url}/metrics`, { headers }, (answer) => resolve(answer.resume().statusCode)).on('error', reject)
    })
    expect(status).toBe(404)
  })
})
