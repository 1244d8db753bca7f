// Which realm a relay probably has when nobody says: proofs name it before the relay could. [I-2.1]

const LOOPBACK = new Set(['127.0.0.1', '[::1]', '0.0.0.0'])

/** The url itself; for this machine's addresses the one with `localhost`, which relays take when they are told no other. */
export function usualRealm(url: string): string {
  const { protocol, hostname, port } = new URL(url)
  if (!LOOPBACK.has(hostname)) return url
  return `${protocol}//localhost${port && `:${port}`}`
}
