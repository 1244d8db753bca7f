// For the operator and his machines: alive, ready, metrics, and the HTTP interface described for machines. [H-9]
import { z } from 'zod'
import type { Route } from '../../proto/route.ts'
import { route } from '../../proto/route.ts'
import type { Sql } from '../database.ts'
import type { Observe } from '../observe.ts'

/** How long readiness waits for the database, milliseconds. */
const READY_WITHIN_MS = 2000

/**
 * @param options.routes all routes of the relay; these four are described with them.
 * @param options.draining true once the relay takes no more work.
 */
export function operationRoutes(options: {
  sql: Sql
  observe: Observe
  routes: readonly Route[]
  draining: () => boolean
}): Route[] {
  const { sql, observe, draining } = options
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
          ? { status: 200, body: { ready: true, missing: [] } }
          : { status: 503, body: { ready: false, missing: ['database'] } }
      },
    }),
    route({
      method: 'GET',
      path: '/metrics',
      summary: 'Prometheus text exposition.',
      auth: 'none',
      handle: async () => {
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
    const type = each.form ? 'application/x-www-form-urlencoded' : 'application/json'
    paths[path] ??= {}
    paths[path][each.method.toLowerCase()] = {
      summary: each.summary,
      parameters: names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } })),
      ...(each.auth === 'device' ? { security: [{ device: [] }] } : {}),
      ...(each.body
        ? {
            requestBody: {
              required: true,
              content: { [type]: { schema: z.toJSONSchema(each.body, { io: 'input', unrepresentable: 'any' }) } },
            },
          }
        : {}),
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
