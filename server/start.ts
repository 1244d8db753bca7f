// What a relay is made of: opens every part, hands each what it needs, and takes it all down in order. No rules of its own.
import { openFetchBudget, reserveOf } from '../keys/budget.ts'
import { openDirectory } from '../keys/directory.ts'
import { keyRoutes } from '../keys/http.ts'
import { type OpenMeter, openLocalMeters } from '../keys/meter.ts'
import { RelayError } from '../proto/errors.ts'
import type { Uuid } from '../proto/ids.ts'
import { openAccounts } from './accounts.ts'
import { Acks } from './acks.ts'
import { openAllowance } from './allowance.ts'
import { openBlocks } from './blocks.ts'
import type { OpenBus } from './bus/bus.ts'
import { openLocalHub } from './bus/local.ts'
import type { Places } from './bus/places.ts'
import { openLocalPresence, type PresenceStore } from './bus/presence.ts'
import { type OpenRoutes, openLocalRoutes } from './bus/routes.ts'
import type { Config } from './config.ts'
import { Consumers } from './consumers.ts'
import type { Shared } from './conversation-change.ts'
import { Conversations } from './conversations.ts'
import { openDatabase } from './database.ts'
import { openDevices } from './devices.ts'
import { Drain } from './drain.ts'
import { enqueueEvent } from './events.ts'
import { accountRoutes } from './http/accounts.ts'
import { blockRoutes } from './http/blocks.ts'
import { conversationRoutes } from './http/conversations.ts'
import { deviceRoutes } from './http/devices.ts'
import { frameRoutes } from './http/frames.ts'
import { operationRoutes } from './http/operations.ts'
import { provisioningRoutes } from './http/provisioning.ts'
import { recoveryRoutes } from './http/recovery.ts'
import { settingsRoutes } from './http/settings.ts'
import { tokenRoutes } from './http/tokens.ts'
import { usernameRoutes } from './http/usernames.ts'
import { openIdentity } from './identity.ts'
import { openLimits } from './limits.ts'
import { Mailbox } from './mailbox.ts'
import { migrate } from './migrate.ts'
import { openNewIdentity } from './newidentity.ts'
import { keepTelling } from './news.ts'
import type { Observe } from './observe.ts'
import { openOrigins } from './origins.ts'
import { openProvisioning } from './provisioning.ts'
import { Queue } from './queue.ts'
import { Reach } from './reach.ts'
import { openReception } from './reception.ts'
import { openRecoveryCodes } from './recoverycodes.ts'
import { IN_WORK_MAX_BYTES } from './relay.ts'
import { openRendezvous } from './rendezvous.ts'
import { joinRendezvous } from './rendezvous-nodes.ts'
import { Rosters } from './rosters.ts'
import { Sessions } from './sessions.ts'
import { openSettings } from './settings.ts'
import { openSignals } from './signals.ts'
import { listen } from './socket.ts'
import { keepSweeping } from './sweep.ts'
import { systemTime, type Time } from './time.ts'
import { openTokens } from './tokens.ts'
import { UnderWay } from './underway.ts'
import { Uploads } from './uploads.ts'
import { openUsernames } from './usernames.ts'
import { notFound, serveRoutes } from './web.ts'
import { Writer } from './writer.ts'

/** A clock of Unix milliseconds. */
export type Clock = () => number

export type Relay = {
  /** http://host:port */
  url: string
  /** Ends it in order: no new work, goodbyes, what is on its way commits, then the database. Nothing acknowledged is lost (I1). */
  close(): Promise<void>
}

/** sharesPort: other processes listen on the same port. */
type Around = { clock?: Clock; time?: Time; nodes?: Nodes; leaving?: Leaving; sharesPort?: boolean }

/** Clock, timers and chance of the way down; the machine's unless a test decides. */
export type Leaving = { time: Time; random(): number }

/** What nodes have in common; without it there is one. @property meters absent: each node counts alone. */
export type Nodes = {
  bus: OpenBus
  presence(): PresenceStore
  routes?: OpenRoutes
  places?(node: string): Places
  meters?: OpenMeter
  isConnected?(): boolean
}

/** With more than this of sends under way signals wait for better times. I12 */
const PRESSED_BYTES = IN_WORK_MAX_BYTES / 2
/** How often it is looked after devices that wait to be linked, milliseconds. [I-5.2] */
const PROVISIONING_LOOK_MS = 1_000
/** What is still asked of the database after everything was answered gets so long, seconds. */
const DATABASE_CLOSE_SECONDS = 1

/**
 * Starts a relay on a database that is reachable; its schema is brought up to date.
 * @throws StartError when the port is taken; the database's error when it is not reachable. Nothing is left running.
 */
export async function startRelay(
  config: Config,
  options: Around & { databaseUrl: string; observe: Observe },
): Promise<Relay> {
  const { observe } = options
  const time = options.time ?? systemTime(options.clock)
  const clock = (): number => time.now()
  const report = (error: unknown): void => observe.log.error({ err: error }, 'unexpected')
  const database = openDatabase(options.databaseUrl)
  const { sql, writer: writerSql, reader } = database
  try {
    await migrate(sql, () => observe.log.info('another node migrates the database: waits for it'))
    const sweeping = keepSweeping({ sql, observe, clock, ttlMs: config.queue.ttlMs })
    await sweeping.ready
    const tokens = await openTokens({ sql, realm: config.realm, outside: config.issuer, nowMs: clock() })
    const identity = openIdentity({ sql, tokens })

    // The queue.
    const queue = new Queue(reader)
    const acks = new Acks(database.acker, (rows) => observe.metrics.acks.inc(rows))
    const rosters = new Rosters(sql)
    const onTakenOver = (by: 'hint' | 'database'): void => observe.metrics.takenOver.inc({ by })
    const sessions = new Sessions({ queue, clock, report, onTakenOver })
    const nodes: Nodes = options.nodes ?? { bus: openLocalHub(report), presence: openLocalPresence() }
    const meters = nodes.meters ?? openLocalMeters(clock)
    const limits = openLimits(meters, config.limits)
    const bus = nodes.bus((hint) => {
      observe.metrics.hints.inc({ kind: hint.kind })
      if (hint.kind === 'conversation') rosters.drop(hint.conversationId)
      if (hint.kind === 'unlinked') identity.forgetKey(hint.deviceKey)
      reach.receive(hint)
      features.hear(hint)
      rendezvous.hear(hint)
    })
    const reach = new Reach(sessions, bus)
    const rendezvous = joinRendezvous(openRendezvous(), { bus, places: nodes.places, time, report })
    const consumers = new Consumers({ sessions, bus, routes: nodes.routes ?? openLocalRoutes(), report })
    const onUnknown = (deviceKeys: number[]): void => reach.lookAgain(deviceKeys)
    // Caches forget the conversation on every node, and whom the moved ones may know is looked up again.
    const onChanged = (conversationId: Uuid, shared: Shared): void => {
      rosters.drop(conversationId)
      bus.publish({ kind: 'conversation', conversationId, ...shared })
    }
    const onAccepted = (id: Uuid, members: Uuid[]): void => onChanged(id, { members, moved: members })
    const writer = new Writer(
      { sql: writerSql, rosters, clock, quota: config.queue.maxMessages, onAccepted, onUnknown, report },
      {
        batch(messages, _rows, seconds) {
          observe.metrics.appendMessages.observe(messages)
          observe.metrics.appendSeconds.observe(seconds)
        },
        depth: (messages) => observe.metrics.writerQueue.set(messages),
      },
    )
    const events = { enqueue: enqueueEvent, fanOut: reach.committed.bind(reach) }

    // People and keys.
    const conversations = new Conversations({
      sql,
      strangers: config.strangers,
      fanOut: events.fanOut,
      onChanged,
    })
    const blocks = openBlocks({
      sql,
      onChanged: (id, users) => onChanged(id, { members: users, moved: users }),
    })
    const directory = openDirectory({
      sql,
      clock,
      sharesConversation: (caller, users) => conversations.sharesConversation(caller, users),
      known: (caller, users) => conversations.known(caller, users),
      budget: openFetchBudget({
        ...{ caller: limits.bundles, pairBundles: limits.bundlesOfDevice, pairOneTime: limits.oneTimeKeys },
        ...{ target: limits.oneTimeKeysOfDevice, reserve: reserveOf(config.limits.oneTimeKeysOfDevice) },
      }),
      onStockLow: (deviceKey, counts) => reach.keysLow(deviceKey, counts),
      onBundle: (sorts) => observe.metrics.bundles.inc(sorts),
    })
    const accounts = openAccounts({ sql, realm: config.realm, directory, tokens, registration: config.registration })
    const devices = openDevices({
      sql,
      realm: config.realm,
      directory,
      tokens,
      identity,
      events,
      onUnlinked: (deviceKey) => reach.unlinked(deviceKey),
    })
    const news = keepTelling({ sql, clock, fanOut: events.fanOut, report })
    const recovery = {
      codes: openRecoveryCodes({ sql, realm: config.realm }),
      newIdentity: openNewIdentity({
        ...{ sql, realm: config.realm, directory, tokens, identity, news, meters },
        onUnlinked: (deviceKey) => reach.unlinked(deviceKey),
      }),
    }
    const mailbox = new Mailbox({
      sql,
      rosters,
      writer,
      clock,
      allowance: openAllowance(meters, config.limits),
      membershipOf: (conversationId, userId) => conversations.membershipOf(conversationId, userId),
    })

    const settings = openSettings({ sql, onChanged: (userId) => bus.publish({ kind: 'settings', userId }) })

    // The doors.
    const drain = new Drain(config.drain, {
      ...(options.leaving ?? { time: systemTime(), random: Math.random }),
      log: observe.log,
    })
    const draining = (): boolean => drain.stage === 'ending'
    const load = { bytes: 0 }
    const requests = new UnderWay()
    const admit = async (token: string | null) => {
      if (token === null) throw new RelayError('UNAUTHENTICATED', 'an access token is required')
      const claims = await tokens.verify(token, clock())
      return { caller: await identity.caller(claims, clock()), expiresAtMs: claims.expiresAtMs }
    }
    const features = openSignals({
      ...{
        database,
        bus,
        store: nodes.presence(),
        sessions,
        rosters,
        settings,
        conversations,
        time,
        observe,
        admit,
        report,
      },
      pressed: () => load.bytes > PRESSED_BYTES,
    })
    const hello = {
      realm: config.realm,
      queueMessages: config.queue.maxMessages,
      queueTtlMs: config.queue.ttlMs,
    }
    const reception = openReception({
      admit,
      hello,
      clock,
      queue,
      sessions,
      consumers,
      reach,
      features,
      directory,
      mailbox,
      acks,
      observe,
      load,
      maxConnections: config.maxConnections,
      maxUserConnections: config.maxUserConnections,
      shut: () => drain.shut,
      draining,
    })
    const provisioning = openProvisioning({
      rendezvous,
      clock,
      opened: limits.linking,
      draining: () => drain.shut,
      onWaiting: (connections) => observe.metrics.provisioning.set(connections),
    })
    const declared = [
      ...accountRoutes({ accounts }),
      ...tokenRoutes({ sql, tokens }),
      ...deviceRoutes({ devices }),
      ...recoveryRoutes(recovery),
      ...provisioningRoutes({ provisioning }),
      ...usernameRoutes({ usernames: openUsernames({ sql, lookups: limits.lookups }) }),
      ...keyRoutes(directory),
      ...conversationRoutes(conversations),
      ...blockRoutes({ blocks }),
      ...settingsRoutes({ settings }),
      ...frameRoutes({ reception, uploads: new Uploads(), time, observe }),
    ]
    const { metricsToken } = config
    const operations = operationRoutes({
      ...{ sql, observe, routes: declared, metricsToken },
      draining: () => drain.stage !== 'serving',
      isJoined: () => nodes.isConnected?.() ?? true,
    })
    const routes = [...declared, ...operations]
    const served = serveRoutes(routes, {
      authenticate: admit,
      observe,
      clock,
      limits,
      meters,
      busy: (by) => requests.count(by),
      draining,
    })
    const shared = openOrigins(config.allowedOrigins)
    const listener = await listen({
      host: config.host,
      port: config.port,
      sharesPort: options.sharesPort,
      routes: served.map((each) => ({ ...each, handle: shared(each.handle) })),
      notFound: shared(notFound),
      report,
      doors: [reception.door, provisioning.door],
      trustedProxies: config.trustedProxies,
    }).catch(async (error: unknown) => {
      await Promise.all([sweeping.stop(), news.stop()])
      throw error
    })
    const watching = sessions.watch()
    let stopLooking = (): void => {}
    const look = (): void => {
      provisioning.look()
      stopLooking = time.after(PROVISIONING_LOOK_MS, look)
    }
    look()

    return {
      url: `http://${config.host === '0.0.0.0' ? 'localhost' : config.host}:${listener.port}`,
      async close() {
        await drain.run({
          sessions,
          shut: () => listener.stop(),
          goAway: () => provisioning.goAway(),
          requestsOver: () => requests.over(),
          committed: () => writer.drained(),
        })
        watching.stop()
        stopLooking()
        features.stop()
        listener.close()
        await drain.stopped([sweeping.stop(), news.stop()])
        await consumers.close()
        rendezvous.close()
        await bus.close()
        await database.close(DATABASE_CLOSE_SECONDS)
      },
    }
  } catch (error) {
    await database.close()
    throw error
  }
}
