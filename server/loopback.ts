// Whether somebody is on this machine.
import { BlockList, isIPv6 } from 'node:net'

/** A reverse proxy on this machine is loopback too: docs/operations.md tells its operator. */
const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

/** @param address text form of an IP address, mapped ones (::ffff:127.0.0.1) too; anything else is not loopback. */
export const isLoopback = (address: string): boolean => LOOPBACK.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
