// [H-1] [H-2] [H-9] [E-1]: bodies, refusals, the endpoints for operators.
import { randomBytes } from 'node:crypto'
import { base64 } from '../bytes.ts'
import { type Check, hold, same } from '../check.ts'
import { call } from '../device.ts'
import { codeOf, ok, refused } from '../http.ts'
import type { Kit } from '../world.ts'

export const httpChecks: Check<Kit>[] = [
  {
    clauses: ['H-1'],
    title:
      'unknown fields at any depth are refused by name; an empty body is an empty object; ids and base64 are canonical',
    async run(kit) {
      const device = await kit.user()
      const key = device.keys.oneTime(9000, 1)[0]!
      const digest = base64(randomBytes(32))
      const named = async (path: string, method: 'POST' | 'PUT', json: object, name: string) => {
        const answer = await call(device.relay, method, path, { token: device.token, json })
        hold(
          refused(answer, 'INVALID_REQUEST', `the field ${name}`).text.includes(name),
          `${name} to be named`,
          answer.text,
        )
      }
      await named('/v1/keys/check', 'POST', { digest, colour: 1 }, 'colour')
      await named(
        '/v1/keys',
        'PUT',
        { one_time_prekeys: [{ key_id: 9000, public_key: base64(key.publicKey), flavour: 1 }] },
        'flavour',
      )
      const raw = (body: string) =>
        call(device.relay, 'PUT', '/v1/keys', {
          token: device.token,
          body,
          headers: { 'Content-Type': 'application/json' },
        })
      ok(await raw(''), 200)
      refused(await raw('{"one_time_prekeys": ['), 'INVALID_REQUEST', 'JSON that breaks off')
      refused(await raw('[]'), 'INVALID_REQUEST', 'a list as body')
      const text = base64(key.publicKey)
      const bad = [
        text.replace(/.$/, ''),
        text.replaceAll('+', '-').replaceAll('/', '_').replace(/^..../, '-_-_'),
        `${text}\n`,
        digest.replace(/=$/, ''),
      ]
      for (const public_key of bad)
        refused(
          await device.put('/v1/keys', { one_time_prekeys: [{ key_id: 9000, public_key }] }),
          'INVALID_REQUEST',
          `base64 ${public_key}`,
        )
      // The same 32 bytes with the unused bits of the last digit set.
      const loose = base64(Buffer.alloc(32)).replace('A=', 'B=')
      refused(await device.post('/v1/keys/check', { digest: loose }), 'INVALID_REQUEST', 'base64 with bits to spare')
      const upper = await device.get(`/v1/keys/${device.userId.toUpperCase()}/*`)
      hold(upper.status === 400 || upper.status === 404, 'a UUID in capitals refused', upper.status)
      return '2 fields named, 5 kinds of base64 and 2 of JSON refused, an empty body taken'
    },
  },
  {
    clauses: ['H-1', 'L-1'],
    title: 'bodies above 64 KiB are TOO_LARGE, above 1 MiB where keys are uploaded',
    async run(kit) {
      const device = await kit.user()
      const large = (bytes: number) => JSON.stringify({ digest: 'A'.repeat(bytes) })
      const post = (path: string, method: string, body: string) =>
        call(device.relay, method, path, { token: device.token, body, headers: { 'Content-Type': 'application/json' } })
      refused(await post('/v1/keys/check', 'POST', large(70_000)), 'TOO_LARGE', '70,000 bytes')
      refused(await post('/v1/keys', 'PUT', large(70_000)), 'INVALID_REQUEST', '70,000 bytes where 1 MiB are allowed')
      refused(await post('/v1/keys', 'PUT', large(1_100_000)), 'TOO_LARGE', '1,100,000 bytes')
      return '413 above each limit'
    },
  },
  {
    clauses: ['H-2', 'E-1'],
    title: 'refusals have one shape; an unknown path or method is NOT_FOUND',
    async run(kit) {
      const device = await kit.user()
      const answer = refused(await device.get('/v1/nothing'), 'NOT_FOUND', 'an unknown path')
      const { code, message, retry_after_ms } = answer.body.error
      same([typeof code, typeof message, retry_after_ms], ['string', 'string', 0], 'as the error’s fields')
      hold(/json/.test(answer.headers.get('content-type') ?? ''), 'JSON', answer.headers.get('content-type'))
      refused(await device.delete('/v1/keys'), 'NOT_FOUND', 'an unknown method')
      refused(await call(device.relay, 'GET', '/'), 'NOT_FOUND', 'the root')
      return 'code, message and retry_after_ms; 404 three times'
    },
  },
  {
    clauses: ['H-2'],
    title: 'with a retry time there is a Retry-After header in whole seconds',
    async run(kit) {
      const by = await kit.fresh()
      const hash = randomBytes(32).toString('base64url')
      for (let at = 0; at < 40; at++) {
        const answer = await by.get(`/v1/usernames/${hash}`)
        if (codeOf(answer) !== 'RATE_LIMITED') continue
        const header = answer.headers.get('retry-after')
        const ms = answer.body.error.retry_after_ms
        hold(
          ms > 0 && /^\d+$/.test(header ?? '') && Math.abs(Number(header) * 1000 - ms) <= 1000,
          `about ${ms} ms in whole seconds`,
          header,
        )
        return `retry_after_ms ${ms}, Retry-After ${header}`
      }
      hold(false, 'RATE_LIMITED within 40 look-ups', 'none')
    },
  },
  {
    clauses: ['H-9'],
    title: 'healthz, readyz and openapi.json answer anybody',
    async run(kit) {
      const { relay } = kit
      ok(await call(relay, 'GET', '/healthz'), 200)
      same(ok(await call(relay, 'GET', '/readyz'), 200).body.ready, true, 'as ready')
      const { body } = ok(await call(relay, 'GET', '/openapi.json'), 200)
      hold(
        /^3\./.test(body?.openapi ?? '') && body.paths?.['/v1/keys'],
        'OpenAPI 3 with /v1/keys',
        Object.keys(body?.paths ?? {}).length,
      )
      const metrics = await call(relay, 'GET', '/metrics')
      hold(
        metrics.status === 404 || (metrics.status === 200 && metrics.text.includes('# TYPE')),
        'metrics for the operator or NOT_FOUND',
        metrics.status,
      )
      return `ready; ${Object.keys(body.paths).length} paths described; /metrics ${metrics.status === 200 ? 'is served to this machine' : '404'}`
    },
  },
]
