// One consumer per device over all nodes: the newer connection wins (I6) [C-5]. Epochs come from the database, which keeps the
// highest per device and decides (queue.ts, session.ts). What is done here makes it known at once instead of at the next re-poll:
// a hint to whoever else has the device, and a route that finds out when such a hint was lost.
import type { Bus } from './bus/bus.ts'
import type { OpenRoutes, Routes } from './bus/routes.ts'
import type { Session } from './session.ts'
import type { Sessions } from './sessions.ts'

export type ConsumersDeps = {
  sessions: Sessions
  bus: Bus
  routes: OpenRoutes
  /** An error nobody expected. */
  report(error: unknown): void
}

export class Consumers {
  private readonly bus: Bus
  private readonly routes: Routes

  constructor({ sessions, bus, routes, report }: ConsumersDeps) {
    this.bus = bus
    this.routes = routes((deviceKey) => {
      // Redis may be wrong, after a restore of the database for one: it only says where to look.
      sessions.confirm(deviceKey).then((epoch) => {
        if (epoch !== null) this.routes.insist(deviceKey, epoch)
      }, report)
    })
  }

  /** The session is its device's consumer: tells whoever has an older one. */
  began({ caller: { deviceKey }, epoch }: Session): void {
    this.bus.publish({ kind: 'takenOver', deviceKey, epoch })
    this.routes.hold(deviceKey, epoch)
  }

  /** The session is over and forgotten. */
  ended({ caller: { deviceKey }, epoch }: Session): void {
    if (epoch > 0) this.routes.release(deviceKey, epoch)
  }

  /** The node goes down. */
  close(): Promise<void> {
    return this.routes.close()
  }
}
