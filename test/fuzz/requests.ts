// What requests nobody meant are made of: values, bodies, paths, content types. Sent by http.test.ts.
import fc from 'fast-check'

/** The part of a JSON schema that /openapi.json uses. */
export type Schema = {
  type?: string
  properties?: Record<string, Schema>
  items?: Schema
  anyOf?: Schema[]
  const?: unknown
  enum?: unknown[]
}

export type Asked = { method: string; path: string; body: Uint8Array; headers: Record<string, string> }

/** A body of any value that has a JSON form. */
export const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value) ?? '')

const uuid = fc.uuid()
const base64 = fc.uint8Array({ maxLength: 70 }).map((bytes) => Buffer.from(bytes).toString('base64'))
const odd = fc.constantFrom<unknown>(
  ...[
    null,
    true,
    false,
    0,
    -0,
    -1,
    1e308,
    2 ** 53,
    2 ** 31,
    0.5,
    '',
    ' ',
    '\0',
    '\ud800',
    '*',
    '../..',
    '__proto__',
    [],
    {},
  ],
)
/** Any JSON value, odd ones often. */
export const any = fc.oneof(
  odd,
  uuid,
  base64,
  fc.string({ unit: 'binary', maxLength: 60 }),
  fc.integer(),
  fc.jsonValue({ maxDepth: 3 }),
)

/** Values that have the declared shape nearly everywhere. @param userId one that exists. */
export function shaped(schema: Schema, userId: string): fc.Arbitrary<unknown> {
  const part = (each: Schema): fc.Arbitrary<unknown> => shaped(each, userId)
  const right = ((): fc.Arbitrary<unknown> => {
    if (schema.const !== undefined) return fc.constant(schema.const)
    if (schema.enum) return fc.constantFrom(...schema.enum)
    if (schema.anyOf) return fc.oneof(...schema.anyOf.map(part))
    if (schema.properties) {
      const known = Object.fromEntries(Object.entries(schema.properties).map(([name, each]) => [name, part(each)]))
      return fc.record(known, { requiredKeys: [] })
    }
    if (schema.type === 'array') return fc.array(part(schema.items ?? {}), { maxLength: 4 })
    if (schema.type === 'integer' || schema.type === 'number')
      return fc.oneof(fc.nat(300), fc.integer(), fc.maxSafeNat())
    if (schema.type === 'boolean') return fc.boolean()
    if (schema.type === 'string') return fc.oneof(uuid, base64, fc.constant(userId), fc.string({ maxLength: 40 }))
    return any
  })()
  return fc.oneof({ weight: 12, arbitrary: right }, { weight: 1, arbitrary: any })
}

const deep = (depth: number, open: string, close: string): string => open.repeat(depth) + close.repeat(depth)
/** Bodies that are no JSON, or JSON nobody writes. */
export const RAW = [
  ...[
    '',
    '{',
    '[',
    '"',
    'nul',
    '{"a":1e400}',
    `{"a":${'9'.repeat(400)}}`,
    '{"a":-1e-400}',
    '\ufeff{}',
    '{"__proto__":{"a":1}}',
  ],
  ...[deep(20_000, '[', ']'), `${deep(10_000, '{"a":', '')}1${'}'.repeat(10_000)}`, `{"constructor":{"prototype":{}}}`],
  ...['{"kind":"group","kind":"direct"}', '{"a":"\\ud800"}', '{"a":"\\u0000"}', 'a=1&a=2&b', '%', '&&&=', '=%00'],
]
/** Content types, right and wrong. */
export const types = fc.constantFrom(
  'application/json',
  'text/plain',
  'application/x-www-form-urlencoded',
  '',
  'multipart/form-data; boundary=x',
  '\u00e9',
)

/** The path with its places filled. */
export const paths = (path: string): fc.Arbitrary<string> => {
  const place = fc.oneof(
    fc.constantFrom(
      '*',
      '0',
      '1',
      '127',
      '128',
      '-1',
      '1e2',
      '%',
      '%00',
      '%2e%2e',
      '%ff',
      '+',
      'x'.repeat(300),
      '%F0%9F%92%A9',
    ),
    uuid,
    base64.map(encodeURIComponent),
    fc.string({ unit: 'grapheme', maxLength: 12 }).map((text) => encodeURIComponent(text)),
  )
  const query = fc.oneof(
    fc.constant(''),
    fc.constantFrom(
      '?',
      '?limit=1',
      '?limit=-1&limit=x',
      '?after=%00',
      '?a=%',
      '?cursor=%F0',
      `?q=${'y'.repeat(2000)}`,
    ),
    fc
      .dictionary(fc.constantFrom('limit', 'after', 'before', 'cursor', 'x'), fc.string({ maxLength: 12 }))
      .map((all) => `?${new URLSearchParams(all)}`),
  )
  const names = [...path.matchAll(/\{\w+\}/g)].length
  return fc.tuple(fc.array(place, { minLength: names, maxLength: names }), query).map(([places, tail]) => {
    let next = 0
    return path.replace(/\{\w+\}/g, () => places[next++]!) + tail
  })
}
