// Reaches devices and users wherever they are connected: on this node directly, on others by hints.
import type { Counts } from '../keys/prekeys.ts'
import type { Bus, Hint } from './bus/bus.ts'
import { encode } from './codec.ts'
import type { Committed, Delivery, Outgoing } from './frames.ts'
import type { Session } from './session.ts'
import type { Sessions } from './sessions.ts'

/** Larger contents are not carried along: the node that has the device reads them. */
const CARRIED_MAX_BYTES = 4096
/** Devices told a signal in one turn of the event loop: each costs a system call, and a full group has 5,000 of them. I14 */
const TELL_SLICE = 250
/** Devices that wait to be told; beyond it they are not. I10 I12 */
const TO_TELL_MAX = 50_000

export class Reach {
  private readonly sessions: Sessions
  private readonly bus: Bus
  /** In the order in which it came: a stop must not overtake its start. */
  private readonly toTell: { session: Session; frame: Outgoing }[] = []
  private telling = false

  constructor(sessions: Sessions, bus: Bus) {
    this.sessions = sessions
    this.bus = bus
  }

  /** Its hints come to this node once it resolves: before its first read, so that nothing in between is missed. */
  async joined({ caller }: Session): Promise<void> {
    await Promise.all([this.bus.join(`device:${caller.deviceKey}`), this.bus.join(`user:${caller.userId}`)])
  }

  /** A session is over and forgotten; what others of its user need stays joined. */
  left({ caller }: Session): void {
    if (!this.sessions.get(caller.deviceKey)) this.bus.leave(`device:${caller.deviceKey}`)
    if ([...this.sessions.ofUser(caller.userId)].length === 0) this.bus.leave(`user:${caller.userId}`)
  }

  /** Rows were committed: before their devices, best effort; the queues hold them. */
  committed(rows: Committed[]): void {
    this.sessions.fanOut(rows, ({ deviceKey, delivery }) => {
      const carried = delivery.content.length <= CARRIED_MAX_BYTES ? delivery : null
      this.bus.publish({ kind: 'committed', deviceKey, sequence: delivery.sequence, delivery: carried })
    })
  }

  /** These devices may have rows nobody will announce. */
  lookAgain(deviceKeys: number[]): void {
    for (const deviceKey of deviceKeys) this.bus.publish({ kind: 'lookAgain', deviceKey })
  }

  /** The device is gone. [C-6.3] */
  unlinked(deviceKey: number): void {
    this.bus.publish({ kind: 'unlinked', deviceKey })
  }

  /** [K-6] */
  keysLow(deviceKey: number, counts: Counts): void {
    this.bus.publish({ kind: 'keysLow', deviceKey, counts })
  }

  /** What a hint means for the sessions here; features have their own part of it. */
  receive(hint: Hint): void {
    switch (hint.kind) {
      case 'committed':
        this.offer(hint.deviceKey, hint.sequence, hint.delivery)
        break
      case 'lookAgain':
        this.sessions.lookAgain([hint.deviceKey])
        break
      case 'takenOver':
        this.sessions.takenOver(hint.deviceKey, hint.epoch)
        break
      case 'unlinked':
        this.sessions.unlinked(hint.deviceKey)
        break
      case 'keysLow':
        this.sessions.get(hint.deviceKey)?.connection.send(encode.keysLow(hint.counts))
        break
      case 'signal':
        for (const userId of hint.userIds)
          for (const session of this.sessions.ofUser(userId))
            if (this.toTell.length < TO_TELL_MAX) this.toTell.push({ session, frame: hint.frame })
        if (!this.telling) this.tell()
    }
  }

  private tell(): void {
    for (const { session, frame } of this.toTell.splice(0, TELL_SLICE)) session.signal(frame)
    this.telling = this.toTell.length > 0
    if (this.telling) setImmediate(() => this.tell())
  }

  private offer(deviceKey: number, sequence: number, delivery: Delivery | null): void {
    const session = this.sessions.get(deviceKey)
    if (delivery) session?.offer(delivery)
    else session?.hear(sequence)
  }
}
