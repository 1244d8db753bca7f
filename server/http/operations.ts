// For the operator and his machines: alive, ready, metrics, and the HTTP interface described for machines. [H-9]
import { createHash, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { RelayError } from '../../proto/errors.ts'
import type { Route } from '../../proto/route.ts'
import { route } from '../../proto/route.ts'
import type { Sql } from '../database.ts'
import { isLoopback } from '../loopback.ts'
import type { Observe } from '../observe.ts'

/** How long readiness waits for the database, milliseconds. */
const READY_WITHIN_MS = 2000

const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest()
// Of equal length, and compared in constant time.
const isToken = (given: string, expected: string): boolean => timingSafeEqual(sha256(given), sha256(expected))

/**
 * @param options.metricsToken what /metrics asks for; null = it is served to this machine only.
 * @param options.routes all routes of the relay; these four are described with them.
 * @param options.isJoined false is told beside readiness, and is no reason against it.
 * @param options.draining true once the relay takes no more work.
 */
export function operationRoutes(options: {
  sql: Sql
  observe: Observe
  routes: readonly Route[]
  draining: () => boolean
  metricsToken: string | null
  /** False: what joins the nodes is away. The node works on, so it stays ready (I11). */
  isJoined(): boolean
}): Route[] {
  const { sql, observe, draining, metricsToken, isJoined } = options
  let described: unknown
  const own: Route[] = [
    route({
      method: 'GET',
      path: '/healthz',
      summary: 'The process is alive.',
      auth: 'none',
      handle: () => ({ status: 200, body: { alive: true } }),
    }),
    route({
      method: 'GET',
      path: '/readyz',
      summary: 'The relay takes work: 200, or 503 with what is missing.',
      auth: 'none',
      handle: async () => {
        if (draining()) return { status: 503, body: { ready: false, missing: ['draining'] } }
        const database = await answers(sql)
        return database
          ? { status: 200, body: { ready: true, missing: [], ...(!isJoined() && { degraded: ['redis'] }) } }
          : { status: 503, body: { ready: false, missing: ['database'] } }
      },
    }),
    route({
      method: 'GET',
      path: '/metrics',
      summary: 'Prometheus text exposition, for the operator only.',
      auth: 'none',
      handle: async ({ address, bearer }) => {
        const allowed = metricsToken === null ? isLoopback(address) : bearer !== null && isToken(bearer, metricsToken)
        // As for a path that does not exist. I13
        if (!allowed) throw new RelayError('NOT_FOUND', 'no such endpoint')
        const { text, contentType } = await observe.exposition()
        return { status: 200, body: text, contentType }
      },
    }),
    route({
      method: 'GET',
      path: '/openapi.json',
      summary: 'This interface, for machines.',
      auth: 'none',
      handle: () => {
        described ??= openapi([...options.routes, ...own])
        return { status: 200, body: described }
      },
    }),
  ]
  return own
}

async function answers(sql: Sql): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(resolve, READY_WITHIN_MS, false)
  })
  const asked = sql`select 1`.then(
    () => true,
    () => false,
  )
  return Promise.race([asked, late]).finally(() => clearTimeout(timer))
}

/** OpenAPI 3.1 of these routes. Answers are in proto/README.md; here are paths, parameters and bodies. */
export function openapi(routes: readonly Route[]): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const each of routes) {
    const path = each.path.replace(/:(\w+)/g, '{$1}')
    const names = [...each.path.matchAll(/:(\w+)/g)].map((found) => found[1]!)
    const body = bodyOf(each)
    paths[path] ??= {}
    paths[path][each.method.toLowerCase()] = {
      summary: each.summary,
      parameters: names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } })),
      ...(each.auth === 'device' ? { security: [{ device: [] }] } : {}),
      ...(body ? { requestBody: { required: true, content: body } } : {}),
      responses: { default: { description: 'proto/README.md, section H' } },
    }
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Sealpost', version: '1' },
    components: { securitySchemes: { device: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } } },
    paths,
  }
}

/** The body's content types with their schemas; null = there is none. */
function bodyOf({ body, form, raw }: Route): Record<string, { schema: unknown }> | null {
  if (raw) return { 'application/x-protobuf': { schema: { type: 'string', format: 'binary' } } }
  if (!body) return null
  const schema = z.toJSONSchema(body, { io: 'input', unrepresentable: 'any' })
  return { [form ? 'application/x-www-form-urlencoded' : 'application/json']: { schema } }
}
