// Who a request is from when it came through proxies: of those the operator names, and of nobody else, X-Forwarded-For is believed.
import { BlockList, isIP, isIPv6 } from 'node:net'

const family = (address: string): 'ipv4' | 'ipv6' => (isIPv6(address) ? 'ipv6' : 'ipv4')

/** @param text addresses and networks (10.0.0.0/8, fd00::/8), separated by commas. @returns null when one is neither. */
export function parseNetworks(text: string): BlockList | null {
  const networks = new BlockList()
  for (const each of text.split(',').flatMap((one) => one.trim() || [])) {
    const [, address = '', bits] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(each) ?? []
    const most = isIP(address) === 6 ? 128 : 32
    if (isIP(address) === 0 || Number(bits ?? most) > most) return null
    networks.addSubnet(address, Number(bits ?? most), family(address))
  }
  return networks
}

/**
 * The last address of the way that no trusted proxy has.
 * @param remote of the connection, text form. @param forwarded X-Forwarded-For as it came, all its lines joined by commas.
 * @returns remote itself unless it is trusted; of what is no address the proxy that wrote it down takes the blame.
 */
export function clientOf(remote: string, forwarded: string, trusted: BlockList): string {
  let client = remote
  for (const hop of forwarded.split(',').reverse()) {
    const address = hop.trim()
    if (isIP(address) === 0 || !trusted.check(client, family(client))) break
    client = address
  }
  return client
}
