// A process that dies at a chosen step: between any two things the SDK does to its store and to the network.
import type { HttpAnswer, Socket, Storage, Time, Transaction, Transport } from '../../client/index.ts'

/** What a dead process's store says. */
export class Died extends Error {}

/**
 * Counts steps and ends the process at one of them. From then on nothing is stored, sent or heard, no timer fires, and its sockets are
 * closed, as a system does for a process that died: otherwise the dead would connect again and displace the living.
 */
export class Fate {
  steps = 0
  dead = false
  /** What it died at. */
  at = ''
  private readonly dieAt: number

  /** Resolves when it is dead. */
  readonly death: Promise<void>
  private die = () => {}
  private readonly sockets = new Set<Socket>()

  /** @param dieAt Infinity = never. */
  constructor(dieAt: number) {
    this.dieAt = dieAt
    this.death = new Promise((resolve) => {
      this.die = resolve
    })
  }

  /** @returns false when this was the last step. */
  step(what: string): boolean {
    if (this.dead) return false
    if (++this.steps !== this.dieAt) return true
    this.dead = true
    this.at = `${this.steps} ${what}`
    for (const each of this.sockets) each.close()
    this.die()
    return false
  }

  storage(inner: Storage): Storage {
    const die = (what: string) => {
      if (!this.step(what)) throw new Died(what)
    }
    return {
      transaction: <T>(work: (tx: Transaction) => T): T => {
        if (this.dead) throw new Died('dead')
        // Only what changes something is a step: reading leaves nothing behind.
        let changes = false
        const result = inner.transaction((tx) => {
          const value = work({
            get: (table, key) => tx.get(table, key),
            scan: (table, range) => tx.scan(table, range),
            count: (table) => tx.count(table),
            put: (table, key, bytes) => {
              changes = true
              tx.put(table, key, bytes)
            },
            delete: (table, key) => {
              changes = true
              tx.delete(table, key)
            },
          })
          if (changes) die('before commit')
          return value
        })
        if (changes) die('after commit')
        return result
      },
      close: () => inner.close(),
    }
  }

  transport(inner: Transport): Transport {
    const never = new Promise<HttpAnswer>(() => {})
    return {
      request: async (request) => {
        const name = `${request.method} ${new URL(request.url).pathname.split('/').slice(0, 4).join('/')}`
        if (!this.step(`before ${name}`)) return never
        const answer = await inner.request(request)
        return this.step(`after ${name}`) ? answer : never
      },
      open: (url, token, events) => {
        if (this.dead) return { send: () => {}, close: () => {} }
        const unlessDead = (work: () => void) => this.dead || work()
        const socket = inner.open(url, token, {
          opened: () => unlessDead(events.opened),
          closed: (code, reason) => {
            this.sockets.delete(socket)
            unlessDead(() => events.closed(code, reason))
          },
          frame: (bytes) => {
            if (this.step('before a frame came')) events.frame(bytes)
          },
        })
        this.sockets.add(socket)
        return {
          close: () => socket.close(),
          send: (frame) => {
            if (!this.step('before a frame left')) return
            socket.send(frame)
            this.step('after a frame left')
          },
        }
      },
    }
  }

  time(inner: Time): Time {
    return {
      now: () => inner.now(),
      random: () => inner.random(),
      after: (ms, call) => inner.after(ms, () => this.dead || call()),
    }
  }
}
