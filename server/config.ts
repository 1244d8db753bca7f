// The operator's choices, from environment variables: the only reader of process.env. Numbers of the protocol are in proto/limits.ts.
import { z } from 'zod'
import type { Rate } from '../keys/meter.ts'
import type { DrainSettings } from './drain.ts'
import { LIMITS, type LimitRates, mapLimits, parseRates } from './limits.ts'
import { isOrigin, misspelt } from './spelling.ts'
import type { OutsideIssuer } from './tokens.ts'

/** A reason not to start that the operator can act on; each line of the message is complete and holds no secret. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** From most to least talkative. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

export type Config = {
  /** 0 = any free port. */
  port: number
  /** Address to listen on. */
  host: string
  /** Null = the embedded PostgreSQL in dataDir. Holds a password: never logged (I16). */
  databaseUrl: string | null
  dataDir: string
  /** What joins several nodes; null = this is the only one. The URLs may hold a password: never logged (I16). */
  redis: { urls: string[]; cluster: boolean } | null
  /** Issuer and audience of the relay's tokens, and part of every identity_proof. [I-2] */
  realm: string
  /** Who may make an account. [I-1] */
  registration: 'open' | 'invite' | 'issuer'
  /** Whether people who share no conversation must ask each other first. [V-6] */
  strangers: 'ask' | 'open'
  /** Another party that vouches for people. [T-5] */
  issuer: OutsideIssuer | null
  log: { level: (typeof LOG_LEVELS)[number]; format: 'pretty' | 'json' }
  queue: {
    /** Envelopes waiting for one device before it counts as full. [Q-8] */
    maxMessages: number
    /** Life of an undelivered envelope, milliseconds. [Q-8] */
    ttlMs: number
  }
  /** Open sockets of this node. */
  maxConnections: number
  /** Of them those of one user. [C-1.3] */
  maxUserConnections: number
  /** How often what may be done. */
  limits: LimitRates
  drain: DrainSettings
  /** Origins whose pages may read answers, as browsers send them. [H-11] */
  allowedOrigins: string[]
  /** Bearer token for /metrics; null = it is served to this machine only. Never logged (I16). [H-9] */
  metricsToken: string | null
}

type Variable = {
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
    schema: whole(1, 1e6, 1000),
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
      'Bearer token that GET /metrics asks for, at least 16 characters. Unset, it is served to connections from this machine only, and a reverse proxy on this machine is one.',
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
type Values = { [K in Name]: z.output<(typeof VARIABLES)[K]['schema']> }

/** These and those of limits.ts, which says how they are written. */
const ALL: Record<string, Variable> = { ...VARIABLES }
for (const { variable, about, unset } of Object.values(LIMITS)) {
  const isRight = (text: string) => parseRates(text) !== null
  const schema = z.string().default(unset).refine(isRight, 'is neither off nor of the form 10/s or 5000+500/s')
  ALL[variable] = { about, unset, example: unset, schema: schema.transform((text) => parseRates(text)!) }
}

/**
 * Reads and checks all variables. An empty one counts as unset.
 * @param isTerminal whether the log is read by a person.
 * @throws StartError with one line per wrong variable: its name, what is wrong, an example.
 */
export function readConfig(env: NodeJS.ProcessEnv = process.env, isTerminal = process.stderr.isTTY === true): Config {
  const problems: string[] = []
  const names = Object.keys(ALL)
  const read: Record<string, unknown> = {}
  for (const name of names) {
    const variable = ALL[name]!
    const given = env[name] || undefined
    const checked = variable.schema.safeParse(given)
    if (checked.success) read[name] = checked.data
    else {
      const shown = variable.secret ? name : `${name}=${given}`
      problems.push(`${shown} ${checked.error.issues[0]!.message}; for example ${name}=${variable.example}`)
    }
  }
  problems.push(...misspelt(env, names))
  if (read.SEALPOST_REGISTRATION === 'issuer' && !env.SEALPOST_ISSUER_URL) {
    problems.push(
      `SEALPOST_REGISTRATION=issuer needs SEALPOST_ISSUER_URL; for example SEALPOST_ISSUER_URL=${VARIABLES.SEALPOST_ISSUER_URL.example}`,
    )
  }
  if (read.SEALPOST_REDIS_CLUSTER !== undefined && !env.REDIS_URL)
    problems.push(`SEALPOST_REDIS_CLUSTER needs REDIS_URL; for example REDIS_URL=${VARIABLES.REDIS_URL.example}`)
  if (read.SEALPOST_REDIS_CLUSTER === 'no' && (read.REDIS_URL as string[] | undefined)?.[1])
    problems.push('SEALPOST_REDIS_CLUSTER=no does not fit several URLs in REDIS_URL; give one')
  const [pause, grace] = [Number(read.SEALPOST_DRAIN_PAUSE_SECONDS), Number(read.SEALPOST_GRACE_SECONDS)]
  if (pause > 0 && pause > grace / 2) {
    problems.push(
      `SEALPOST_DRAIN_PAUSE_SECONDS=${pause} is more than half of SEALPOST_GRACE_SECONDS=${grace}; for example SEALPOST_GRACE_SECONDS=${Math.max(30, 2 * pause)}`,
    )
  }
  if (problems.length > 0) throw new StartError(problems.join('\n'))
  const limits = mapLimits((name) => read[LIMITS[name].variable] as Rate[])
  return { ...assemble(read as Values, isTerminal), limits }
}

function assemble(values: Values, isTerminal: boolean): Omit<Config, 'limits'> {
  const realm = values.SEALPOST_REALM ?? `http://localhost:${values.PORT}`
  const issuer = values.SEALPOST_ISSUER_URL
  const urls = values.REDIS_URL
  return {
    port: values.PORT,
    host: values.HOST,
    databaseUrl: values.DATABASE_URL ?? null,
    dataDir: values.SEALPOST_DATA_DIR,
    redis: urls ? { urls, cluster: urls.length > 1 || values.SEALPOST_REDIS_CLUSTER === 'yes' } : null,
    realm,
    registration: values.SEALPOST_REGISTRATION,
    strangers: values.SEALPOST_STRANGERS,
    issuer: issuer
      ? {
          issuer,
          audience: values.SEALPOST_ISSUER_AUDIENCE ?? realm,
          algorithms: values.SEALPOST_ISSUER_ALGORITHMS,
          jwksUrl: values.SEALPOST_ISSUER_JWKS_URL ?? `${issuer.replace(/\/$/, '')}/.well-known/jwks.json`,
        }
      : null,
    log: { level: values.SEALPOST_LOG_LEVEL, format: values.SEALPOST_LOG_FORMAT ?? (isTerminal ? 'pretty' : 'json') },
    queue: {
      maxMessages: values.SEALPOST_QUEUE_MESSAGES,
      ttlMs: values.SEALPOST_QUEUE_TTL_DAYS * 24 * 3600 * 1000,
    },
    maxConnections: values.SEALPOST_MAX_CONNECTIONS,
    maxUserConnections: values.SEALPOST_MAX_USER_CONNECTIONS || Number.POSITIVE_INFINITY,
    drain: {
      pauseMs: values.SEALPOST_DRAIN_PAUSE_SECONDS * 1000,
      perSecond: values.SEALPOST_DRAIN_PER_SECOND,
      graceMs: values.SEALPOST_GRACE_SECONDS * 1000,
    },
    allowedOrigins: values.SEALPOST_ALLOWED_ORIGINS,
    metricsToken: values.SEALPOST_METRICS_TOKEN ?? null,
  }
}
