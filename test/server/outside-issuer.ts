// An outside issuer that really serves its keys: an HTTP server with a JWKS, and tokens signed under it.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type CryptoKey, exportJWK, generateKeyPair, SignJWT } from 'jose'
import type { OutsideIssuer } from '../../server/tokens.ts'

const ISSUER = 'https://login.test'
const AUDIENCE = 'sealpost'

export type Answer = { status: number; body: unknown }

/** @param nowMs when its tokens are young. */
export async function startOutsideIssuer(nowMs: number) {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true })
  const jwk = { ...(await exportJWK(publicKey)), kid: 'outside-1', alg: 'ES256', use: 'sig' }
  const state = { fetches: 0, answer: { status: 200, body: { keys: [jwk] } } as Answer }
  const server = createServer((_request, response) => {
    state.fetches++
    response.writeHead(state.answer.status, { 'content-type': 'application/json' })
    response.end(JSON.stringify(state.answer.body))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const jwksUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`
  const config: OutsideIssuer = { issuer: ISSUER, audience: AUDIENCE, algorithms: ['ES256'], jwksUrl }
  return {
    config,
    /** What it answers, and how often it was asked. */
    state,
    sign: (claims: Record<string, unknown> = {}, header: Record<string, unknown> = {}, key: CryptoKey = privateKey) =>
      new SignJWT({ iss: ISSUER, aud: AUDIENCE, sub: 'person-1', exp: nowMs / 1000 + 300, ...claims })
        .setProtectedHeader({ alg: 'ES256', kid: 'outside-1', ...header })
        .sign(key),
    close: () => {
      server.closeAllConnections()
      server.close()
    },
  }
}
