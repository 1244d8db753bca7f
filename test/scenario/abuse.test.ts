// What one stranger, or one account, can do to everybody else over HTTP and the socket: bounds that must hold.
import { randomBytes } from 'node:crypto'
import { usernames } from '@signalapp/libsignal-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Client, request } from '../support/client.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { upgrade } from '../support/upgrade.ts'

const QUOTA = 20
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ config: { queue: { maxMessages: QUOTA, ttlMs: 30 * 24 * 3600 * 1000 } } })
})
afterAll(async () => {
  await relay.close()
})

/** Statuses of so many requests, one after the other, or up to the first that is refused as one too many. */
async function statuses(count: number, ask: (at: number) => Promise<{ status: number }>): Promise<Set<number>> {
  const seen = new Set<number>()
  for (let at = 0; at < count && !seen.has(429); at++) seen.add((await ask(at)).status)
  return seen
}

describe('I14: what a body is made of is bounded before its parts are looked at', () => {
  it.each(['0', '{}'])('half a million parts like %s, without a token', async (part) => {
    const parts = Math.floor((1024 * 1024 - 100) / (part.length + 1))
    const body = `{"one_time_prekeys":[${`${part},`.repeat(parts)}${part}]}`
    const answer = await request(relay.url, 'POST', '/v1/accounts', { body })
    expect(answer.status).toBe(400)
    // An answer about a part means that an issue was made for every one of them: seconds of the event loop.
    expect(answer.body.error.message).not.toMatch(/one_time_prekeys\[/)
  })
})

describe('usernames: taking one is no way around the look-up budget [U-4], and nobody hoards [U-3]', () => {
  const claim = (nickname: string) => {
    const { hash, username } = usernames.fromParts(nickname, '42', 3, 32)
    return { username_hash: base64(hash), proof: base64(usernames.generateProof(username)) }
  }

  it('asking whether a name is taken by taking it', async () => {
    const [holder, prober] = [await Client.register(relay), await Client.register(relay)]
    const name = claim('somebody')
    expect((await holder.put('/v1/username', name)).status).toBe(204)
    expect(await statuses(30, () => prober.put('/v1/username', name))).toContain(429)
  })

  it('locking one name after the other', async () => {
    const hoarder = await Client.register(relay)
    expect(await statuses(30, (at) => hoarder.put('/v1/username', claim(`hoard_${at}`)))).toContain(429)
  })
})

describe('a stranger and a queue', () => {
  it('system events do not take the room of messages [Q-8]', async () => {
    const [victim, friend, stranger, other] = await Promise.all([1, 2, 3, 4].map(() => Client.register(relay)))
    const direct = await friend!.direct(victim!)
    const group = { kind: 'group', user_ids: [victim!.userId, other!.userId], signed_change: base64(randomBytes(1024)) }
    await statuses(QUOTA + 5, () => stranger!.post('/v1/conversations', group))
    const socket = await friend!.live()
    expect((await socket.send(direct, [victim!.to()])).messageAccepted).toBeTruthy()
    socket.ws.terminate()
  })

  it('conversations are made at a bounded rate', async () => {
    const [victim, stranger] = [await Client.register(relay), await Client.register(relay)]
    const again = async () => {
      const made = await stranger.post('/v1/conversations', { kind: 'direct', user_id: victim.userId })
      return made.status === 201 ? stranger.post(`/v1/conversations/${made.body.conversation_id}/archive`) : made
    }
    expect(await statuses(200, again)).toContain(429)
  })
})

describe('prekeys of others', () => {
  it('opening a conversation that the target never took part in does not open the reserve [K-5.3]', async () => {
    const target = await Client.register(relay, { oneTime: 100, kyberOneTime: 0 })
    let taken = 0
    for (let users = 0; users < 18; users++) {
      const stranger = await Client.register(relay, { oneTime: 0, kyberOneTime: 0 })
      await stranger.direct(target)
      await statuses(6, async () => {
        const answer = await stranger.get(`/v1/keys/${target.userId}/1`)
        if (answer.body.devices[0].one_time_prekey) taken++
        return answer
      })
    }
    expect(taken).toBe(50)
  })

  it('uploads of one device come at a bounded rate', async () => {
    const device = await Client.register(relay, { oneTime: 0, kyberOneTime: 0 })
    const keys = device.device.makeOneTimePrekeys(1, 1)
    const json = { one_time_prekeys: keys.map((key) => ({ key_id: key.keyId, public_key: base64(key.publicKey) })) }
    expect(await statuses(150, () => device.put('/v1/keys', json))).toContain(429)
  })
})

describe('refusals have the form that is promised', () => {
  it('the token endpoint answers as RFC 6749 says, whatever is wrong [T-3.1]', async () => {
    const wrongType = await request(relay.url, 'POST', '/oauth/token', { json: { grant_type: 'client_credentials' } })
    expect([wrongType.status, wrongType.body.error]).toEqual([400, 'invalid_request'])
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' }
    const large = await request(relay.url, 'POST', '/oauth/token', { body: 'a='.padEnd(5000, 'x'), headers })
    expect(typeof large.body.error).toBe('string')
  })

  it('a wrong device secret is seen by the operator', async () => {
    const { userId } = await Client.register(relay)
    const before = relay.logged.length
    const body = `grant_type=client_credentials&client_id=${userId}.1&client_secret=${'A'.repeat(43)}`
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' }
    expect((await request(relay.url, 'POST', '/oauth/token', { body, headers })).status).toBe(401)
    expect(relay.logged.slice(before).join()).toContain('unauthorized')
  })

  it('an upgrade that is refused names the scheme [H-3]', async () => {
    const refused = await upgrade(relay.socketUrl)
    refused.ws.terminate()
    expect([refused.status, refused.headers['www-authenticate']]).toEqual([401, 'Bearer'])
  })
})

describe('uploads', () => {
  it('a key that is twice in one upload, in two lists, is refused [K-2.6]', async () => {
    const client = await Client.register(relay)
    const { keyId, publicKey, signature } = client.device.makeSignedPrekey(9)
    const answer = await client.put('/v1/keys', {
      signed_prekey: { key_id: keyId, public_key: base64(publicKey), signature: base64(signature) },
      one_time_prekeys: [{ key_id: 77, public_key: base64(publicKey) }],
    })
    expect(answer.status).toBe(400)
  })
})
