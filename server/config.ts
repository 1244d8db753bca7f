// The operator's choices, from environment variables: the only reader of process.env. Numbers of the protocol are in proto/limits.ts.
import type { BlockList } from 'node:net'
import type { Rate } from '../keys/meter.ts'
import type { DrainSettings } from './drain.ts'
import { LIMITS, type LimitRates, mapLimits } from './limits.ts'
import { misspelt } from './spelling.ts'
import type { OutsideIssuer } from './tokens.ts'
import { ALL, type LOG_LEVELS, VARIABLES, type Values } from './variables.ts'

/** A reason not to start that the operator can act on; each line of the message is complete and holds no secret. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

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
    /** Envelopes waiting for one device before it counts as full. */
    maxMessages: number
    /** Life of an undelivered envelope, milliseconds. */
    ttlMs: number
  }
  /** Processes on this machine that share the port; 1 = this one alone. */
  workers: number
  /** Open sockets of this node. */
  maxConnections: number
  /** Of them those of one user. [C-1.3] */
  maxUserConnections: number
  /** How often what may be done. */
  limits: LimitRates
  drain: DrainSettings
  /** Whose X-Forwarded-For is believed. */
  trustedProxies: BlockList
  /** Origins whose pages may read answers, as browsers send them. [H-11] */
  allowedOrigins: string[]
  /** Bearer token for /metrics; null = it is served to this machine only. Never logged (I16). [H-9] */
  metricsToken: string | null
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
  if (Number(read.WORKERS) > 1 && !env.REDIS_URL)
    problems.push(
      `WORKERS=${read.WORKERS} needs REDIS_URL, through which they know of each other; for example REDIS_URL=redis://127.0.0.1:6379`,
    )
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
    workers: values.WORKERS,
    maxConnections: values.SEALPOST_MAX_CONNECTIONS,
    maxUserConnections: values.SEALPOST_MAX_USER_CONNECTIONS || Number.POSITIVE_INFINITY,
    drain: {
      pauseMs: values.SEALPOST_DRAIN_PAUSE_SECONDS * 1000,
      perSecond: values.SEALPOST_DRAIN_PER_SECOND,
      graceMs: values.SEALPOST_GRACE_SECONDS * 1000,
    },
    trustedProxies: values.SEALPOST_TRUSTED_PROXIES,
    allowedOrigins: values.SEALPOST_ALLOWED_ORIGINS,
    metricsToken: values.SEALPOST_METRICS_TOKEN ?? null,
  }
}
