-- Nothing of what waits for a device decides about a message any more: who is blocked could have counted by it. [V-6.2] [V-6.6] And a
-- full queue refuses what would be stored nowhere like what would be stored. [V-7.1] [Q-8.2]

drop function append_batch;
drop function over_for_strangers;

-- Of messages to people who have not accepted, those that are too many. [V-6.2] The caller holds the device locks.
--   s_*     the messages: index, conversation, the pending member; ascending by index
create function over_for_strangers(s_m int[], s_conversation uuid[], s_pending uuid[], messages_most int)
returns int[]
language plpgsql
as $$
declare
  v record;
  v_over int[];
begin
  -- Two devices of the sender may address different devices of the other, and so hold no lock in common.
  for v in select distinct c, u from unnest(s_conversation, s_pending) x(c, u) order by c loop
    perform 1 from conversation_members where conversation_id = v.c and user_id = v.u for no key update;
  end loop;
  select array_agg(x.m) into v_over from (
    select s.m, s.c, s.u, row_number() over (partition by s.c order by s.m) as n
    from unnest(s_m, s_conversation, s_pending) s(m, c, u)) x
  cross join lateral (
    select p.stranger_messages from conversation_members p where p.conversation_id = x.c and p.user_id = x.u limit 1) had
  where had.stranger_messages + x.n > messages_most;
  return v_over;
end
$$;

-- Commits one batch of sends, or nothing of it and says why (the relay takes the refused ones out and calls again).
-- Arithmetic is done by the caller: joined CTEs are planned as ten rows each and become nested loops.
--   lk      senders and recipients, distinct, ascending: the rows to lock, in the one order everybody locks in
--   ks, cnt recipients, distinct, ascending, and how many rows each gets
--   c_*     distinct conversations with the digest of the roster the relay decided on
--   m_*     messages                r_*  their delivery rows: index into ks, 1..cnt, index into m_*, offsets into blob
--   o_*     rows for full queues: they become dead letters and take no sequence
--   x_k     distinct devices to which something goes that they are not given: asked for room like recipients, and written nothing
--   xo_*    what found no room there: dead letters, too, so that a repeat is answered alike, of which the device is told nothing
--   s_*     messages to a pending member (over_for_strangers has them)
--   a_*     pending members who accept by what they send: conversation, user
create function append_batch(
  lk bigint[], ks bigint[], cnt int[], c_id uuid[], c_digest text[],
  m_id uuid[], m_conversation uuid[], m_user uuid[], m_key bigint[], m_device smallint[], m_client uuid[],
  m_type smallint[], m_urgent boolean[], m_reply uuid[], m_attachment text[], m_thumbnail text[],
  r_k int[], r_n int[], r_m int[], r_type smallint[], r_withheld smallint[], r_at int[], r_length int[], r_iv int[], blob bytea,
  o_key bigint[], o_message uuid[], x_k bigint[], xo_key bigint[], xo_message uuid[],
  s_m int[], s_pending uuid[], a_conversation uuid[], a_user uuid[],
  sent_at timestamptz, quota int, stranger_most int,
  out base bigint[], out gone bigint[], out duplicates int[], out first_ids uuid[], out first_at timestamptz[],
  out moved int[], out full_keys bigint[], out full_room int[], out over int[], out written boolean)
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

  -- One row each: only who has no room at all matters, since what is not written takes none of it.
  if x_k <> '{}' then
    select append_batch.full_keys || r.full_keys, append_batch.full_room || r.full_room into full_keys, full_room
    from (
      select array_agg(1 order by k.i) as cnt, array_agg(s.last order by k.i) as base, array_agg(s.floor order by k.i) as floors,
        array_agg(s.is_full order by k.i) as is_full
      from unnest(x_k) with ordinality k(k, i)
      left join lateral (select q.last, q.floor, q.is_full from device_sequences q where q.device_key = k.k order by q.last desc limit 1) s on true) x
    cross join lateral count_room(x_k, x.cnt, x.base, quota, x.is_full, x.floors) r;
  end if;

  if s_m <> '{}' and moved is null and duplicates is null then
    over := over_for_strangers(s_m, array(select m_conversation[i] from unnest(s_m) i), s_pending, stranger_most);
  end if;

  -- [3] Refused: nothing is written.
  if gone <> '{}' or duplicates is not null or moved is not null or full_keys <> '{}' or over is not null then return; end if;

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
  if xo_key <> '{}' then
    insert into dead_letters (device_key, message_id, reason) select k, m, 'overflow' from unnest(xo_key, xo_message) x(k, m) on conflict do nothing;
  end if;
  if s_m <> '{}' then
    update conversation_members p set stranger_messages = p.stranger_messages + x.n
    from (select m_conversation[s.m] as c, s.u, count(*) as n from unnest(s_m, s_pending) s(m, u) group by 1, 2 order by 1) x
    where p.conversation_id = x.c and p.user_id = x.u;
  end if;
  if a_user <> '{}' then
    update conversation_members p set state = 'active' from unnest(a_conversation, a_user) x(c, u)
    where p.conversation_id = x.c and p.user_id = x.u and p.state = 'pending';
  end if;
  written := true;
end
$$;
