// A relay that writes everything down: what its clients ask, what they are answered, and every frame, as far as the relay can see it.
import type { Transport } from '../../client/index.ts'
import { wsTransport } from '../../client/node.ts'

/** One thing it saw: where, and the bytes or the text. */
export type Seen = { at: string; bytes: Uint8Array }

/** For any number of devices; a transport for each. */
export class Overheard {
  readonly seen: Seen[] = []
  /** What becomes of a sealed message on its way to the new device; as it is when null. */
  provision: ((sealed: Uint8Array) => Uint8Array) | null = null
  /** Called before a request goes on; what it throws is the caller's. */
  before: ((method: string, path: string) => Promise<void> | void) | null = null
  /** Called before an answer goes back; what it throws is the caller's: a lost answer. */
  after: ((method: string, path: string) => Promise<void> | void) | null = null
  /** Sealed messages as they came, oldest first. */
  readonly sealed: Uint8Array[] = []
  /** Sockets are told nothing: neither frames nor ends. */
  isSilent = false

  /** What was seen of the provisioning path and of nothing else. [I-5] */
  get provisioning(): Seen[] {
    return this.seen.filter(({ at }) => at.includes('/v1/provisioning/'))
  }

  /** Whether the bytes occur, raw or in hex, base64 or base64url wherever they stand in it. @returns where. */
  find(secret: Uint8Array, within: Seen[] = this.seen): string[] {
    const forms = written(secret)
    return within.filter(({ bytes }) => forms.some((form) => Buffer.from(bytes).includes(form))).map(({ at }) => at)
  }

  transport(inner: Transport = wsTransport()): Transport {
    const note = (at: string, what: Uint8Array | string) =>
      void this.seen.push({ at, bytes: typeof what === 'string' ? Buffer.from(what) : Uint8Array.from(what) })
    return {
      request: async (request) => {
        const { pathname } = new URL(request.url)
        const at = `${request.method} ${pathname}`
        note(at, `${request.url}\n${JSON.stringify(request.headers)}\n${request.body ?? ''}`)
        // Bytes in JSON are base64, and secrets in them would be at any of three offsets.
        for (const [, text] of (request.body ?? '').matchAll(/"([\w+/=-]{16,})"/g))
          note(at, Buffer.from(text!, 'base64'))
        await this.before?.(request.method, pathname)
        const answer = await inner.request(request)
        note(`${at} answered`, answer.body)
        await this.after?.(request.method, pathname)
        return answer
      },
      open: (url, token, events) => {
        const at = `socket ${new URL(url).pathname}`
        note(at, `${url}\n${token ?? ''}`)
        const socket = inner.open(url, token, {
          opened: events.opened,
          closed: (code, reason) => this.isSilent || events.closed(code, reason),
          frame: (bytes) => {
            note(at, bytes)
            if (this.isSilent) return
            if (!at.includes('/v1/provisioning/')) return events.frame(bytes)
            this.sealed.push(Uint8Array.from(bytes))
            events.frame(this.provision ? this.provision(bytes) : bytes)
          },
        })
        const send = (frame: Uint8Array) => {
          note(at, frame)
          socket.send(frame)
        }
        return { send, close: () => socket.close() }
      },
    }
  }
}

/** Ways to write bytes. Inside of longer base64 they stand at one of three offsets; the outermost characters are shared with neighbours. */
export function written(secret: Uint8Array): Buffer[] {
  const raw = Buffer.from(secret)
  const hex = raw.toString('hex')
  const inBase64 = [0, 1, 2].flatMap((offset) => {
    const text = Buffer.concat([Buffer.alloc(offset), raw])
      .toString('base64')
      .replace(/=+$/, '')
    const inner = text.slice(offset && 4, -1)
    return [inner, inner.replaceAll('+', '-').replaceAll('/', '_')]
  })
  return [raw, ...[hex, hex.toUpperCase(), ...inBase64].map((text) => Buffer.from(text))]
}
