// One HTTP request and its answer, whatever it is.
import { requestUrl } from './spread.ts'

// biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
export type HttpAnswer = { status: number; body: any; headers: Headers }

/** One HTTP request; the answer's JSON, whatever the status. */
export async function request(
  url: string,
  method: string,
  path: string,
  options: {
    token?: string | undefined
    json?: unknown
    body?: string | Uint8Array
    headers?: Record<string, string>
  } = {},
): Promise<HttpAnswer> {
  const init: RequestInit = { method, headers: { ...options.headers } }
  const headers = init.headers as Record<string, string>
  if (options.token) headers.Authorization = `Bearer ${options.token}`
  if (options.json !== undefined) {
    headers['Content-Type'] = 'application/json'
    init.body = JSON.stringify(options.json)
  } else if (options.body !== undefined) init.body = options.body as string
  const answer = await fetch(requestUrl(url) + path, init)
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, body: text && isJson(answer) ? JSON.parse(text) : text }
}
const isJson = (answer: Response): boolean => (answer.headers.get('content-type') ?? '').includes('json')

/** The answer of a request that is meant to succeed. @throws Error with the refusal. */
export const must = (answer: HttpAnswer): HttpAnswer => {
  if (answer.status >= 300) throw new Error(`HTTP ${answer.status}: ${JSON.stringify(answer.body)}`)
  return answer
}
