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
