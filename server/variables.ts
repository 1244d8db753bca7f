// Every variable of the environment: what it means, how it is written, and what it is when it is not there. Read by config.ts alone.
import { z } from 'zod'
import { parseNetworks } from './forwarded.ts'
import { LIMITS, parseRates } from './limits.ts'
import { isOrigin } from './spelling.ts'

/** From most to least talkative. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

/** One variable of the environment. */
export type Variable = {
  /** One sentence for docs/configuration.md. */
  about: string
  example: string
  /** As documented; the schema holds the real one. */
  unset: string
  /** Its value is never repeated in a message. */
  secret?: true
  schema: z.ZodType
}

const whole = (least: number, most: number, otherwise: number) =>
  z
    .string()
    .regex(/^\d{1,15}$/, 'is not a whole number')
    .transform(Number)
    .refine((given) => given >= least && given <= most, `is not between ${least} and ${most}`)
    .default(otherwise)

const url = (...protocols: string[]) =>
  z.string().refine((text) => URL.canParse(text) && protocols.includes(new URL(text).protocol), {
    message: `is not a URL that starts with ${protocols.map((each) => `${each}//`).join(' or ')}`,
  })

const isRedisUrl = (text: string): boolean =>
  URL.canParse(text) && ['redis:', 'rediss:'].includes(new URL(text).protocol) && new URL(text).hostname !== ''

const oneOf = <const T extends readonly string[]>(values: T) => z.enum(values, `is not one of ${values.join(', ')}`)

/** Every variable there is, in the order of docs/configuration.md. */
export const VARIABLES = {
  PORT: {
    about: 'TCP port for HTTP and WebSocket; 0 takes any free one.',
    example: '8080',
    unset: '8080',
    schema: whole(0, 65535, 8080),
  },
  HOST: {
    about:
      'Address to listen on. The default is reachable from this machine only, because the relay speaks no TLS itself; behind a proxy on another machine, or in a container, use 0.0.0.0.',
    example: '0.0.0.0',
    unset: '127.0.0.1',
    schema: z.string().default('127.0.0.1'),
  },
  DATABASE_URL: {
    about: 'PostgreSQL 15 or newer, instead of the embedded one.',
    example: 'postgres://sealpost:password@db.example.org/sealpost',
    unset: 'embedded PostgreSQL in SEALPOST_DATA_DIR',
    secret: true,
    schema: url('postgres:', 'postgresql:').optional(),
  },
  REDIS_URL: {
    about:
      'Redis 7 or newer, which joins the nodes of one deployment; every node of it has the same. Several URLs, separated by commas, are nodes of one cluster.',
    example: 'redis://:password@redis.example.org:6379',
    unset: 'none: one node',
    secret: true,
    schema: z
      .string()
      .transform((text) => text.split(',').map((each) => each.trim()))
      .refine((all) => all.every(isRedisUrl), 'is not a list of URLs that start with redis:// or rediss://')
      .optional(),
  },
  SEALPOST_REDIS_CLUSTER: {
    about: 'Whether REDIS_URL is a cluster: `yes` for one that is found through a single URL.',
    example: 'yes',
    unset: 'yes for several URLs, otherwise no',
    schema: oneOf(['yes', 'no']).optional(),
  },
  WORKERS: {
    about:
      'Relays on this machine, each a process and a node of its own, that share PORT: one uses about one core. More than 1 need REDIS_URL and Linux. Limits per node, as SEALPOST_MAX_CONNECTIONS, are for each of them.',
    example: '4',
    unset: '1',
    schema: whole(1, 256, 1),
  },
  SEALPOST_DATA_DIR: {
    about: 'Where the embedded PostgreSQL keeps its data; made when missing.',
    example: '/var/lib/sealpost',
    unset: './data',
    schema: z.string().default('./data'),
  },
  SEALPOST_REALM: {
    about:
      'Public URL of this deployment: issuer of its tokens and part of every proof. Changing it voids tokens and makes it another world to clients.',
    example: 'https://chat.example.org',
    unset: 'http://localhost:PORT',
    schema: url('http:', 'https:')
      .refine((text) => text.length <= 255 && !/[/?#]$|[?#]/.test(text), 'has a query or ends with a slash')
      .optional(),
  },
  SEALPOST_REGISTRATION: {
    about: 'Who may make an account: anybody, holders of an invitation, or holders of an outside issuer’s token.',
    example: 'invite',
    unset: 'open',
    schema: oneOf(['open', 'invite', 'issuer']).default('open'),
  },
  SEALPOST_STRANGERS: {
    about:
      'Whether somebody who is written to or put into a group by a person he shares no conversation with is asked first (ask), or everybody here knows everybody (open), as within one company.',
    example: 'open',
    unset: 'ask',
    schema: oneOf(['ask', 'open']).default('ask'),
  },
  SEALPOST_ISSUER_URL: {
    about: 'Exact `iss` of an outside issuer whose tokens authorise registration and linking.',
    example: 'https://login.example.org',
    unset: 'none',
    schema: url('http:', 'https:').optional(),
  },
  SEALPOST_ISSUER_AUDIENCE: {
    about: 'Exact `aud` its tokens must carry.',
    example: 'sealpost',
    unset: 'the realm',
    schema: z.string().optional(),
  },
  SEALPOST_ISSUER_JWKS_URL: {
    about: 'Where its public keys are.',
    example: 'https://login.example.org/keys',
    unset: 'SEALPOST_ISSUER_URL followed by /.well-known/jwks.json',
    schema: url('http:', 'https:').optional(),
  },
  SEALPOST_ISSUER_ALGORITHMS: {
    about: 'Signature algorithms accepted of it, separated by commas.',
    example: 'ES256,EdDSA',
    unset: 'EdDSA,ES256,RS256',
    schema: z
      .string()
      .default('EdDSA,ES256,RS256')
      .transform((text) => text.split(',').map((each) => each.trim()))
      .refine(
        (all) => all.every((each) => /^(EdDSA|Ed25519|(ES|PS|RS)(256|384|512))$/.test(each)),
        'has an algorithm other than EdDSA, Ed25519, ES*, PS* and RS*',
      ),
  },
  SEALPOST_LOG_LEVEL: {
    about: 'Least level written; single messages are at debug.',
    example: 'debug',
    unset: 'info',
    schema: oneOf(LOG_LEVELS).default('info'),
  },
  SEALPOST_LOG_FORMAT: {
    about: 'Lines for people, or JSON for machines.',
    example: 'json',
    unset: 'pretty on a terminal, json otherwise',
    schema: oneOf(['pretty', 'json']).optional(),
  },
  SEALPOST_QUEUE_MESSAGES: {
    about: 'Envelopes that may wait for one device.',
    example: '10000',
    unset: '10000',
    schema: whole(1000, 1e9, 10_000),
  },
  SEALPOST_QUEUE_TTL_DAYS: {
    about: 'Days until an undelivered envelope is dropped.',
    example: '30',
    unset: '30',
    schema: whole(1, 3650, 30),
  },
  SEALPOST_MAX_CONNECTIONS: {
    about: 'Open WebSockets on this node; more are refused.',
    example: '50000',
    unset: '50000',
    schema: whole(1, 1e7, 50_000),
  },
  SEALPOST_MAX_USER_CONNECTIONS: {
    about: 'Of them those of one user, the ones being closed included; 0 = as many as there are.',
    example: '30',
    unset: '30',
    schema: whole(0, 1e7, 30),
  },
  SEALPOST_GRACE_SECONDS: {
    about:
      'From SIGTERM or Ctrl-C to the end: what is under way is answered, whoever is connected is sent away. What starts and stops the relay must allow it some seconds more.',
    example: '30',
    unset: '30',
    schema: whole(1, 3600, 30),
  },
  SEALPOST_DRAIN_PAUSE_SECONDS: {
    about:
      'Of the grace period, how long everything goes on while /readyz says 503 already: the time a load balancer takes to notice. 0 where there is none.',
    example: '5',
    unset: '0',
    schema: whole(0, 3600, 0),
  },
  SEALPOST_DRAIN_PER_SECOND: {
    about:
      'Connections sent away in a second, so that the other nodes do not get them all at once; more, if half of the grace period would not suffice.',
    example: '1000',
    unset: '1000',
    schema: whole(10, 1e6, 1000),
  },
  SEALPOST_TRUSTED_PROXIES: {
    about:
      'Addresses and networks of the proxies in front, separated by commas: of them, and of nobody else, X-Forwarded-For is believed. They must set it, not pass on what clients write there. Without it all who come through a proxy on another machine count as one address.',
    example: '10.0.0.0/8,fd00::/8',
    unset: '127.0.0.0/8,::1/128: this machine',
    schema: z
      .string()
      .default('127.0.0.0/8,::1/128')
      .transform((text) => parseNetworks(text))
      .refine((networks) => networks !== null, 'has an entry that is no IP address or network')
      .transform((networks) => networks!),
  },
  SEALPOST_ALLOWED_ORIGINS: {
    about:
      'Origins of web apps that may call this relay from a browser although they are served from elsewhere, separated by commas. An app served under the relay’s own origin, behind one proxy, needs none.',
    example: 'https://app.example.org,capacitor://localhost',
    unset: 'none',
    schema: z
      .string()
      .default('')
      .transform((text) => text.split(',').flatMap((each) => each.trim() || []))
      .refine(
        (all) => all.every(isOrigin),
        'has an entry that is not scheme://host or scheme://host:port as browsers write it',
      ),
  },
  SEALPOST_METRICS_TOKEN: {
    about:
      'Bearer token that GET /metrics asks for, at least 16 characters. Unset, it is served to this machine only; a reverse proxy here that does not set X-Forwarded-For makes everybody this machine.',
    example: 'f2c1a6e09b7d4583',
    unset: 'none; this machine only',
    secret: true,
    schema: z
      .string()
      .regex(/^[\x21-\x7e]{16,}$/, 'is shorter than 16 characters, or has blanks')
      .optional(),
  },
} as const satisfies Record<string, Variable>

type Name = keyof typeof VARIABLES
/** What they say, checked. */
export type Values = { [K in Name]: z.output<(typeof VARIABLES)[K]['schema']> }

/** These and those of limits.ts, which says how they are written. */
export const ALL: Record<string, Variable> = { ...VARIABLES }
for (const { variable, about, unset } of Object.values(LIMITS)) {
  const isRight = (text: string) => parseRates(text) !== null
  const schema = z.string().default(unset).refine(isRight, 'is neither off nor of the form 10/s or 5000+500/s')
  ALL[variable] = { about, unset, example: unset, schema: schema.transform((text) => parseRates(text)!) }
}
