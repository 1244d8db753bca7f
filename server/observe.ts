// What the operator sees: the log and the metrics of one relay. The only importer of pino and prom-client.
// Never content, keys, tokens or secrets (I16): events have fixed fields, and redaction is only the second line of defence.
import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'
import { AggregatorRegistry, Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { ErrorCode } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import type { Config } from './config.ts'

/** Structured log: fields first, a constant sentence second. */
export type Log = Pick<Logger, 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal'>

/** Metrics of one relay; two in one process do not collide. */
export type Metrics = ReturnType<typeof openMetrics>

/** Who, as every event names it. */
export type Actor = { userId: Uuid; deviceId: number }

/** The log events every deployment has; those per message are at debug. Fields are all there is to say. */
export type Events = {
  connect(actor: Actor & { address: string }): void
  /** @param code WebSocket close code. */
  disconnect(actor: Actor & { code: number }): void
  /** A device takes envelopes: live at connect, or by asking for a page. */
  subscribe(actor: Actor & { how: 'live' | 'sync' }): void
  send(actor: Actor & { messageId: Uuid; conversationId: Uuid; devices: number; duplicate: boolean }): void
  /** The other outcome of a send. */
  refuse(actor: Actor & { code: ErrorCode }): void
  deliver(actor: Actor & { messageId: Uuid; sequence: number }): void
  ack(actor: Actor & { count: number }): void
  /** A mark that moved. Typing and presence are not logged at all. I12 [G-4] */
  read(actor: Actor & { conversationId: Uuid; messageId: Uuid }): void
  /** @param users how many it watches. [G-2] */
  watch(actor: Actor & { users: number }): void
  /** @param where the route or 'socket'. @param address the remote one. */
  unauthorized(event: { where: string; address: string; code: ErrorCode }): void
}

/** Prometheus text exposition and its content type. */
export type Exposition = { text: string; contentType: string }
/** Plain values: it crosses process borders. */
export type Snapshot = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

export type Observe = {
  log: Log
  metrics: Metrics
  events: Events
  exposition(): Promise<Exposition>
  /** The same before it is text, to be put together with others'. */
  snapshot(): Promise<Snapshot>
  /** Writes what is still buffered. */
  flush(): void
}

// As keys of logged objects, at the top and one or two levels down.
const SECRET = [
  ...['authorization', 'token', 'access_token', 'secret', 'device_secret', 'client_secret', 'password', 'bearer'],
  ...['key', 'private_key', 'privateKey', 'identity_key', 'public_key', 'link_code', 'invitation', 'databaseUrl'],
  ...['content', 'iv', 'proof', 'signature', 'signed_change', 'username_hash', 'body', 'cookie'],
  // [I-5] [I-6]: whoever has one of these has the user.
  ...[
    'recovery_code',
    'recoveryCode',
    'recovery_code_hash',
    'old_signature',
    'oldSignature',
    'sealed',
    'linkCode',
    'deviceSecret',
  ],
]
const BUFFER_MAX_BYTES = 4 * 1024 * 1024

/**
 * Says what an error is without what the client sent: PostgreSQL puts values into details and into data errors (22xxx).
 * Drivers hang the query and its parameters on the error; none of them is copied.
 */
export function describeError(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { type: typeof error }
  const { name, message, stack, code, constraint_name, table_name, cause } = error as Error & Record<string, unknown>
  const database = name === 'PostgresError'
  const quoting = database && String(code).startsWith('22')
  return {
    type: name,
    message: quoting ? 'data error' : message,
    ...(code ? { code } : {}),
    ...(constraint_name ? { constraint: constraint_name, table: table_name } : {}),
    stack: stack?.slice(stack.indexOf('\n    at ') + 1),
    ...(cause ? { cause: describeError(cause) } : {}),
  }
}

/**
 * @param options.write receives whole lines instead of stderr: for tests.
 * @param options.worker of several, this one's number: in every line, and a label of every metric.
 */
export function openObserve(options: Config['log'] & { write?: (line: string) => void; worker?: number }): Observe {
  const destination =
    options.format === 'pretty'
      ? pretty({
          ...{ destination: 2, sync: true, singleLine: true, translateTime: 'SYS:HH:MM:ss.l' },
          // An event's name is its sentence: one line for each.
          ...{ ignore: 'pid,hostname,event', messageFormat: '{event}{msg}' },
        })
      : pino.destination({ dest: 2, sync: false, maxLength: BUFFER_MAX_BYTES })
  const log = pino(
    {
      level: options.level,
      base: options.worker ? { worker: options.worker } : null,
      serializers: { err: describeError, error: describeError },
      redact: { paths: SECRET.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '[redacted]' },
    },
    options.write ? { write: options.write } : destination,
  )
  const registry = new Registry()
  if (options.worker) registry.setDefaultLabels({ worker: String(options.worker) })
  const event =
    <Fields extends object>(level: 'debug' | 'info' | 'warn', name: string) =>
    (fields: Fields): void =>
      log[level]({ event: name, ...fields })
  return {
    log,
    metrics: openMetrics(registry),
    events: {
      connect: event('info', 'connect'),
      disconnect: event('info', 'disconnect'),
      subscribe: event('debug', 'subscribe'),
      send: event('debug', 'send'),
      refuse: event('debug', 'refuse'),
      deliver: event('debug', 'deliver'),
      ack: event('debug', 'ack'),
      read: event('debug', 'read'),
      watch: event('debug', 'watch'),
      unauthorized: event('warn', 'unauthorized'),
    },
    exposition: async () => ({ text: await registry.metrics(), contentType: registry.contentType }),
    snapshot: () => registry.getMetricsAsJSON(),
    flush: () => {
      // Not open yet means nothing was written.
      try {
        if ('flushSync' in destination) destination.flushSync()
      } catch {}
    },
  }
}

/** What several workers counted, each under its label: a sum would fall when one of them starts anew, and look like a leap. */
export async function expositionOf(snapshots: Snapshot[]): Promise<Exposition> {
  const all = snapshots.map((each) => each.map((metric) => ({ ...metric, aggregator: 'sum' as const })))
  const registry = AggregatorRegistry.aggregate(all)
  return { text: await registry.metrics(), contentType: registry.contentType }
}

function openMetrics(register: Registry) {
  collectDefaultMetrics({ register })
  const counter = <Label extends string = never>(name: string, help: string, labelNames: Label[] = []) =>
    new Counter<Label>({ name: `sealpost_${name}_total`, help, labelNames, registers: [register] })
  const gauge = (name: string, help: string) => new Gauge({ name: `sealpost_${name}`, help, registers: [register] })
  const histogram = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name: `sealpost_${name}`, help, buckets, registers: [register] })
  return {
    connections: gauge('connections', 'Open WebSockets of devices, and polls that wait'),
    provisioning: gauge('provisioning_waiting', 'New devices that wait to be linked'),
    /** kind: of codec.ts's ClientFrame, or 'malformed'. */
    framesIn: counter('frames_in', 'Frames received', ['kind']),
    /** kind: the body's field in ServerFrame. */
    framesOut: counter('frames_out', 'Frames sent', ['kind']),
    /** kind as in framesIn; code: of proto/errors.ts. */
    framesRefused: counter('frames_refused', 'Frames answered with an error', ['kind', 'code']),
    accepted: counter('messages_accepted', 'Messages committed'),
    duplicate: counter('messages_duplicate', 'Sends answered as duplicates'),
    skipped: counter('deliveries_skipped', 'Deliveries left out because a queue was full'),
    deliveries: counter('deliveries', 'Envelopes sent to devices, repeats included'),
    acks: counter('acks', 'Deliveries ended by an ack'),
    /** kind: of bus/bus.ts's Hint. */
    hints: counter('hints', 'Hints between nodes that came in, its own included', ['kind']),
    /** by: 'hint'; or 'database', when the hint was lost. */
    takenOver: counter('taken_over', 'Connections ended because their device connected on another node', ['by']),
    hintsLost: counter('hints_lost', 'Hints that did not get out to other nodes: Redis away, or not keeping up'),
    /** limit: of limits.ts, or a meter of newidentity.ts, `identity.…`. */
    limitsAlone: counter('limits_alone', 'Limits asked while Redis did not answer: counted here alone, or refused', [
      'limit',
    ]),
    redis: gauge('redis_connected', '1 while Redis is reachable, 0 while not or where none is configured'),
    /** kind: the body's field in ServerFrame. */
    signalsLeftOut: counter('signals_left_out', 'Signals not sent: too much to do, or too much unsent', ['kind']),
    watched: gauge('watched_users', 'Pairs of a connection and a user whose presence it wants to know'),
    statusMessages: gauge('status_messages', 'Messages whose senders are told how far they come'),
    expired: counter('deliveries_expired', 'Envelopes dropped because they were too old'),
    appendMessages: histogram(
      'append_batch_messages',
      'Messages per append batch',
      [1, 2, 5, 10, 25, 50, 100, 250, 500],
    ),
    appendSeconds: histogram(
      'append_seconds',
      'Time from handing a batch to PostgreSQL to its commit',
      [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
    ),
    writerQueue: gauge('writer_queue_messages', 'Messages waiting for a batch or in one'),
    /** route: the pattern, never the path. */
    http: counter('http_requests', 'HTTP requests answered', ['method', 'route', 'status']),
    unauthorized: counter('unauthorized', 'Requests and upgrades without a valid token'),
    /** kyber and ec: 'one_time', 'last_resort' (Kyber only) or 'none'. */
    bundles: counter('bundles', 'Bundles handed out, by the one-time keys in them', ['ec', 'kyber']),
  }
}
