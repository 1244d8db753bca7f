// What an app gives a device. No behaviour.
import type { Crypto } from './crypto.ts'
import type { Storage } from './storage.ts'
import type { Time } from './time.ts'
import type { Transport } from './transport.ts'

/** What a device is made of. */
export type DeviceOptions = {
  /** The relay: http:// or https://, without a path. */
  url: string
  /** The deployment's name, from the same source as the url and not from the relay: part of every proof. [I-2] */
  realm: string
  transport: Transport
  storage: Storage
  crypto: Crypto
  /** The platform's when absent. */
  time?: Time
}
