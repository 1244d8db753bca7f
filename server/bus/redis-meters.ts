// Token buckets in Redis, counted for all nodes by its clock alone: one script, one key. While Redis is away each limit does what it
// says of itself: this node counts alone, or refuses.
import { type Amounts, amountsOf, everyUs, type Limit, type Meter, type OpenMeter } from '../../keys/meter.ts'

/** What is used of a connection to Redis. */
export type MeterCommands = {
  meterTake(key: string, ...buckets: number[]): Promise<number>
  readonly status: string
}

/**
 * ARGV has for each bucket: burst, microseconds for a token, tokens to take (below 0: to give back), tokens that must be there. The
 * value is a time and, of each bucket, what was owed then (keys/meter.ts), all in microseconds; it ends when nothing is owed any more.
 * Returns how long to wait, microseconds. One key, so that a cluster can run it.
 */
export const METER_SCRIPTS = {
  meterTake: {
    numberOfKeys: 1,
    lua: `local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = {}
for each in string.gmatch(redis.call('GET', KEYS[1]) or '', '%d+') do kept[#kept + 1] = tonumber(each) end
local passed = math.max(0, now - (kept[1] or now))
local wait, owed = 0, {}
for i = 1, #ARGV / 4 do
  local burst, every, need = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i])
  owed[i] = math.max(0, (kept[i + 1] or 0) - passed)
  if need > 0 then wait = math.max(wait, owed[i] + (math.min(need, burst) - burst) * every) end
end
if wait > 0 and now >= kept[1] then return wait end
local value, most = string.format('%.0f', now), 0
for i = 1, #owed do
  if wait == 0 then owed[i] = math.max(0, owed[i] + ARGV[4 * i - 1] * ARGV[4 * i - 2]) end
  value = value .. ' ' .. string.format('%.0f', owed[i])
  most = math.max(most, owed[i])
end
if most > 0 then redis.call('SET', KEYS[1], value, 'PX', math.ceil(most / 1000)) else redis.call('DEL', KEYS[1]) end
return wait`,
  },
}

/** A Redis that does not answer in this time is taken to be away, and left alone for so long, milliseconds. */
const PATIENCE_MS = 250
const REST_MS = 1_000

/**
 * @param alone counts on this node while Redis is away.
 * @param onAlone a limit of this name was asked, and Redis did not answer.
 * @param patienceMs within this time.
 */
export function openRedisMeters(
  redis: MeterCommands,
  alone: OpenMeter,
  onAlone: (name: string) => void = () => {},
  patienceMs = PATIENCE_MS,
): OpenMeter {
  let restUntilMs = 0
  const ready = (): boolean => redis.status === 'ready' && performance.now() >= restUntilMs

  return (limit) => {
    const here = alone(limit)
    const ask = (key: string, tokens: Amounts, needs: Amounts): Promise<number> =>
      redis.meterTake(`sealpost:limit:${limit.name}:${key}`, ...bucketsOf(limit, tokens, needs))
    const gone: Meter['take'] = (...given) => {
      onAlone(limit.name)
      return limit.whenGone === 'open' ? here.take(...given) : Number.POSITIVE_INFINITY
    }
    return {
      take(key, tokens, needs = tokens) {
        if (limit.rates.length === 0) return 0
        if (!ready()) return gone(key, tokens, needs)
        return patiently(ask(key, tokens, needs), patienceMs).then(
          (waitUs) => Math.ceil(waitUs / 1000),
          () => {
            restUntilMs = performance.now() + REST_MS
            return gone(key, tokens, needs)
          },
        )
      },
      give(key, tokens) {
        if (limit.rates.length === 0) return
        const back = amountsOf(limit, tokens)
        here.give(key, back)
        if (!ready()) return
        const negative = back.map((each) => -each)
        ask(key, negative, 0).catch(() => {})
      },
    }
  }
}

function bucketsOf(limit: Limit, tokens: Amounts, needs: Amounts): number[] {
  const [wanted, needed] = [amountsOf(limit, tokens), amountsOf(limit, needs)]
  return limit.rates.flatMap((rate, i) => [rate.burst, everyUs(rate), wanted[i]!, needed[i]!])
}

/** @throws what it throws, or when it takes too long. */
async function patiently<T>(answer: Promise<T>, patienceMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    // Not before what already came was read: it may be this process that was busy.
    timer = setTimeout(() => setImmediate(() => setImmediate(() => reject(new Error('no answer in time')))), patienceMs)
  })
  try {
    return await Promise.race([answer, late])
  } finally {
    clearTimeout(timer)
  }
}
