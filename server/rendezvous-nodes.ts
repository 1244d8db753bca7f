// The rendezvous of several nodes: a sealed message goes to the node whose connection waits, which hands it over as if it had come
// there, so the first still wins [I-5.2]. Without what joins the nodes, each has its own.
import { createHash, randomUUID } from 'node:crypto'
import { RelayError } from '../proto/errors.ts'
import type { Bus, Hint } from './bus/bus.ts'
import type { Places } from './bus/places.ts'
import type { Rendezvous } from './rendezvous.ts'
import type { Time } from './time.ts'

/** How long the other node is waited for, milliseconds; before it Redis, for where that node is, up to as long again. */
const ANSWER_MS = 2_000
const RETRY_MS = 2_000

export type JoinedRendezvous = Rendezvous & {
  /** What another node said. */
  hear(hint: Hint): void
  close(): void
}

const placeOf = (address: string): string => createHash('sha256').update(address).digest('base64url')
const unreached = (): RelayError =>
  new RelayError('UNAVAILABLE', 'the node where it waits was not reached', { retryAfterMs: RETRY_MS })

/**
 * @param own of this node. @param places makes this node's end of where somebody waits; undefined: there is one node.
 * @param report an error nobody expected.
 */
export function joinRendezvous(
  own: Rendezvous,
  {
    bus,
    places,
    time,
    report,
  }: { bus: Bus; places: ((node: string) => Places) | undefined; time: Time; report(error: unknown): void },
): JoinedRendezvous {
  if (!places) return { ...own, hear() {}, close() {} }
  const node = randomUUID()
  const all = places(node)
  const addresses = new Map<string, string>()
  const asked = new Map<string, (taken: boolean) => void>()
  void bus.join(`node:${node}`)

  function ask(holder: string, place: string, sealed: Uint8Array): Promise<boolean> {
    const request = randomUUID()
    return new Promise<boolean>((resolve, reject) => {
      const cancel = time.after(ANSWER_MS, () => {
        asked.delete(request)
        reject(unreached())
      })
      asked.set(request, (taken) => {
        cancel()
        asked.delete(request)
        resolve(taken)
      })
      bus.publish({ kind: 'handed', node: holder, from: node, request, place, sealed })
    })
  }

  async function answer({ from, request, place, sealed }: Extract<Hint, { kind: 'handed' }>): Promise<void> {
    const address = addresses.get(place)
    const taken = address !== undefined && (await own.hand(address, sealed))
    bus.publish({ kind: 'taken', node: from, request, taken })
  }

  return {
    async wait(address, take) {
      const end = await own.wait(address, take)
      if (!end) return null
      const place = placeOf(address)
      addresses.set(place, address)
      const over = (): void => {
        end()
        if (!addresses.delete(place)) return
        all.leave(place)
      }
      // Redis away: who comes to this node is served all the same.
      if (await all.claim(place).catch(() => true)) return over
      addresses.delete(place)
      end()
      return null
    },
    async hand(address, sealed) {
      if (await own.hand(address, sealed)) return true
      const place = placeOf(address)
      if (addresses.has(place)) return false
      const holder = await all.holder(place).catch(() => {
        throw unreached()
      })
      return holder !== null && holder !== node && ask(holder, place, sealed)
    },
    hear(hint) {
      if (hint.kind === 'handed' && hint.node === node) answer(hint).catch(report)
      if (hint.kind === 'taken' && hint.node === node) asked.get(hint.request)?.(hint.taken)
    },
    close: () => all.close(),
  }
}
