// How this process joins the other nodes: through Redis, and one clear line when that cannot be.
import { openRedis, type RedisNodes } from './bus/redis.ts'
import { type Config, StartError } from './config.ts'
import type { Observe } from './observe.ts'
import { systemTime } from './time.ts'

type Address = NonNullable<Config['redis']>

/** Where Redis is, without user and password. */
export function describeRedis({ urls, cluster }: Address): string {
  const hosts = urls.map((each) => new URL(each)).map(({ hostname, port }) => `${hostname}:${port || 6379}`)
  return `${cluster ? 'Redis cluster' : 'Redis'} at ${hosts.join(', ')}`
}

/**
 * Connects once; from then on a Redis that goes away costs time, nothing else (I11).
 * @throws StartError with one line.
 */
export async function joinNodes(address: Address, { log, metrics }: Observe): Promise<RedisNodes> {
  try {
    const nodes = await openRedis({
      ...address,
      time: systemTime(),
      report: (error) => log.error({ err: error }, 'unexpected'),
      onLost: (hints) => metrics.hintsLost.inc(hints),
      onAlone: (limit) => metrics.limitsAlone.inc({ limit }),
      onConnected(isConnected) {
        metrics.redis.set(isConnected ? 1 : 0)
        if (isConnected) log.info('Redis is back')
        else log.warn('Redis is away: messages take up to 5 s longer to other nodes, nothing is lost')
      },
    })
    metrics.redis.set(1)
    return nodes
  } catch (error) {
    throw new StartError(`${describeRedis(address)} ${complaint(error)}`)
  }
}

function complaint(error: unknown): string {
  const { message } = error as Error
  if (/^(is|needs) /.test(message)) return message
  if (/^(WRONGPASS|NOAUTH|ERR AUTH)/.test(message)) return 'refused the user or password of REDIS_URL'
  if (/cluster support disabled/.test(message))
    return 'is not a cluster: leave SEALPOST_REDIS_CLUSTER out and give one URL'
  return `cannot be reached: ${message}`
}
