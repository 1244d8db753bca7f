// Whose CPU time a benchmark spends, from /proc: says where the time goes, also when the machine is busy with other things.
import { readdirSync, readFileSync } from 'node:fs'

const TICK_MS = 10

type Stat = { parent: number; ms: number; command: string }

function stats(): Map<number, Stat> {
  const all = new Map<number, Stat>()
  for (const pid of readdirSync('/proc').filter((each) => /^\d+$/.test(each))) {
    try {
      const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
      const rest = text.slice(text.lastIndexOf(')') + 2).split(' ')
      const command = text.slice(text.indexOf('(') + 1, text.lastIndexOf(')'))
      all.set(Number(pid), { parent: Number(rest[1]), ms: (Number(rest[11]) + Number(rest[12])) * TICK_MS, command })
    } catch {}
  }
  return all
}

/** CPU milliseconds so far of the relay, of everything it started (PostgreSQL), and of this process. Null where there is no /proc. */
export function cpuTimes(relayPid: number): { relay: number; postgres: number; generator: number } | null {
  try {
    const all = stats()
    const below = (pid: number): boolean => {
      for (let at = all.get(pid)?.parent ?? 0; at > 1; at = all.get(at)?.parent ?? 0) if (at === relayPid) return true
      return false
    }
    const postgres = [...all].filter(([pid]) => below(pid)).reduce((sum, [, each]) => sum + each.ms, 0)
    return { relay: all.get(relayPid)!.ms, postgres, generator: all.get(process.pid)!.ms }
  } catch {
    return null
  }
}
