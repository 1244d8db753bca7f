// The socket half of a relay without sends, fan-out and re-poll: the test is the one who announces rows to its sessions.
import { BlockList } from 'node:net'
import { openDirectory } from '../../keys/directory.ts'
import { Acks } from '../../server/acks.ts'
import { openLocalHub } from '../../server/bus/local.ts'
import { openLocalRoutes } from '../../server/bus/routes.ts'
import { Consumers } from '../../server/consumers.ts'
import type { Sql } from '../../server/database.ts'
import { openFeatures } from '../../server/features/feature.ts'
import type { Delivery } from '../../server/frames.ts'
import { openObserve } from '../../server/observe.ts'
import { Queue } from '../../server/queue.ts'
import { Reach } from '../../server/reach.ts'
import { openReception } from '../../server/reception.ts'
import type { Session } from '../../server/session.ts'
import { Sessions } from '../../server/sessions.ts'
import { listen } from '../../server/socket.ts'
import { notFound } from '../../server/web.ts'
import { deviceKeyOf } from './backlog.ts'
import { type Client, Socket } from './client.ts'
import type { TestDatabase } from './database.ts'

export type Rig = {
  /** A connection of that client's device, Hello taken. */
  connect(client: Client): Promise<{ socket: Socket; session: Session }>
  /** Asks the database about the device's session, as the re-poll does, which does not run here. @returns its epoch; null: it is over. */
  confirm(client: Client): Promise<number | null>
  /** The session of a device, from the moment its socket is open. */
  session(deviceKey: number): Session | undefined
  /** Its rows after a sequence, as the queue holds them: to be offered. */
  rows(client: Client, after: number): Promise<Delivery[]>
  /** Called between a session's read of its queue and what the session does with it. */
  afterRead: () => Promise<void>
  close(): void
}

class PausingQueue extends Queue {
  readonly pause: () => Promise<void>
  constructor(reader: Sql, pause: () => Promise<void>) {
    super(reader)
    this.pause = pause
  }
  override async start(...read: Parameters<Queue['start']>): ReturnType<Queue['start']> {
    const start = await super.start(...read)
    await this.pause()
    return start
  }
  override async page(...read: Parameters<Queue['page']>): ReturnType<Queue['page']> {
    const page = await super.page(...read)
    await this.pause()
    return page
  }
}

export async function openRig({ database }: TestDatabase): Promise<Rig> {
  const { sql, reader, writer } = database
  const report = (error: unknown): void => {
    throw error
  }
  const queue = new Queue(reader)
  const pausing = new PausingQueue(reader, () => rig.afterRead())
  const sessions = new Sessions({ queue, clock: Date.now, report })
  const admit = async (token: string | null) => {
    const [userId, deviceId, deviceKey] = token!.split('_')
    const caller = { userId: userId!, deviceId: Number(deviceId), deviceKey: Number(deviceKey), deviceUuid: userId! }
    return { caller, expiresAtMs: Number.POSITIVE_INFINITY }
  }
  const bus = openLocalHub(report)(() => {})
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    routes: [],
    notFound,
    report,
    trustedProxies: new BlockList(),
    doors: [
      openReception({
        admit,
        hello: { realm: 'https://rig.test', queueMessages: 1, queueTtlMs: 1 },
        clock: Date.now,
        queue: pausing,
        sessions,
        reach: new Reach(sessions, bus),
        consumers: new Consumers({ sessions, bus, routes: openLocalRoutes(), report }),
        features: openFeatures([], Date.now, report),
        directory: openDirectory({ sql, clock: Date.now, sharesConversation: async () => new Set(), onStockLow() {} }),
        // No test of the rig sends.
        mailbox: null as never,
        acks: new Acks(writer),
        observe: openObserve({ level: 'silent', format: 'json' }),
        load: { bytes: 0 },
        maxConnections: 100,
        maxUserConnections: 100,
        draining: () => false,
        shut: () => false,
      }).door,
    ],
  })
  const rig: Rig = {
    afterRead: async () => {},
    async connect(client) {
      const deviceKey = await deviceKeyOf(sql, client)
      const token = `${client.userId}_${client.deviceId}_${deviceKey}`
      const socket = await Socket.open(`http://127.0.0.1:${listener.port}`, token)
      await socket.next('hello')
      return { socket, session: sessions.get(deviceKey)! }
    },
    confirm: async (client) => sessions.confirm(await deviceKeyOf(sql, client)),
    session: (deviceKey) => sessions.get(deviceKey),
    async rows(client, after) {
      return (await queue.page(await deviceKeyOf(sql, client), after, 10_000, Number.MAX_SAFE_INTEGER)).deliveries
    },
    close: () => listener.close(),
  }
  return rig
}
