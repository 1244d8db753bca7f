-- People who do not know each other: conversations that wait for a user's word, and users who want nothing of each other. [V-6] [V-7]

-- pending: the other one of a direct conversation who has neither answered nor accepted. invited: in a group, not accepted yet;
-- declined: and never will.
alter table conversation_members drop constraint conversation_members_state_check;
alter table conversation_members add constraint conversation_members_state_check
  check (state in ('active', 'pending', 'invited', 'declined', 'left', 'removed'));
-- Of a pending member: how many messages were sent to him so far. [V-6.2]
alter table conversation_members add column stranger_messages smallint not null default 0;

-- blocked may be nobody: whoever may be blocked must not tell who exists. I13
create table blocks (
  blocker uuid not null references accounts,
  blocked uuid not null,
  -- The database's clock, as in delivered_at.
  blocked_at timestamptz not null default now(),
  primary key (blocker, blocked)
);
create index blocks_blocked on blocks (blocked);

-- How far one of the two had read when the block began: what the other is told of it stays there. [V-7.3]
create table block_marks (
  reader uuid not null,
  sender uuid not null,
  conversation_id uuid not null,
  shown_up_to uuid,
  primary key (reader, sender, conversation_id)
);

-- What strangers put into a queue, as long as it may wait there: at most a few rows per pair. [V-6.2] [V-6.6]
create table stranger_deliveries (
  device_key bigint not null,
  stranger uuid not null,
  sequence bigint not null,
  put_at timestamptz not null default now(),
  primary key (device_key, stranger, sequence)
);

drop function append_batch;
drop function roster;

-- Who receives what is sent to a conversation, and a digest of it. The relay decides on a cached roster; append_batch
-- confirms under its locks that the digest is still the same (docs/decisions/roster-digest.md). pending_user and blockers, which
-- only direct conversations have, decide what becomes of a send, not who is addressed.
create function roster(conversation uuid)
returns table (kind text, archived boolean, digest text, device_keys bigint[], user_ids uuid[], device_ids smallint[], registration_ids smallint[],
  pending_user uuid, blockers uuid[])
language sql stable
as $$
  select c.kind, c.archived_at is not null,
    hashtextextended((c.archived_at is not null)::text || coalesce(d.device_keys::text || d.registration_ids::text, '')
      || coalesce(d.pending_user::text, '') || coalesce(b.blockers::text, ''), 0)::text,
    d.device_keys, d.user_ids, d.device_ids, d.registration_ids, d.pending_user, b.blockers
  from conversations c cross join lateral (
    select array_agg(k.device_key order by k.device_key) as device_keys,
      array_agg(k.user_id order by k.device_key) as user_ids,
      array_agg(k.device_id order by k.device_key) as device_ids,
      array_agg(k.registration_id order by k.device_key) as registration_ids,
      (array_agg(m.user_id) filter (where m.state = 'pending'))[1] as pending_user
    from conversation_members m join keys.devices k on k.user_id = m.user_id
    where m.conversation_id = c.conversation_id and m.state in ('active', 'pending')
  ) d cross join lateral (
    select case when c.kind = 'direct' then (
      select array_agg(found.blocker order by found.blocker)
      from (values (c.low_user, c.high_user), (c.high_user, c.low_user)) pair(one, other)
      cross join lateral (select blocker from blocks where blocker = pair.one and blocked = pair.other limit 1) found) end as blockers
  ) b
  where c.conversation_id = conversation
$$;

-- Forgets of what strangers put into these queues whatever waits there no more. The caller holds the device locks.
create function forget_stranger_deliveries(ks bigint[], strangers uuid[]) returns void
language sql
as $$
  delete from stranger_deliveries where ctid = any(array(
    select y.at from (select distinct k, s from unnest(ks, strangers) given(k, s)) x
    cross join lateral (select d.ctid as at, d.sequence from stranger_deliveries d where d.device_key = x.k and d.stranger = x.s) y
    where not exists (select from message_deliveries_waiting w where w.device_key = x.k and w.sequence = y.sequence limit 1)))
$$;

-- Of messages to people who have not accepted, those that are too many. [V-6.2] The caller holds the device locks.
--   s_*     the messages: index, conversation, the pending member, the sender; ascending by index
--   d_*     those of their rows that go to the pending member: index of the message, device
create function over_for_strangers(s_m int[], s_conversation uuid[], s_pending uuid[], s_sender uuid[], d_m int[], d_key bigint[],
  messages_most int, waiting_most int)
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
  perform forget_stranger_deliveries(d_key, array(
    select s_sender[array_position(s_m, d.m)] from unnest(d_m) with ordinality d(m, i) order by d.i));
  select array_agg(distinct o.m) into v_over from (
    select x.m from (
      select s.m, s.c, s.u, row_number() over (partition by s.c order by s.m) as n
      from unnest(s_m, s_conversation, s_pending) s(m, c, u)) x
    cross join lateral (
      select p.stranger_messages from conversation_members p where p.conversation_id = x.c and p.user_id = x.u limit 1) had
    where had.stranger_messages + x.n > messages_most
    union all
    select x.m from (
      select d.m, d.k, s_sender[array_position(s_m, d.m)] as sender,
        row_number() over (partition by d.k, s_sender[array_position(s_m, d.m)] order by d.m) as n
      from unnest(d_m, d_key) d(m, k)) x
    cross join lateral (
      select count(*) as waiting from stranger_deliveries w where w.device_key = x.k and w.stranger = x.sender) had
    where had.waiting + x.n > waiting_most) o;
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
--   s_*     messages to a pending member (over_for_strangers has them); d_* indexes of their rows in r_*
--   a_*     pending members who accept by what they send: conversation, user
create function append_batch(
  lk bigint[], ks bigint[], cnt int[], c_id uuid[], c_digest text[],
  m_id uuid[], m_conversation uuid[], m_user uuid[], m_key bigint[], m_device smallint[], m_client uuid[],
  m_type smallint[], m_urgent boolean[], m_reply uuid[], m_attachment text[], m_thumbnail text[],
  r_k int[], r_n int[], r_m int[], r_type smallint[], r_withheld smallint[], r_at int[], r_length int[], r_iv int[], blob bytea,
  o_key bigint[], o_message uuid[], s_m int[], s_pending uuid[], d_r int[], a_conversation uuid[], a_user uuid[],
  sent_at timestamptz, quota int, stranger_most int, stranger_waiting_most int,
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

  if s_m <> '{}' and moved is null and duplicates is null then
    over := over_for_strangers(s_m, array(select m_conversation[i] from unnest(s_m) i), s_pending, array(select m_user[i] from unnest(s_m) i),
      array(select r_m[i] from unnest(d_r) i), array(select ks[r_k[i]] from unnest(d_r) i), stranger_most, stranger_waiting_most);
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
  if s_m <> '{}' then
    insert into stranger_deliveries (device_key, stranger, sequence)
    select ks[r_k[i]], m_user[r_m[i]], base[r_k[i]] + r_n[i] from unnest(d_r) i;
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
