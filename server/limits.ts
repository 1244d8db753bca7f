// Every limit on how often something may be done: what is counted, how much of it is usual, and what becomes of it while Redis is away.
// On one node without Redis this process counts, and the last question does not arise. docs/configuration.md is written from this table.
import type { Limit, OpenMeter, Rate } from '../keys/meter.ts'

/** The words of a limit. */
export type LimitWords = {
  /** Environment variable. */
  variable: string
  /** What is counted, for whom. */
  about: string
  /** As the variable would say it. */
  unset: string
  whenGone: Limit['whenGone']
  /** Why it fails that way. */
  why: string
}

/** All of them. A feature's own rate (typing, receipts) is not here: a device is connected to one node, which can count alone. */
export const LIMITS = {
  /** [S-9.4] */
  messages: {
    variable: 'SEALPOST_LIMIT_MESSAGES',
    about: 'Messages of one user, from all devices, by WebSocket and HTTP.',
    unset: '10/s,100/min',
    whenGone: 'open',
    why: 'messages must not depend on Redis; a user has ten devices at most, so no more than ten times as much gets through',
  },
  /** [S-9.4] */
  deliveries: {
    variable: 'SEALPOST_LIMIT_DELIVERIES',
    about:
      'Deliveries of one user: recipient devices of messages, because one message to a large group is thousands of rows.',
    unset: '5000+500/s',
    whenGone: 'open',
    why: 'as for messages',
  },
  /** [K-5.2] */
  bundles: {
    variable: 'SEALPOST_LIMIT_BUNDLES',
    about: 'Bundles asked for by one user, of whatever devices.',
    unset: '1000+10/s',
    whenGone: 'open',
    why: 'without bundles nobody writes to a new device; what must not run out has limits of its own',
  },
  /** [K-5.2] */
  bundlesOfDevice: {
    variable: 'SEALPOST_LIMIT_BUNDLES_OF_DEVICE',
    about: 'Bundles of one device asked for by one user.',
    unset: '30+3/min',
    whenGone: 'open',
    why: 'as for bundles',
  },
  /** [K-5.1] */
  oneTimeKeys: {
    variable: 'SEALPOST_LIMIT_ONE_TIME_KEYS',
    about: 'One-time keys of one device that one user gets; past it bundles come without.',
    unset: '6+6/h',
    whenGone: 'closed',
    why: 'a stock that was drained is gone for everybody, and a bundle without one-time keys is complete [K-5.5]',
  },
  /** [K-5.3] */
  oneTimeKeysOfDevice: {
    variable: 'SEALPOST_LIMIT_ONE_TIME_KEYS_OF_DEVICE',
    about:
      'One-time keys of one device that all users get, half of the burst kept for those who share a conversation; past it bundles come without.',
    unset: '100+1/min',
    whenGone: 'closed',
    why: 'as for one-time keys of one user',
  },
  /** [I-1.4] */
  registrations: {
    variable: 'SEALPOST_LIMIT_REGISTRATIONS',
    about: 'Accounts made from one address (an IPv6 /64 is one). Addresses of this machine are not counted.',
    unset: '60/h',
    whenGone: 'open',
    why: 'new users can register; a flood is held back on each node all the same',
  },
  /** [I-5.2] */
  linking: {
    variable: 'SEALPOST_LIMIT_LINKING',
    about: 'Provisioning channels opened from one address. Addresses of this machine are not counted.',
    unset: '60/min',
    whenGone: 'open',
    why: 'devices can be linked; how many wait at once is bounded on each node',
  },
  /** [I-6.5] */
  recoveries: {
    variable: 'SEALPOST_LIMIT_RECOVERIES',
    about: 'Attempts to begin anew from one address. Addresses of this machine are not counted.',
    unset: '30/h',
    whenGone: 'open',
    why: 'who lost everything can come back; a code of 128 bits is not guessed however often it is tried',
  },
  /** [U-4] */
  lookups: {
    variable: 'SEALPOST_LIMIT_USERNAME_LOOKUPS',
    about: 'Usernames looked up by one user.',
    unset: '20+2/min',
    whenGone: 'closed',
    why: 'a dictionary that was tested cannot be untested, and a look-up can wait',
  },
} as const satisfies Record<string, LimitWords>

/** Their names in code; part of the key in Redis. */
export type LimitName = keyof typeof LIMITS

/** What the operator set. */
export type LimitRates = Record<LimitName, Rate[]>

const UNIT_MS = { s: 1_000, min: 60_000, h: 3_600_000, d: 86_400_000 }
const RATE = /^(?:(\d{1,9})\+)?(\d{1,6})\/(s|min|h|d)$/

/**
 * Reads the form in which rates are set: `10/s` is 10 at once and 10 more a second, `5000+500/s` 5,000 at once and 500 more a second;
 * several by comma count all; `off` or 0 does not limit.
 * @returns null: it is not of that form.
 */
export function parseRates(text: string): Rate[] | null {
  if (text === 'off' || text === '0') return []
  const rates = text.split(',').map((each) => {
    const [, burst, count, unit] = RATE.exec(each.trim()) ?? []
    if (!count || Number(count) === 0 || Number(burst ?? 1) === 0) return null
    return { burst: Number(burst ?? count), everyMs: UNIT_MS[unit as keyof typeof UNIT_MS] / Number(count) }
  })
  return rates.includes(null) ? null : (rates as Rate[])
}

/** The rates when nothing is set. */
export const usualRates = (): LimitRates => mapLimits((name) => parseRates(LIMITS[name].unset)!)

/** The usual ones, but messages and deliveries are not limited: for those who measure, and for tests that are about something else. */
export const liftedRates = (): LimitRates => ({ ...usualRates(), messages: [], deliveries: [] })

/** One value for each limit. */
export const mapLimits = <T>(make: (name: LimitName) => T): Record<LimitName, T> =>
  Object.fromEntries((Object.keys(LIMITS) as LimitName[]).map((name) => [name, make(name)])) as Record<LimitName, T>

/** A limit as meters take it. */
export const limitOf = (name: LimitName, rates: LimitRates): Limit => ({
  name,
  rates: rates[name],
  whenGone: LIMITS[name].whenGone,
})

/** A meter for each limit. */
export const openLimits = (open: OpenMeter, rates: LimitRates) => mapLimits((name) => open(limitOf(name, rates)))
