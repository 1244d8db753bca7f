// One HTTP request and its answer, whatever it is.
import { allUrls, requestUrl } from './spread.ts'

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
  if (path === '/metrics' && allUrls(url).length > 1) return metrics(url, init)
  const answer = await fetch(requestUrl(url) + path, init)
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, body: text && isJson(answer) ? JSON.parse(text) : text }
}

/** What the nodes count, together. */
async function metrics(url: string, init: RequestInit): Promise<HttpAnswer> {
  const answers = await Promise.all(allUrls(url).map((each) => fetch(`${each}/metrics`, init)))
  const [first] = answers as [Response]
  const texts = await Promise.all(answers.map((each) => each.text()))
  const sums = new Map<string, number>()
  for (const line of texts.flatMap((text) => text.split('\n'))) {
    const [, name, value] = /^(\w.*) (\S+)$/.exec(line) ?? []
    if (name) sums.set(name, (sums.get(name) ?? 0) + Number(value))
  }
  const summed = [...sums].map(([name, value]) => `${name} ${value}`).join('\n')
  return { status: first.status, headers: first.headers, body: summed }
}

const isJson = (answer: Response): boolean => (answer.headers.get('content-type') ?? '').includes('json')

/** The answer of a request that is meant to succeed. @throws Error with the refusal. */
export const must = (answer: HttpAnswer): HttpAnswer => {
  if (answer.status >= 300) throw new Error(`HTTP ${answer.status}: ${JSON.stringify(answer.body)}`)
  return answer
}
