// The programs of a cluster, each ready for work when its promise resolves: HAProxy with deploy/haproxy.cfg, Redis, a relay.
import { fileURLToPath } from 'node:url'
import { type Child, startChild } from './child.ts'
import { listens } from './ports.ts'

const CONFIGURATION = fileURLToPath(new URL('../../deploy/haproxy.cfg', import.meta.url))
const HERE = '127.0.0.1'

type OnLine = (line: string) => void

/**
 * The balancer, as compose.yaml has it.
 * @param given.host address to listen on. @param given.relays host:port of three.
 * @throws Error with what it complained of.
 */
export async function startHaproxy(given: {
  program: string
  host: string
  port: number
  relays: readonly string[]
  onLine: OnLine
}): Promise<Child> {
  const { program, host, port, relays, onLine } = given
  const said: string[] = []
  const child = await startChild({
    program,
    // -db: in the foreground.
    args: ['-db', '-f', CONFIGURATION],
    env: {
      SEALPOST_BIND: `${host}:${port}`,
      ...Object.fromEntries(relays.map((each, i) => [`SEALPOST_RELAY_${i + 1}`, each])),
    },
    onLine(line) {
      // It says everything twice: to its log, and with a sign in front on stderr.
      if (/^\[(NOTICE|WARNING|ALERT)\]/.test(line)) said.push(line)
      else onLine(line)
    },
  })
  await listens(host === '0.0.0.0' ? HERE : host, port, child.ended).catch(() => {
    throw new Error(`HAProxy did not start: ${said.find((line) => line.includes('ALERT')) ?? said.at(-1)}`)
  })
  said.length = 0
  return child
}

/** Redis without a disk, reached from this machine only: nothing in it is worth keeping (I11). @throws Error with its last line. */
export async function startRedis({ program, port }: { program: string; port: number }): Promise<Child> {
  let last = ''
  const child = await startChild({
    program,
    args: ['--port', `${port}`, '--bind', HERE, '--save', '', '--appendonly', 'no', '--loglevel', 'warning'],
    // It tells of every start and end, which is told here anyway.
    onLine(line) {
      last = line
    },
  })
  await listens(HERE, port, child.ended).catch(() => {
    throw new Error(`Redis did not start: ${last}`)
  })
  return child
}

/** One relay. @param given.env its variables besides those of this process. @throws Error with what it complained of. */
export async function startNode(given: { env: Record<string, string>; onLine: OnLine }): Promise<Child> {
  const complaints: string[] = []
  let ready = (): void => {}
  const isReady = new Promise<void>((resolve) => {
    ready = resolve
  })
  let isUp = false
  const child = await startChild({
    program: process.execPath,
    args: ['--max-semi-space-size=64', '--import', 'tsx', 'server/main.ts'],
    env: given.env,
    onLine(line) {
      if (isUp) return void (line && given.onLine(line))
      // Its welcome is for those who started one relay.
      if (/^Ctrl-C/.test(line)) {
        isUp = true
        ready()
      } else complaints.push(line)
    },
  })
  await Promise.race([
    isReady,
    child.ended.then(() => {
      throw new Error(complaints.filter((line) => line.trim()).join('\n') || 'the relay ended without a word')
    }),
  ])
  return child
}
