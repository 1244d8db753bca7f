// Reads test/vectors/{valid,invalid}/keys-*.json.
import { readdirSync, readFileSync } from 'node:fs'

export type Folder = 'valid' | 'invalid'
type KeyJson = { key_id: number; public_key: string }
type Common = { file: string; clause: string; reason: string }

/** Hex, except in body: that is a request body as on the wire. */
export type VectorOf = {
  ec_key: { key: string }
  kyber_key: { key: string }
  signature: { identity_key: string; public_key: string; signature: string }
  identity_proof: {
    purpose: 'register' | 'link' | 'identity'
    realm: string
    link_code: string
    registration_id: number
    identity_key: string
    signed_prekey: KeyJson
    last_resort_kyber_prekey: KeyJson | null
    timestamp_ms: number
    now_ms: number
    message: string
    signature: string
  }
  digest: {
    user_id: string
    device_id: number
    registration_id: number
    identity_key: string
    signed_prekey: KeyJson
    last_resort_kyber_prekey: KeyJson | null
    input: string
    digest: string
  }
  upload: { identity_key: string; body: unknown }
}

const ROOT = new URL('../vectors/', import.meta.url)

/** The key vectors of a type, in order of file name. */
export function readVectors<Type extends keyof VectorOf>(folder: Folder, type: Type): (VectorOf[Type] & Common)[] {
  return allVectors(folder).filter((vector) => vector.type === type) as unknown as (VectorOf[Type] & Common)[]
}

/** All key vectors, whatever their type. */
export const allVectors = (folder: Folder): (Common & { type: string })[] =>
  readdirSync(new URL(`${folder}/`, ROOT))
    .filter((file) => file.startsWith('keys-'))
    .sort()
    .map((file) => ({ ...JSON.parse(readFileSync(new URL(`${folder}/${file}`, ROOT), 'utf8')), file }))
