// One HTTP request and its answer, whatever it is; and every refusal that was seen, for the rules about refusals.
import { Violation } from './check.ts'

// biome-ignore lint/suspicious/noExplicitAny: checks look into answers of every shape
export type Answer = { status: number; body: any; text: string; bytes: Buffer; headers: Headers }

/** A refusal as it came. @property where method and path, or the kind of frame. */
export type Refusal = { where: string; status: number | null; code: string; retryAfterMs: number }

export type RequestOptions = {
  token?: string | null
  json?: unknown
  body?: string | Uint8Array
  headers?: Record<string, string>
  /** How long is waited for the answer, milliseconds. */
  withinMs?: number
}

const WITHIN_MS = 10_000

/** @throws Violation when nothing answers. */
export async function request(
  url: string,
  method: string,
  path: string,
  options: RequestOptions = {},
): Promise<Answer> {
  const headers: Record<string, string> = { ...options.headers }
  if (options.token) headers.Authorization = `Bearer ${options.token}`
  if (options.json !== undefined) headers['Content-Type'] ??= 'application/json'
  const body = options.json === undefined ? options.body : JSON.stringify(options.json)
  const init = {
    method,
    headers,
    signal: AbortSignal.timeout(options.withinMs ?? WITHIN_MS),
    redirect: 'manual' as const,
  }
  const answer = await fetch(url + path, { ...init, ...(body !== undefined && { body: body as string }) }).catch(
    (error) => {
      const cause = reasonOf(error)
      throw new Violation(`expected an answer to ${method} ${path}; saw ${cause}`)
    },
  )
  const bytes = Buffer.from(await answer.arrayBuffer())
  const text = bytes.toString()
  return { status: answer.status, headers: answer.headers, bytes, text, body: parsed(text) }
}

/** Why nothing answered, in a word: `ECONNREFUSED`. */
function reasonOf(error: unknown): string {
  const { code, message, cause, errors } = error as Error & { code?: string; errors?: unknown[] }
  if (cause) return reasonOf(cause)
  return code ?? (errors?.length ? reasonOf(errors[0]) : message)
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** The code of a refusal, '' when there is none. [H-2] */
export const codeOf = ({ body }: Answer): string => body?.error?.code ?? ''

/** Status and code as one word: `404 NOT_FOUND`. */
export const wordOf = (answer: Answer): string => `${answer.status} ${codeOf(answer)}`.trim()

/** @throws Violation unless the status is that. */
export function ok(answer: Answer, status: number | number[] = [200, 201, 204]): Answer {
  if ([status].flat().includes(answer.status)) return answer
  const expected = [status].flat().join(' or ')
  throw new Violation(`expected HTTP ${expected}; saw ${answer.status} ${answer.text.slice(0, 200)}`)
}

const STATUS: Record<string, number> = {
  INVALID_REQUEST: 400,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  CONFLICT: 409,
  DEVICE_MISMATCH: 409,
  RATE_LIMITED: 429,
  TOO_LARGE: 413,
  QUEUE_FULL: 429,
  OVERLOADED: 503,
  UNAVAILABLE: 503,
  INTERNAL: 500,
}

/** The status that goes with a code, undefined for a code that is none. [E-1] */
export const statusOf = (code: string): number | undefined => STATUS[code]

/** @throws Violation unless it is a refusal with that code and its status. @param what was asked for. */
export function refused(answer: Answer, code: string, what: string): Answer {
  const expected = `${STATUS[code]} ${code}`
  if (wordOf(answer) !== expected)
    throw new Violation(`expected ${expected} for ${what}; saw ${wordOf(answer)} ${answer.text.slice(0, 160)}`)
  return answer
}
