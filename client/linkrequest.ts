// On the new device: shows where it waits, takes what was sealed to it, and asks its user before it joins. [I-5]
// A request lives for one process. Nothing of it is stored before its user accepts an account.
import type { Uuid } from '../proto/ids.ts'
import { Backoff } from './backoff.ts'
import { base64url } from './bytes.ts'
import type { Core } from './core.ts'
import { type OfferedAccount, type ProvisionKey, Unopened } from './crypto.ts'
import type { Enrolling } from './enrolling.ts'
import { Emitter } from './events.ts'
import { isRefused } from './introduction.ts'
import { linkUri } from './linkuri.ts'
import type { Cancel } from './time.ts'
import type { Socket, Transport } from './transport.ts'

/** The relay ends a channel after 90 s; one that is still there then is dead. [I-5.2] */
const DEAD_AFTER_MS = 95_000
const OPEN_WITHIN_MS = 15_000
/** A channel that ended as it should is followed by another at once, unless it ended this soon. */
const SOON_MS = 10_000
const GOING_AWAY = 1001

/** An account that somebody who saw the request sealed to this device: is it the user's own? [I-5.5] */
export type LinkOffer = {
  userId: Uuid
  /** What it is called, by its own word; '' = nothing. */
  username: string
  /**
   * Joins it. Rejects when that failed: after a refusal by a RelayError the request shows another uri, after anything else `accept`
   * may be called again.
   */
  accept(): Promise<void>
  /** It is not: the request shows another uri. */
  reject(): void
}

/** What a request tells. */
export type LinkRequestEvents = {
  /** What is to be shown now, as a QR code and as text; null = nothing, because nobody could be reached or something was offered. */
  uri: string | null
  offer: LinkOffer
  /** Something came that was altered or meant for another, or the relay refused the link. Another uri follows. */
  refused: { reason: string }
  /** This is a device of that user now: `connect` may be called. */
  linked: { userId: Uuid }
}

/** A wish to be linked, until it is linked or cancelled. Every 90 s, and after every failure, it has another address and key. */
export class LinkRequest extends Emitter<LinkRequestEvents> {
  uri: string | null = null
  offer: LinkOffer | null = null
  private readonly parts: { core: Core; transport: Transport; url: string; enrolling: Enrolling; name: string }
  private readonly backoff: Backoff
  /** Counts channels: what belongs to an earlier one is ignored. */
  private channel = 0
  private socket: Socket | null = null
  private cancels: Cancel[] = []
  private isOver = false

  constructor(parts: { core: Core; transport: Transport; url: string; enrolling: Enrolling; name: string }) {
    super()
    this.parts = parts
    this.backoff = new Backoff(parts.core.time)
    // Whoever made it can listen first.
    queueMicrotask(() => this.begin())
  }

  /** The user changed their mind. What was accepted and not answered is finished by the next request. */
  cancel(): void {
    this.isOver = true
    this.offer = null
    this.end()
  }

  private begin(): void {
    this.end()
    if (this.isOver) return
    this.offer = null
    if (this.parts.enrolling.isLinking) void this.finish()
    else this.wait()
  }

  /** A link whose answer was lost: by a crash, or by the network. */
  private async finish(): Promise<void> {
    const { channel } = this
    try {
      await this.parts.enrolling.finishLink()
      this.linked()
    } catch (error) {
      if (channel !== this.channel) return
      if (isRefused(error)) this.emit('refused', { reason: error.message })
      this.later(1006, null)
    }
  }

  private wait(): void {
    const { core, transport, url, name } = this.parts
    const key = core.crypto.createProvisionKey()
    const mine = this.guard()
    let openedAtMs: number | null = null
    const ended = (code: number) => {
      const openMs = openedAtMs === null ? null : core.time.now() - openedAtMs
      if (code === GOING_AWAY && openMs !== null && openMs > SOON_MS) this.begin()
      else this.later(code, openMs)
    }
    const notOpen = core.time.after(
      OPEN_WITHIN_MS,
      mine(() => ended(1006)),
    )
    this.cancels.push(
      notOpen,
      core.time.after(
        DEAD_AFTER_MS,
        mine(() => ended(GOING_AWAY)),
      ),
    )
    this.socket = transport.open(`${url.replace(/^http/, 'ws')}/v1/provisioning/${base64url(key.address)}`, null, {
      opened: mine(() => {
        notOpen()
        openedAtMs = core.time.now()
        this.show(linkUri(url, { ...key, name }))
      }),
      frame: mine((bytes: Uint8Array) => this.take(key, bytes)),
      closed: mine(ended),
    })
  }

  private take(key: ProvisionKey, sealed: Uint8Array): void {
    this.end()
    let account: OfferedAccount
    try {
      account = key.open(sealed)
    } catch (error) {
      if (!(error instanceof Unopened)) throw error
      this.emit('refused', { reason: error.message })
      this.later(1006, null)
      return
    }
    let accepted: Promise<void> | null = null
    const mine = this.guard()
    const offer: LinkOffer = {
      ...{ userId: account.userId, username: account.username },
      accept: () => {
        // Refused or cancelled is no account to join any more. [I-5.5]
        if (this.offer !== offer || this.isOver) return Promise.reject(new Error('this offer is no longer open'))
        accepted ??= this.join(account).finally(() => {
          accepted = null
        })
        return accepted
      },
      reject: mine(() => this.begin()),
    }
    this.offer = offer
    this.emit('offer', offer)
  }

  private async join(account: OfferedAccount): Promise<void> {
    const { enrolling, name } = this.parts
    const { channel } = this
    try {
      // A second try asks for the same device.
      if (enrolling.isLinking) await enrolling.finishLink()
      else await enrolling.link(account, name)
    } catch (error) {
      if (isRefused(error) && channel === this.channel) this.begin()
      throw error
    }
    this.linked()
  }

  private linked(): void {
    this.cancel()
    this.emit('linked', { userId: this.parts.core.account.self.userId })
  }

  private later(code: number, openMs: number | null): void {
    this.end()
    if (this.isOver) return
    const inMs = this.backoff.after({ code, openMs, retryAfterMs: null })
    this.cancels.push(
      this.parts.core.time.after(
        inMs,
        this.guard()(() => this.begin()),
      ),
    )
  }

  /** Calls only while the channel is the one it was made for. */
  private guard() {
    const { channel } = this
    return <A extends unknown[]>(call: (...args: A) => void) =>
      (...args: A): void => {
        if (channel === this.channel) call(...args)
      }
  }

  /** Lets go of the present channel, whatever its stage. */
  private end(): void {
    this.channel++
    for (const cancel of this.cancels.splice(0)) cancel()
    this.socket?.close()
    this.socket = null
    this.show(null)
  }

  private show(uri: string | null): void {
    if (uri === this.uri) return
    this.uri = uri
    this.emit('uri', uri)
  }
}
