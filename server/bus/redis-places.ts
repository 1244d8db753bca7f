// Which node a new device waits at, in Redis: per place the node, for as long as one may wait. Places are hashes of addresses, so
// neither an address nor what is handed over stands in Redis. [I-5.2]
import type { Places } from './places.ts'

/** What is used of a connection to Redis. */
export type PlaceCommands = {
  set(key: string, value: string, px: 'PX', ms: number, nx: 'NX'): Promise<'OK' | null>
  get(key: string): Promise<string | null>
  placeLeave(key: string, node: string): Promise<unknown>
  on(event: 'ready', listener: () => void): unknown
  off(event: string, listener: (...args: never[]) => void): unknown
}

/** The script behind it: a place that somebody else has by now stays his. */
export const PLACE_SCRIPTS = {
  placeLeave: {
    numberOfKeys: 1,
    lua: `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`,
  },
}

const keyOf = (place: string): string => `sealpost:place:${place}`

/** @param holdsMs how long one may wait, milliseconds. @returns one node's end. */
export function openRedisPlaces(redis: PlaceCommands, holdsMs: number): (node: string) => Places {
  return (node) => {
    const here = new Set<string>()
    const claim = (place: string) => redis.set(keyOf(place), node, 'PX', holdsMs, 'NX')
    // Redis is back, perhaps empty.
    const back = (): void => {
      for (const place of here) claim(place).catch(() => {})
    }
    redis.on('ready', back)
    return {
      async claim(place) {
        here.add(place)
        const claimed = (await claim(place)) === 'OK'
        if (!claimed) here.delete(place)
        return claimed
      },
      leave(place) {
        if (here.delete(place)) redis.placeLeave(keyOf(place), node).catch(() => {})
      },
      holder: (place) => redis.get(keyOf(place)),
      close: () => void redis.off('ready', back),
    }
  }
}
