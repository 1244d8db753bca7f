// How operators spell things: a mistake must be told, not be a silent default.

// Set by Kubernetes in every pod beside a service called sealpost.
const KUBERNETES = /^SEALPOST_(SERVICE_|PORT_\d|PORT=tcp:)/

// Levenshtein's: how many letters to change, add or drop.
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length]!
}

/** A line for each variable that begins like ours and is none. @param known all there are. */
export function misspelt(env: NodeJS.ProcessEnv, known: string[]): string[] {
  return Object.keys(env).flatMap((name) => {
    if (!name.startsWith('SEALPOST_') || known.includes(name) || KUBERNETES.test(`${name}=${env[name]}`)) return []
    const nearest = known.map((each) => ({ each, far: distance(name, each) })).sort((a, b) => a.far - b.far)[0]!
    return [`${name} is not a variable of the relay; did you mean ${nearest.each}?`]
  })
}

/** Browsers write origins in lower case, without a path and without the scheme's own port. [H-11] */
export const isOrigin = (text: string): boolean =>
  /^[a-z][a-z0-9+.-]*:\/\/(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[1-9]\d{0,4})?$/.test(text) &&
  (!/^https?:/.test(text) || (URL.canParse(text) && new URL(text).origin === text))
