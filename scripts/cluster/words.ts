// What `npm run cluster` says: where to connect, what runs where, and lines of several programs in one terminal.

/** @property where address, or a path. */
export type Place = { what: string; where: string; pid: number | null }

const isColourful = process.stdout.isTTY === true && !process.env.NO_COLOR
const paint = (text: string, code: number): string => (isColourful ? `\x1b[${code}m${text}\x1b[0m` : text)
const COLOURS = [36, 33, 32, 35, 34]
const NAME_WIDTH = 8

const names: string[] = []

/** A line of one program, in its colour. */
export function line(name: string, text: string): void {
  if (!names.includes(name)) names.push(name)
  const colour = COLOURS[names.indexOf(name) % COLOURS.length]!
  process.stdout.write(`${paint(`${name.padEnd(NAME_WIDTH)} │`, colour)} ${text}\n`)
}

/** What stands on the screen when everything runs. */
export function welcome(given: { url: string; realm: string; places: readonly Place[] }): string {
  const { url, realm, places } = given
  const width = Math.max(...places.map(({ where }) => where.length))
  const rows = places.map(({ what, where, pid }) =>
    `  ${what.padEnd(10)}  ${where.padEnd(width)}  ${pid === null ? '' : pid}`.trimEnd(),
  )
  const isUsual = new URL(url).port === '8080' && realm === 'http://localhost:8080'
  const otherRealm = realm === `http://localhost:${new URL(url).port}` ? '' : ` --realm ${realm}`
  const relay = places.find(({ what }) => what === 'relay-2')!
  return `
Sealpost relays, three times.

  connect to  ${url}, as if it were one relay
  WebSocket   ${url.replace(/^http/, 'ws')}/v1/ws
  realm       ${realm}

  ${'what'.padEnd(10)}  ${'where'.padEnd(width)}  process
${rows.join('\n')}

Try next, in other terminals:
  npm run demo${isUsual ? '' : ` -- ${url}${otherRealm}`}
  npm run chat -- --as alice${isUsual ? '' : ` --url ${url}${otherRealm}`}
  kill -9 ${relay.pid}    # one relay: its devices come back on the others, and it comes back, too

Ctrl-C stops everything, in order.

`
}
