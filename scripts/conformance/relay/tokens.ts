// [T-1] to [T-4]: access tokens and the endpoint that gives them.
import { createPublicKey, randomUUID, verify } from 'node:crypto'
import { type Check, hold, same, there } from '../check.ts'
import { askToken, call } from '../device.ts'
import { ok, refused } from '../http.ts'
import type { Kit } from '../world.ts'
import { claimsOf } from './connection.ts'

export const tokenChecks: Check<Kit>[] = [
  {
    clauses: ['T-1', 'T-1.1', 'T-2', 'H-4', 'L-1'],
    title:
      'a token is a JWT of one device: issuer and audience are the realm, dev is a UUID, it lives as long as is said',
    async run(kit) {
      const device = await kit.user()
      const { body } = ok(
        await askToken(kit.relay, {
          grant_type: 'client_credentials',
          client_id: device.clientId,
          client_secret: device.secret,
        }),
        200,
      )
      same(body.token_type, 'Bearer', 'as token_type')
      const { iss, aud, sub, device_id, dev, iat, exp } = claimsOf(body.access_token)
      same(
        [iss, aud, sub, device_id],
        [kit.relay.realm, kit.relay.realm, device.userId, device.deviceId],
        'as iss, aud, sub, device_id',
      )
      hold(/^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/.test(String(dev)), 'a UUID as dev', dev)
      same(exp - iat, body.expires_in, 'as life in the claims')
      hold(body.expires_in <= 3600, 'a life of at most an hour', body.expires_in)
      return `${body.expires_in} s, dev ${dev}`
    },
  },
  {
    clauses: ['T-4', 'H-4'],
    title: 'tokens verify under the published keys',
    async run(kit) {
      const device = await kit.user()
      const { keys } = ok(await call(kit.relay, 'GET', '/.well-known/jwks.json'), 200).body
      const [head, claims, signature] = device.token.split('.') as [string, string, string]
      const { alg, kid } = JSON.parse(Buffer.from(head, 'base64url').toString())
      same(alg, 'EdDSA', 'as alg')
      const jwk = there(
        keys.find((each: { kid: string }) => each.kid === kid),
        `a key ${kid}`,
      ) as Record<string, string>
      same([jwk.kty, jwk.crv, jwk.alg, jwk.use], ['OKP', 'Ed25519', 'EdDSA', 'sig'], 'as the key’s kind')
      hold(!('d' in jwk), 'no private half', 'one')
      const key = createPublicKey({ key: jwk as never, format: 'jwk' })
      const valid = verify(null, Buffer.from(`${head}.${claims}`), key, Buffer.from(signature, 'base64url'))
      hold(valid, 'a signature that verifies', 'one that does not')
      return `EdDSA under key ${kid}; ${keys.length} published`
    },
  },
  {
    clauses: ['T-3', 'H-4'],
    title: 'client_credentials in the body or as HTTP Basic; unknown parameters are ignored',
    async run(kit) {
      const { clientId, secret } = await kit.user()
      const grant = { grant_type: 'client_credentials' }
      ok(await askToken(kit.relay, { ...grant, client_id: clientId, client_secret: secret, colour: 'red' }), 200)
      const basic = Buffer.from(`${encodeURIComponent(clientId)}:${encodeURIComponent(secret)}`).toString('base64')
      ok(await askToken(kit.relay, grant, { Authorization: `Basic ${basic}` }), 200)
      return 'both gave a token'
    },
  },
  {
    clauses: ['T-3.1'],
    title: 'errors have RFC 6749’s form; unknown devices and wrong secrets are one answer',
    async run(kit) {
      const { clientId, secret } = await kit.user()
      const grant_type = 'client_credentials'
      const wrong = await askToken(kit.relay, {
        grant_type,
        client_id: clientId,
        client_secret: `${secret.slice(0, 42)}_`,
      })
      const unknown = await askToken(kit.relay, { grant_type, client_id: `${randomUUID()}.1`, client_secret: secret })
      const malformed = await askToken(kit.relay, { grant_type, client_id: 'nobody', client_secret: secret })
      for (const answer of [wrong, unknown, malformed])
        same([answer.status, answer.body?.error], [401, 'invalid_client'], 'as status and error')
      same(wrong.text, unknown.text, 'as the whole answer of both')
      const grant = await askToken(kit.relay, { grant_type: 'password', client_id: clientId, client_secret: secret })
      same([grant.status, grant.body?.error], [400, 'unsupported_grant_type'], 'for another grant type')
      const none = await askToken(kit.relay, { client_id: clientId, client_secret: secret })
      same([none.status, none.body?.error], [400, 'invalid_request'], 'for no grant type')
      return 'invalid_client word for word; unsupported_grant_type; invalid_request'
    },
  },
  {
    clauses: ['H-3'],
    title: 'endpoints of devices want a token, and say so',
    async run(kit) {
      const paths = ['/v1/devices', '/v1/keys', '/v1/conversations', `/v1/keys/${randomUUID()}/*`]
      for (const token of [null, 'garbage'])
        for (const path of paths) {
          const answer = refused(
            await call(kit.relay, 'GET', path, { token }),
            'UNAUTHENTICATED',
            `${path} with token ${token}`,
          )
          hold(
            /^Bearer/.test(answer.headers.get('www-authenticate') ?? ''),
            'WWW-Authenticate: Bearer',
            answer.headers.get('www-authenticate'),
          )
        }
      const { token } = await kit.user()
      refused(
        await call(kit.relay, 'GET', `/v1/devices?access_token=${token}`),
        'UNAUTHENTICATED',
        'a token in the query',
      )
      return `${paths.length} endpoints: 401 with WWW-Authenticate; a token in the query is not read`
    },
  },
]
