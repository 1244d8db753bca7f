// A user who begins anew, and the recovery code stored before: what a client sends, made from proto/README.md [I-6] without the
// relay's own code.
import { createHash, randomBytes } from 'node:crypto'
import { uuidToBytes } from '../../proto/ids.ts'
import { Client } from './client.ts'
import { enrolmentJson } from './enrolment.ts'
import { TestDevice } from './keys.ts'
import { type HttpAnswer, must, request } from './request.ts'

type Place = { url: string; realm: string }

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

const be64 = (value: number): Buffer => {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64BE(BigInt(value))
  return buffer
}

/** 128 bits as a client draws them. [I-6.3] */
export const newCode = (): string => randomBytes(16).toString('base64url')

/** Stores a recovery code for the user of that device, or removes it. [I-6.3] */
export function storeCode(
  by: Client,
  code: string | null,
  { signer = by.device, nowMs = Date.now() }: { signer?: TestDevice; nowMs?: number } = {},
): Promise<HttpAnswer> {
  const hash = code === null ? null : createHash('sha256').update(code).digest()
  const head = Buffer.from(`sealpost.v1 recovery\0${by.realm}`)
  const message = Buffer.concat([head, uuidToBytes(by.userId), hash ?? Buffer.alloc(32), be64(nowMs)])
  return by.put('/v1/recovery-code', {
    recovery_code_hash: hash && base64(hash),
    timestamp_ms: nowMs,
    signature: base64(signer.sign(message)),
  })
}

// Registration ids of primaries by the code they stored: the new device must have another. [I-6.4]
const primaries = new Map<string, number>()

/** A user with a code stored. @returns the code. */
export async function withCode(user: Client, nowMs?: number): Promise<string> {
  const code = newCode()
  primaries.set(code, user.device.registrationId)
  must(await storeCode(user, code, nowMs === undefined ? {} : { nowMs }))
  return code
}

/** How a new identity is asked for; what is absent is left out of the request, or made as it should be. */
export type Asking = {
  code?: string
  /** Whose identity key signs the handover. */
  oldKey?: TestDevice
  /** The new device with its new identity. */
  device?: TestDevice
  /** The code the proof is made for, when it is not the one given. */
  proofOf?: string
  /** The user by the hash of his username. [I-6.8] */
  usernameHash?: Uint8Array
  /** An outside issuer's. */
  bearer?: string
  nowMs?: number
  /** The handover's time, when it is not the proof's. */
  signedAtMs?: number
}

/** `PUT /v1/identity`. @param userId null = the request names nobody by id. */
export async function beginAnew(
  { url, realm }: Place,
  userId: string | null,
  asking: Asking,
): Promise<{ answer: HttpAnswer; device: TestDevice }> {
  const { code, oldKey, proofOf = code, usernameHash, bearer } = asking
  const former = oldKey?.registrationId ?? primaries.get(code ?? '')
  const { device = new TestDevice(former === undefined ? {} : { registrationId: (former % 16383) + 1 }) } = asking
  const { nowMs = Date.now(), signedAtMs = nowMs } = asking
  const enrolment = enrolmentJson(device, realm, {
    ...{ purpose: 'identity', nowMs },
    ...(proofOf !== undefined && { recoveryCode: proofOf }),
  })
  const named = usernameHash ?? (userId === null ? new Uint8Array(0) : uuidToBytes(userId))
  const handover = [Buffer.from(`sealpost.v1 replace\0${realm}`), named, device.identityKey, be64(signedAtMs)]
  const json = {
    ...enrolment,
    ...(userId !== null && { user_id: userId }),
    ...(usernameHash && { username_hash: base64(usernameHash) }),
    ...(code !== undefined && { recovery_code: code }),
    ...(oldKey && { old_signature: base64(oldKey.sign(Buffer.concat(handover))) }),
  }
  return { answer: await request(url, 'PUT', '/v1/identity', { json, token: bearer }), device }
}

/** Begins anew and goes on as the new device. @throws when it was refused. */
export async function begunAnew(relay: Place, userId: string, asking: Asking): Promise<Client> {
  const { answer, device } = await beginAnew(relay, userId, asking)
  return Client.enrolled(relay, device, must(answer))
}

/** Status and code of a refusal. */
export const refusalOf = ({ status, body }: HttpAnswer): [number, string | undefined] => [status, body?.error?.code]
