// HTTP through the platform's fetch, which browsers, React Native and Node all have.
import type { HttpAnswer, HttpRequest } from '../transport.ts'

const WITHIN_MS = 15_000

/** One request with fetch. @throws when no answer came within 15 s. */
export async function fetchAnswer({ method, url, headers, body }: HttpRequest): Promise<HttpAnswer> {
  const abort = new AbortController()
  const timer = setTimeout(() => abort.abort(new Error(`no answer within ${WITHIN_MS / 1000} s`)), WITHIN_MS)
  try {
    const init = {
      method,
      headers,
      signal: abort.signal,
      redirect: 'error' as const,
      ...(body !== undefined && { body }),
    }
    const answer = await fetch(url, init)
    return { status: answer.status, body: await answer.text() }
  } finally {
    clearTimeout(timer)
  }
}

/** Content type of frames. */
const PROTOBUF = 'application/x-protobuf'
/** Large frames may take a while. [C-9.4] */
const LARGE_WITHIN_MS = 60_000

/**
 * One request of frames. @property body absent = GET. @property signal ends it early.
 * @returns whatever the status. @throws when no answer came in time, or one that is not a relay's.
 */
export async function fetchFrames(
  url: string,
  { token, body, withinMs, signal }: { token: string; body?: Uint8Array; withinMs: number; signal?: AbortSignal },
): Promise<{ status: number; bytes: Uint8Array }> {
  const late = new AbortController()
  const stop = () => late.abort()
  const timer = setTimeout(stop, withinMs)
  signal?.addEventListener('abort', stop)
  try {
    const headers = { Authorization: `Bearer ${token}`, ...(body && { 'Content-Type': PROTOBUF }) }
    const init = { method: body ? 'POST' : 'GET', headers, signal: late.signal, redirect: 'error' as const }
    const answer = await fetch(url, body ? { ...init, body: body as Uint8Array<ArrayBuffer> } : init)
    const bytes = new Uint8Array(await answer.arrayBuffer())
    if (bytes.length > 0 && !answer.headers.get('content-type')?.startsWith(PROTOBUF))
      throw new Error(`HTTP ${answer.status} of something else`)
    return { status: answer.status, bytes }
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', stop)
  }
}

/** `exchange` of every transport. */
export const exchangeFrame = async (url: string, token: string, frame: Uint8Array): Promise<Uint8Array> =>
  (await fetchFrames(url, { token, body: frame, withinMs: LARGE_WITHIN_MS })).bytes
