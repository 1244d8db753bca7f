-- The queue's functions. Every statement of a function sees what was committed before it began (READ COMMITTED, volatile):
-- that is why locks come first and everything decided under them is read in a later statement.

-- Who receives what is sent to a conversation, and a digest of it. The relay decides on a cached roster; append_batch
-- confirms under its locks that the digest is still the same (docs/decisions/roster-digest.md).
create function roster(conversation uuid)
returns table (kind text, archived boolean, digest text, device_keys bigint[], user_ids uuid[], device_ids smallint[], registration_ids smallint[])
language sql stable
as $$
  select c.kind, c.archived_at is not null,
    hashtextextended((c.archived_at is not null)::text || coalesce(d.device_keys::text || d.registration_ids::text, ''), 0)::text,
    d.device_keys, d.user_ids, d.device_ids, d.registration_ids
  from conversations c cross join lateral (
    select array_agg(k.device_key order by k.device_key) as device_keys,
      array_agg(k.user_id order by k.device_key) as user_ids,
      array_agg(k.device_id order by k.device_key) as device_ids,
      array_agg(k.registration_id order by k.device_key) as registration_ids
    from conversation_members m join keys.devices k on k.user_id = m.user_id
    where m.conversation_id = c.conversation_id and m.state = 'active'
  ) d
  where c.conversation_id = conversation
$$;

-- Of these devices, those whose queue has no room for so many more rows, and for how many it has. Counts only where the upper
-- bound says it might matter, and remembers the count as the new bound in the caller's floors (same order as the keys); there
-- is_full becomes what it is once these rows are in.
create function count_room(ks bigint[], cnt int[], base bigint[], quota int, inout is_full boolean[], inout floors bigint[],
  out full_keys bigint[], out full_room int[])
language plpgsql
as $$
declare
  i int;
  room int;
  waiting bigint;
begin
  full_keys := '{}';
  full_room := '{}';
  for i in select s from generate_subscripts(ks, 1) s where is_full[s] or base[s] + cnt[s] - floors[s] >= quota loop
    select count(*) into waiting from (
      -- Messages only: system events are always taken, and must not take the room of messages.
      select 1 from message_deliveries_waiting w
      where w.device_key = ks[i] and (w.ciphertext_type <> 0 or w.withheld <> 0) order by w.sequence limit quota + 1) counted;
    floors[i] := base[i] - waiting;
    -- Hysteresis: a full queue takes nothing until a fifth of it has drained, so that senders do not hammer at its brim.
    room := case when is_full[i] and waiting > quota / 5 * 4 then 0 else greatest(quota - waiting, 0) end;
    if cnt[i] > room then
      full_keys := full_keys || ks[i];
      full_room := full_room || room;
    end if;
    is_full[i] := waiting + cnt[i] >= quota;
  end loop;
end
$$;

-- Commits one batch of sends, or nothing of it and says why (the relay takes the refused ones out and calls again).
-- Arithmetic is done by the caller: joined CTEs are planned as ten rows each and become nested loops.
--   lk      senders and recipients, distinct, ascending: the rows to lock, in the one order everybody locks in
--   ks, cnt recipients, distinct, ascending, and how many rows each gets
--   c_*     distinct conversations with the digest of the roster the relay decided on
--   m_*     messages                r_*  their delivery rows: index into ks, 1..cnt, index into m_*, offsets into blob
--   o_*     rows for full queues: they become dead letters and take no sequence
create function append_batch(
  lk bigint[], ks bigint[], cnt int[], c_id uuid[], c_digest text[],
  m_id uuid[], m_conversation uuid[], m_user uuid[], m_key bigint[], m_device smallint[], m_client uuid[],
  m_type smallint[], m_urgent boolean[], m_reply uuid[], m_attachment text[], m_thumbnail text[],
  r_k int[], r_n int[], r_m int[], r_type smallint[], r_withheld smallint[], r_at int[], r_length int[], r_iv int[], blob bytea,
  o_key bigint[], o_message uuid[], sent_at timestamptz, quota int,
  out base bigint[], out gone bigint[], out duplicates int[], out first_ids uuid[], out first_at timestamptz[],
  out moved int[], out full_keys bigint[], out full_room int[], out written boolean)
language plpgsql
as $$
declare
  v_at tid[];
  v_floor bigint[];
  v_full boolean[];
begin
  written := false;
  -- [1] Locks, ascending. An unlinked device has no row any more.
  select array_agg(l.device_key) into gone
  from (select device_key from device_locks where device_key = any(lk) order by device_key for no key update) l;
  gone := array(select k from unnest(lk) k except select k from unnest(gone) k);

  -- [2] Reads, each with a fresh snapshot. A known (sender device, client_message_id) is answered before anything else. I2
  select array_agg(x.i), array_agg(f.message_id), array_agg(f.sent_at) into duplicates, first_ids, first_at
  from unnest(m_key, m_client) with ordinality x(k, c, i)
  cross join lateral (select m.message_id, m.sent_at from messages m where m.sender_device_key = x.k and m.client_message_id = x.c limit 1) f;

  select array_agg(x.i) into moved
  from unnest(c_id, c_digest) with ordinality x(c, d, i) left join lateral roster(x.c) r on true
  where r.digest is distinct from x.d;

  select array_agg(s.last order by k.i), array_agg(s.at order by k.i), array_agg(s.floor order by k.i), array_agg(s.is_full order by k.i)
  into base, v_at, v_floor, v_full
  from unnest(ks) with ordinality k(k, i)
  left join lateral (select q.last, q.ctid as at, q.floor, q.is_full from device_sequences q where q.device_key = k.k order by q.last desc limit 1) s on true;

  select r.is_full, r.floors, r.full_keys, r.full_room into v_full, v_floor, full_keys, full_room
  from count_room(ks, cnt, base, quota, v_full, v_floor) r;

  -- [3] Refused: nothing is written.
  if gone <> '{}' or duplicates is not null or moved is not null or full_keys <> '{}' then return; end if;

  -- [4] Writes. Sequences follow from the locks: gapless, in commit order. I4
  insert into messages (message_id, conversation_id, sender_type, sender_user_id, sender_device_key, sender_device_id,
    client_message_id, message_type, urgent, reply_to_message_id, attachment_url, thumbnail_url, sent_at)
  select x.id, x.c, 1, x.u, x.k, x.d, x.client, x.t, x.urgent, x.reply, x.attachment, x.thumbnail, append_batch.sent_at
  from unnest(m_id, m_conversation, m_user, m_key, m_device, m_client, m_type, m_urgent, m_reply, m_attachment, m_thumbnail)
    x(id, c, u, k, d, client, t, urgent, reply, attachment, thumbnail);

  insert into message_deliveries_waiting (device_key, sequence, message_id, ciphertext_type, withheld, content, iv)
  select ks[r.k], base[r.k] + r.n, m_id[r.m], r.t, r.w, substring(blob from r.at for r.l),
    case when r.v > 0 then substring(blob from r.at + r.l for r.v) end
  from unnest(r_k, r_n, r_m, r_type, r_withheld, r_at, r_length, r_iv) r(k, n, m, t, w, at, l, v);

  delete from device_sequences where ctid = any(v_at);
  insert into device_sequences (device_key, last, floor, is_full)
  select ks[i], base[i] + cnt[i], v_floor[i], v_full[i] from generate_subscripts(ks, 1) i;

  if o_key <> '{}' then perform drop_for_full(o_key, o_message); end if;
  written := true;
end
$$;

-- Dead letters for full queues, and the gap their devices will be told of. [Q-8]
create function drop_for_full(o_key bigint[], o_message uuid[]) returns void
language sql
as $$
  insert into dead_letters (device_key, message_id, reason) select k, m, 'overflow' from unnest(o_key, o_message) x(k, m) on conflict do nothing;
  insert into gaps as g (device_key, overflowed) select k, count(*) from unnest(o_key) k group by k order by k
    on conflict (device_key) do update set overflowed = g.overflowed + excluded.overflowed, gap_id = gen_random_uuid();
  update device_sequences set is_full = true where device_key = any(o_key) and not is_full;
$$;

-- Puts one SystemEvent into many queues. The caller holds the device locks; not subject to the quota.
create function enqueue_event(ks bigint[], id uuid, conversation uuid, event bytea, at timestamptz) returns table (device_key bigint, sequence bigint)
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_bitmapscan = off
as $$
declare
  v_base bigint[];
  v_at tid[];
begin
  select array_agg(s.last order by k.i), array_agg(s.at order by k.i) into v_base, v_at
  from unnest(ks) with ordinality k(k, i)
  cross join lateral (select q.last, q.ctid as at from device_sequences q where q.device_key = k.k order by q.last desc limit 1) s;

  insert into messages (message_id, conversation_id, sender_type, urgent, sent_at) values (id, conversation, 2, false, at);
  insert into message_deliveries_waiting (device_key, sequence, message_id, content)
  select ks[i], v_base[i] + 1, id, event from generate_subscripts(ks, 1) i;
  insert into device_sequences (device_key, last, floor, is_full)
  select q.device_key, q.last + 1, q.floor, q.is_full from device_sequences q where q.ctid = any(v_at);
  delete from device_sequences where ctid = any(v_at);
  return query select ks[i], v_base[i] + 1 from generate_subscripts(ks, 1) i;
end
$$;
