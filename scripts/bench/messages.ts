// Messages between pairs: send → commit → deliver → ack, closed loop or at a fixed rate.
import type { Pair } from './fleet.ts'
import { ackFrame, type Link, open, sendTemplate, syncFrame } from './wire.ts'

export type Result = {
  seconds: number
  accepted: number
  delivered: number
  errors: number
  /** Milliseconds, send to delivery. */
  deliver: Percentiles
  /** Milliseconds, send to the sender's ack. */
  accept: Percentiles
  /** Deliveries per second, interval by interval. */
  series: number[]
}

export type Percentiles = { p50: number; p95: number; p99: number }

const percentiles = (values: number[]): Percentiles => {
  const sorted = Float64Array.from(values).sort()
  const at = (p: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}

/** Acks gathered per receiver before one Ack frame leaves. */
const ACK_EVERY = 16

type Options = {
  seconds: number
  /** Sends outstanding per pair; the closed loop. */
  outstanding: number
  /** Messages per second over all pairs; 0 = as fast as the loop goes. */
  rate?: number
  bytes?: number
  intervalSeconds?: number
  /** The node of the receivers; the senders' unless said. */
  receiversUrl?: string
}

/** Runs the load over these pairs, a to b. Everything outstanding has arrived when it returns. */
export async function runMessages(url: string, pairs: Pair[], options: Options): Promise<Result> {
  const { seconds, outstanding, rate = 0, bytes = 512, intervalSeconds = 10 } = options
  const deliver: number[] = []
  const accept: number[] = []
  const series: number[] = []
  let accepted = 0
  let delivered = 0
  let errors = 0
  let sent = 0
  let running = true
  const links: Link[] = []
  const lanes: { pump(): void; canSend(): boolean }[] = []

  for (const { a, b, conversationId } of pairs) {
    const pendingAcks: Buffer[] = []
    const flush = (): void => {
      if (pendingAcks.length > 0) receiver.send(ackFrame(pendingAcks.splice(0)))
    }
    const receiver = await open(options.receiversUrl ?? url, b.token, {
      envelope(messageId, content) {
        if (content.length === bytes) deliver.push(performance.now() - content.readDoubleBE(0))
        delivered++
        pendingAcks.push(messageId)
        if (pendingAcks.length >= ACK_EVERY) flush()
        else if (pendingAcks.length === 1) setTimeout(flush, 20)
      },
    })
    const sentAt = new Map<number, number>()
    let requestId = 0
    const next = sendTemplate(
      conversationId,
      { userId: b.userId, deviceId: b.deviceId, registrationId: b.device.registrationId },
      bytes,
    )
    const send = (): void => {
      requestId = (requestId + 1) % 2_000_000
      const now = performance.now()
      sentAt.set(requestId, now)
      sent++
      sender.send(next(requestId, now))
    }
    const done = (id: number): void => {
      accept.push(performance.now() - sentAt.get(id)!)
      sentAt.delete(id)
      if (running && rate === 0) send()
    }
    const sender = await open(url, a.token, {
      accepted(id) {
        accepted++
        done(id)
      },
      error(frame) {
        errors++
        if (errors <= 3) console.error('refused:', frame.error?.message)
        if (frame.requestId) done(frame.requestId)
      },
    })
    for (const each of [sender, receiver]) if (each.waiting) each.send(syncFrame())
    links.push(sender, receiver)
    lanes.push({
      pump: () => {
        for (let i = 0; i < outstanding; i++) send()
      },
      canSend: () => {
        if (sentAt.size >= outstanding) return false
        send()
        return true
      },
    })
  }

  const began = performance.now()
  let lastDelivered = 0
  const sampler = setInterval(() => {
    series.push((delivered - lastDelivered) / intervalSeconds)
    lastDelivered = delivered
  }, intervalSeconds * 1000)
  if (rate === 0) for (const lane of lanes) lane.pump()
  else {
    let at = 0
    const timer = setInterval(() => {
      if (!running) return clearInterval(timer)
      const due = ((performance.now() - began) / 1000) * rate
      for (let tries = 0; sent < due && tries < lanes.length * 2; tries++) lanes[at++ % lanes.length]!.canSend()
    }, 2)
  }
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  const took = (performance.now() - began) / 1000
  const counted = delivered
  running = false
  clearInterval(sampler)
  for (let i = 0; i < 500 && (accepted + errors < sent || delivered < accepted); i++)
    await new Promise((resolve) => setTimeout(resolve, 20))
  await Promise.all(links.map((each) => each.close()))
  if (delivered < accepted)
    throw new Error(`${accepted - delivered} of ${accepted} accepted messages were not delivered`)
  return {
    seconds: took,
    accepted,
    delivered: counted,
    errors,
    deliver: percentiles(deliver),
    accept: percentiles(accept),
    series,
  }
}
