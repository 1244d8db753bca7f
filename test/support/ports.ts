// Ports whose number must be known before anybody listens there, or where somebody will listen again. They lie below those that the
// system gives to whoever asks for any: one of these that was free a moment ago is somebody else's soon.
import { isFree } from '../../scripts/cluster/ports.ts'

/** Linux gives from 32,768 on; 10,000 above each of ours is still below that. */
const FROM = 10_240
/** Files that run side by side take theirs from shares of their own. */
const SHARES = 8
const SHARE = 10_000 / SHARES
/** A cluster's Redis servers talk to each other so far above. */
const ABOVE = 10_000

const first = FROM + (Number(process.env.VITEST_POOL_ID ?? 0) % SHARES) * SHARE
let next = Math.floor(Math.random() * SHARE)

/** A port of 127.0.0.1 where nobody listens and nobody comes to by chance, nor 10,000 above it; another one each time. */
export async function ownPort(): Promise<number> {
  for (;;) {
    const port = first + (next++ % SHARE)
    if ((await isFree('127.0.0.1', port)) && (await isFree('127.0.0.1', port + ABOVE))) return port
  }
}
