// Reads test/vectors/{valid,invalid}/frame-*.json, and makes the world they are about.
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import type { Sql } from '../../server/database.ts'
import type { Client } from './client.ts'

type World = {
  conversation_id: string
  user_id: string
  devices: { device_id: number; registration_id: number }[]
  message_id: string
}
export type FrameVector = {
  file: string
  clause: string
  reason: string
  type: 'client_frame'
  world: World
  frame: Uint8Array
  answer: { kind: string; code?: string; request_id: number }
}

const ROOT = new URL('../vectors/', import.meta.url)
type Part = string | { repeat: string; times: number }

/** All frame vectors of a folder, in order of file name. */
export const frameVectors = (folder: 'valid' | 'invalid'): FrameVector[] =>
  readdirSync(new URL(`${folder}/`, ROOT))
    .filter((file) => file.startsWith('frame-'))
    .sort()
    .map((file) => {
      const vector = JSON.parse(readFileSync(new URL(`${folder}/${file}`, ROOT), 'utf8'))
      const hex = (vector.frame as Part[])
        .map((part) => (typeof part === 'string' ? part : part.repeat.repeat(part.times)))
        .join('')
      return { ...vector, file, frame: Buffer.from(hex, 'hex') }
    })

/** The user, the devices, the conversation and the message of the vectors, with this client as its other member. */
export async function makeWorld(sql: Sql, sender: Client, world: World): Promise<void> {
  const { conversation_id, user_id, devices, message_id } = world
  await sql`insert into accounts (user_id) values (${user_id})`
  await sql`insert into keys.identities (user_id, identity_key) values (${user_id}, ${randomBytes(33)})`
  for (const { device_id, registration_id } of devices) {
    const [row] = await sql<[{ device_key: number }]>`
      insert into devices (device_uuid, user_id, device_id, secret_hash)
      values (gen_random_uuid(), ${user_id}, ${device_id}, ${randomBytes(32)}) returning device_key`
    await sql`insert into keys.devices (device_key, user_id, device_id, registration_id)
      values (${row.device_key}, ${user_id}, ${device_id}, ${registration_id})`
    await sql`insert into device_locks (device_key) values (${row.device_key})`
    await sql`insert into device_sequences (device_key, last) values (${row.device_key}, 0)`
  }
  await sql`insert into conversations (conversation_id, kind) values (${conversation_id}, 'group')`
  await sql`insert into conversation_members (conversation_id, user_id)
    values (${conversation_id}, ${user_id}), (${conversation_id}, ${sender.userId})`
  await sql`insert into messages (message_id, conversation_id, sender_type, sender_user_id, sent_at)
    values (${message_id}, ${conversation_id}, 1, ${user_id}, now())`
}
