// All signals of one device, listening to its connection. What each does is in its own file. [G]
import type { Uuid } from '../proto/ids.ts'
import type { Core } from './core.ts'
import { Presence } from './presence.ts'
import { Reads } from './reads.ts'
import type { Signal } from './signal.ts'
import { Status } from './status.ts'
import { Typing } from './typing.ts'

/** Made before anything else that emits. */
export class Signals {
  readonly typing: Typing
  readonly presence: Presence
  readonly status: Status
  readonly reads: Reads
  private readonly all: Signal[]

  /** @param isMember by the roster. @param fail told when the store fails. */
  constructor(core: Core, isMember: (conversationId: Uuid, userId: Uuid) => boolean, fail: (error: unknown) => void) {
    this.typing = new Typing(core, isMember)
    this.presence = new Presence(core, fail)
    this.status = new Status(core, fail)
    this.reads = new Reads(core, fail)
    this.all = [this.typing, this.presence, this.status, this.reads]
    const every = (work: (each: Signal) => void) => {
      try {
        for (const each of this.all) work(each)
      } catch (error) {
        fail(error)
      }
    }
    core.connection.on('frame', (frame) => every((each) => each.take(frame)))
    core.connection.on('state', ({ name }) => {
      if (name === 'live') every((each) => each.live())
      else if (name !== 'syncing') every((each) => each.lost())
    })
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    await Promise.all(this.all.map((each) => each.idle()))
  }
}
