// What the database holds of a device's queue, and messages committed behind the relay's back: nobody announces them.
import { type Uuid, uuidToBytes, uuidV7 } from '../../proto/ids.ts'
import type { Sql } from '../../server/database.ts'
import type { Client } from './client.ts'

/** The internal key of a client's device: its queue. */
export async function deviceKeyOf(sql: Sql, client: Client): Promise<number> {
  const [row] = await sql<[{ device_key: number }]>`
    select device_key from devices where user_id = ${client.userId} and device_id = ${client.deviceId}`
  return row.device_key
}

/**
 * Commits messages from one device to another as append_batch would, without a relay that knows: the answer was lost.
 * Contents are `bytes` long and start with the number of the message, from 0, as four bytes big-endian.
 * @returns their ids, in order.
 */
export async function commitUnannounced(
  sql: Sql,
  options: { from: Client; to: Client; conversation: Uuid; count: number; bytes?: number; nowMs?: number },
): Promise<Uuid[]> {
  const { from, to, conversation, count, bytes = 64, nowMs = Date.now() } = options
  const [sender, receiver] = [await deviceKeyOf(sql, from), await deviceKeyOf(sql, to)]
  const ids = Array.from({ length: count }, () => uuidV7(nowMs))
  await sql.begin(async (tx) => {
    await tx`set local idle_in_transaction_session_timeout = 0`
    await tx`select 1 from device_locks where device_key in (${sender}, ${receiver}) order by device_key for no key update`
    const [{ last }] = await tx<[{ last: number }]>`
      select last from device_sequences where device_key = ${receiver} order by last desc limit 1`
    await tx`insert into messages (message_id, conversation_id, sender_type, sender_user_id, sender_device_key,
        sender_device_id, client_message_id, urgent, sent_at)
      select i, ${conversation}, 1, ${from.userId}, ${sender}, ${from.deviceId}, gen_random_uuid(), true, ${new Date(nowMs)}
      from unnest(${ids}::uuid[]) i`
    await tx`insert into message_deliveries_waiting (device_key, sequence, message_id, ciphertext_type, content)
      select ${receiver}, ${last}::bigint + n, i, 2, int4send((n - 1)::int) || decode(repeat('5e', ${bytes - 4}::int), 'hex')
      from unnest(${ids}::uuid[]) with ordinality x(i, n)`
    await tx`update device_sequences set last = ${last + count} where device_key = ${receiver}`
  })
  return ids
}

/** The number commitUnannounced wrote into a content. */
export const numberOf = (content: Uint8Array | null | undefined): number => Buffer.from(content!).readInt32BE(0)

/** What waits for a device: message ids in order of sequence. */
export async function waitingFor(sql: Sql, client: Client): Promise<Uuid[]> {
  const rows = await sql<{ message_id: Uuid }[]>`
    select message_id from message_deliveries_waiting where device_key = ${await deviceKeyOf(sql, client)} order by sequence`
  return rows.map((row) => row.message_id)
}

/** Which of these messages were delivered to a device and how much of their ciphertext is left, by sequence. */
export async function deliveredTo(
  sql: Sql,
  client: Client,
  messageIds: Uuid[],
): Promise<{ message_id: Uuid; bytes: number | null }[]> {
  return sql<{ message_id: Uuid; bytes: number | null }[]>`
    select message_id, octet_length(content) + coalesce(octet_length(iv), 0) as bytes from message_deliveries
    where device_key = ${await deviceKeyOf(sql, client)} and delivered_on is not null and message_id = any(${messageIds}::uuid[])
    order by sequence`
}

/** Ends a delivery as an ack on another connection would. */
export async function endElsewhere(sql: Sql, client: Client, messageIds: Uuid[]): Promise<void> {
  await sql`delete from message_deliveries_waiting
    where device_key = ${await deviceKeyOf(sql, client)} and message_id = any(${messageIds}::uuid[])`
}

/** The 16 bytes of ids. */
export const bytesOfAll = (ids: Uuid[]): Uint8Array[] => ids.map(uuidToBytes)
