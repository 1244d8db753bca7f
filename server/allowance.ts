// How much a user may send: messages within each window, and deliveries, since one message can be thousands of rows. All of it lies
// under one key, so that one call decides. [S-9.4]
import type { OpenMeter } from '../keys/meter.ts'
import type { Uuid } from '../proto/ids.ts'
import { LIMITS, type LimitRates } from './limits.ts'

export type Allowance = {
  /**
   * Takes one message with so many deliveries.
   * @returns 0, or how long until the user has as much again, milliseconds; then nothing was taken. A number at once where this
   *   process counts: no send waits for anything.
   */
  take(userId: Uuid, deliveries: number): number | Promise<number>
  /** What was taken for nothing. */
  give(userId: Uuid, back: { messages: 0 | 1; deliveries: number }): void
}

/** @param rates of which messages and deliveries are used; they fail alike. */
export function openAllowance(open: OpenMeter, { messages, deliveries }: LimitRates): Allowance {
  const { whenGone } = LIMITS.messages
  const meter = open({ name: 'sends', rates: [...messages, ...deliveries], whenGone })
  const amounts = (ofMessages: number, ofDeliveries: number): number[] => [
    ...messages.map(() => ofMessages),
    ...deliveries.map(() => ofDeliveries),
  ]
  return {
    take: (userId, rows) => meter.take(userId, amounts(1, rows)),
    give: (userId, back) => meter.give(userId, amounts(back.messages, back.deliveries)),
  }
}
