-- The migrated schema, written by `npm run schema`. Not for running: the migrations in keys/sql and server/sql are.

create sequence public.session_epoch;

create table keys.devices (
  device_key bigint not null,
  user_id uuid not null,
  device_id smallint not null,
  registration_id smallint not null,
  constraint devices_device_id_check CHECK (((device_id >= 1) AND (device_id <= 127))),
  constraint devices_registration_id_check CHECK (((registration_id >= 1) AND (registration_id <= 16383))),
  constraint devices_user_id_fkey FOREIGN KEY (user_id) REFERENCES keys.identities(user_id),
  constraint devices_pkey PRIMARY KEY (device_key),
  constraint devices_address UNIQUE (user_id, device_id)
);

create table keys.given_up_identities (
  key_hash bytea not null,
  given_up_at timestamp with time zone not null,
  constraint given_up_identities_key_hash_check CHECK ((length(key_hash) = 32)),
  constraint given_up_identities_pkey PRIMARY KEY (key_hash)
);

create table keys.highest_ids (
  device_key bigint not null,
  kind smallint not null,
  key_id integer not null,
  constraint highest_ids_kind_check CHECK ((kind = ANY (ARRAY[1, 2]))),
  constraint highest_ids_device_key_fkey FOREIGN KEY (device_key) REFERENCES keys.devices(device_key),
  constraint highest_ids_pkey PRIMARY KEY (device_key, kind)
);

create table keys.identities (
  user_id uuid not null,
  identity_key bytea not null,
  constraint identities_identity_key_check CHECK ((length(identity_key) = 33)),
  constraint identities_pkey PRIMARY KEY (user_id),
  constraint identities_key_unique UNIQUE (identity_key)
);

create table keys.kyber_prekeys (
  device_key bigint not null,
  serial bigint generated always as identity not null,
  key_id integer not null,
  public_key bytea not null,
  signature bytea not null,
  last_resort boolean not null,
  used boolean default false not null,
  created_at timestamp with time zone not null,
  constraint kyber_prekeys_key_id_check CHECK ((key_id >= 0)),
  constraint kyber_prekeys_public_key_check CHECK ((length(public_key) = 1569)),
  constraint kyber_prekeys_signature_check CHECK ((length(signature) = 64)),
  constraint kyber_prekeys_device_key_fkey FOREIGN KEY (device_key) REFERENCES keys.devices(device_key),
  constraint kyber_prekeys_id PRIMARY KEY (device_key, key_id)
);
CREATE UNIQUE INDEX kyber_prekeys_last_resort ON keys.kyber_prekeys USING btree (device_key) WHERE last_resort;
CREATE UNIQUE INDEX kyber_prekeys_last_resort_key ON keys.kyber_prekeys USING btree (sha256(public_key)) WHERE last_resort;
CREATE UNIQUE INDEX kyber_prekeys_stock ON keys.kyber_prekeys USING btree (device_key, serial) WHERE (NOT last_resort);

create table keys.one_time_prekeys (
  device_key bigint not null,
  serial bigint generated always as identity not null,
  key_id integer not null,
  public_key bytea not null,
  constraint one_time_prekeys_key_id_check CHECK ((key_id >= 0)),
  constraint one_time_prekeys_public_key_check CHECK ((length(public_key) = 33)),
  constraint one_time_prekeys_device_key_fkey FOREIGN KEY (device_key) REFERENCES keys.devices(device_key),
  constraint one_time_prekeys_pkey PRIMARY KEY (device_key, serial),
  constraint one_time_prekeys_id UNIQUE (device_key, key_id)
);

create table keys.signed_prekeys (
  device_key bigint not null,
  key_id integer not null,
  public_key bytea not null,
  signature bytea not null,
  created_at timestamp with time zone not null,
  constraint signed_prekeys_key_id_check CHECK ((key_id >= 0)),
  constraint signed_prekeys_public_key_check CHECK ((length(public_key) = 33)),
  constraint signed_prekeys_signature_check CHECK ((length(signature) = 64)),
  constraint signed_prekeys_device_key_fkey FOREIGN KEY (device_key) REFERENCES keys.devices(device_key),
  constraint signed_prekeys_pkey PRIMARY KEY (device_key),
  constraint signed_prekeys_key_unique UNIQUE (public_key)
);

create table keys.tombstones (
  device_key bigint not null,
  kind smallint not null,
  key_id integer not null,
  key_hash bytea not null,
  created_at timestamp with time zone not null,
  constraint tombstones_key_hash_check CHECK ((length(key_hash) = 32)),
  constraint tombstones_kind_check CHECK ((kind = ANY (ARRAY[1, 2]))),
  constraint tombstones_device_key_fkey FOREIGN KEY (device_key) REFERENCES keys.devices(device_key),
  constraint tombstones_pkey PRIMARY KEY (device_key, kind, key_id),
  constraint tombstones_key UNIQUE (device_key, kind, key_hash)
);

create table public.accounts (
  user_id uuid not null,
  outside_subject text,
  created_at timestamp with time zone default now() not null,
  recovery_code_hash bytea,
  constraint accounts_recovery_code_hash_check CHECK ((length(recovery_code_hash) = 32)),
  constraint accounts_pkey PRIMARY KEY (user_id),
  constraint accounts_outside_subject UNIQUE (outside_subject)
);

create table public.block_marks (
  reader uuid not null,
  sender uuid not null,
  conversation_id uuid not null,
  shown_up_to uuid,
  constraint block_marks_pkey PRIMARY KEY (reader, sender, conversation_id)
);

create table public.blocks (
  blocker uuid not null,
  blocked uuid not null,
  blocked_at timestamp with time zone default now() not null,
  constraint blocks_blocker_fkey FOREIGN KEY (blocker) REFERENCES public.accounts(user_id),
  constraint blocks_pkey PRIMARY KEY (blocker, blocked)
);
CREATE INDEX blocks_blocked ON public.blocks USING btree (blocked);

create table public.conversation_changes (
  conversation_id uuid not null,
  revision bigint not null,
  change text not null,
  actor_user_id uuid not null,
  subject_user_ids uuid[] default '{}'::uuid[] not null,
  role text,
  signed_change bytea default '\x'::bytea not null,
  changed_at timestamp with time zone default now() not null,
  constraint conversation_changes_change_check CHECK ((change = ANY (ARRAY['CREATED'::text, 'MEMBERS_ADDED'::text, 'MEMBER_REMOVED'::text, 'MEMBER_LEFT'::text, 'ROLE_CHANGED'::text, 'UPDATED'::text, 'ARCHIVED'::text]))),
  constraint conversation_changes_role_check CHECK ((role = ANY (ARRAY['member'::text, 'admin'::text]))),
  constraint conversation_changes_signed_change_check CHECK ((length(signed_change) <= 1024)),
  constraint conversation_changes_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(conversation_id),
  constraint conversation_changes_pkey PRIMARY KEY (conversation_id, revision)
);

create table public.conversation_members (
  conversation_id uuid not null,
  user_id uuid not null,
  role text default 'member'::text not null,
  state text default 'active'::text not null,
  joined_at timestamp with time zone default now() not null,
  ended_at timestamp with time zone,
  muted_until timestamp with time zone,
  stranger_messages smallint default 0 not null,
  constraint conversation_members_role_check CHECK ((role = ANY (ARRAY['member'::text, 'admin'::text]))),
  constraint conversation_members_state_check CHECK ((state = ANY (ARRAY['active'::text, 'pending'::text, 'invited'::text, 'declined'::text, 'left'::text, 'removed'::text]))),
  constraint conversation_members_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(conversation_id),
  constraint conversation_members_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.accounts(user_id),
  constraint conversation_members_pkey PRIMARY KEY (conversation_id, user_id)
);
CREATE INDEX conversation_members_user ON public.conversation_members USING btree (user_id);

create table public.conversations (
  conversation_id uuid not null,
  kind text not null,
  privacy_mode text default 'strict_e2e'::text not null,
  name text default ''::text not null,
  description text default ''::text not null,
  created_at timestamp with time zone default now() not null,
  archived_at timestamp with time zone,
  revision bigint default 0 not null,
  low_user uuid,
  high_user uuid,
  constraint conversations_check CHECK ((((kind = 'direct'::text) = ((low_user IS NOT NULL) AND (high_user IS NOT NULL))) AND (low_user < high_user))),
  constraint conversations_kind_check CHECK ((kind = ANY (ARRAY['direct'::text, 'group'::text]))),
  constraint conversations_privacy_mode_check CHECK ((privacy_mode = ANY (ARRAY['strict_e2e'::text, 'search_enabled'::text]))),
  constraint conversations_pkey PRIMARY KEY (conversation_id)
);
CREATE UNIQUE INDEX conversations_pair ON public.conversations USING btree (low_user, high_user) WHERE (archived_at IS NULL);

create table public.dead_letters (
  device_key bigint not null,
  message_id uuid not null,
  reason text not null,
  died_at timestamp with time zone default now() not null,
  constraint dead_letters_pkey PRIMARY KEY (message_id, device_key)
);
CREATE INDEX dead_letters_device ON public.dead_letters USING btree (device_key);

create unlogged table public.device_consumers (
  device_key bigint not null,
  epoch bigint not null,
  constraint device_consumers_pkey PRIMARY KEY (device_key)
) with (fillfactor=50);

create table public.device_locks (
  device_key bigint not null,
  constraint device_locks_pkey PRIMARY KEY (device_key)
);

create table public.device_sequences (
  device_key bigint not null,
  last bigint not null,
  floor bigint default 0 not null,
  is_full boolean default false not null,
  constraint device_sequences_pkey PRIMARY KEY (device_key, last)
) with (autovacuum_vacuum_cost_delay=0, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=20000);

create table public.devices (
  device_key bigint generated always as identity not null,
  device_uuid uuid not null,
  user_id uuid not null,
  device_id smallint not null,
  name text default ''::text not null,
  secret_hash bytea not null,
  created_at timestamp with time zone default now() not null,
  constraint devices_device_id_check CHECK (((device_id >= 1) AND (device_id <= 127))),
  constraint devices_secret_hash_check CHECK ((length(secret_hash) = 32)),
  constraint devices_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.accounts(user_id),
  constraint devices_pkey PRIMARY KEY (device_key),
  constraint devices_device_uuid_key UNIQUE (device_uuid),
  constraint devices_number UNIQUE (user_id, device_id)
);

create table public.gaps (
  device_key bigint not null,
  gap_id uuid default gen_random_uuid() not null,
  overflowed bigint default 0 not null,
  expired bigint default 0 not null,
  since timestamp with time zone default now() not null,
  constraint gaps_pkey PRIMARY KEY (device_key)
);

create table public.identity_news (
  user_id uuid not null,
  identity_key bytea not null,
  changed_at timestamp with time zone not null,
  told_up_to uuid,
  constraint identity_news_identity_key_check CHECK ((length(identity_key) = 33)),
  constraint identity_news_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.accounts(user_id),
  constraint identity_news_pkey PRIMARY KEY (user_id)
);

create table public.invitations (
  token_hash bytea not null,
  created_at timestamp with time zone default now() not null,
  expires_at timestamp with time zone not null,
  used_by uuid,
  constraint invitations_token_hash_check CHECK ((length(token_hash) = 32)),
  constraint invitations_pkey PRIMARY KEY (token_hash)
);

create table public.link_codes (
  code_hash bytea not null,
  user_id uuid not null,
  expires_at timestamp with time zone not null,
  device_key bigint,
  keys_digest bytea,
  proven_at_ms bigint,
  constraint link_codes_code_hash_check CHECK ((length(code_hash) = 32)),
  constraint link_codes_keys_digest_check CHECK ((length(keys_digest) = 32)),
  constraint link_codes_used CHECK ((((device_key IS NULL) = (keys_digest IS NULL)) AND ((device_key IS NULL) = (proven_at_ms IS NULL)))),
  constraint link_codes_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.accounts(user_id),
  constraint link_codes_pkey PRIMARY KEY (code_hash)
);
CREATE INDEX link_codes_user ON public.link_codes USING btree (user_id);

create table public.message_deliveries (
  device_key bigint not null,
  sequence bigint not null,
  message_id uuid not null,
  ciphertext_type smallint default 0 not null,
  withheld smallint default 0 not null,
  content bytea,
  iv bytea,
  delivered_at timestamp with time zone,
  delivered_on date,
  user_id uuid
) partition by LIST (delivered_on);

create table public.message_deliveries_waiting ( -- partition of public.message_deliveries FOR VALUES IN (NULL)
  device_key bigint not null,
  sequence bigint not null,
  message_id uuid not null,
  ciphertext_type smallint default 0 not null,
  withheld smallint default 0 not null,
  content bytea storage external,
  iv bytea,
  delivered_at timestamp with time zone,
  delivered_on date,
  user_id uuid
) with (autovacuum_vacuum_cost_delay=0, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=50000, toast_tuple_target=8160);
CREATE INDEX message_deliveries_waiting_queue ON public.message_deliveries_waiting USING btree (device_key, sequence);

create table public.messages (
  message_id uuid not null,
  conversation_id uuid,
  sender_type smallint not null,
  sender_user_id uuid,
  sender_device_key bigint,
  sender_device_id smallint,
  client_message_id uuid,
  message_type smallint default 1 not null,
  urgent boolean default true not null,
  reply_to_message_id uuid,
  attachment_url text,
  thumbnail_url text,
  sent_at timestamp with time zone not null,
  constraint messages_pkey PRIMARY KEY (message_id),
  constraint messages_once UNIQUE (sender_device_key, client_message_id)
);

create table public.migrations (
  file text not null,
  applied_at timestamp with time zone default now() not null,
  constraint migrations_pkey PRIMARY KEY (file)
);

create table public.read_marks (
  conversation_id uuid not null,
  user_id uuid not null,
  read_up_to uuid not null,
  shown_up_to uuid,
  constraint read_marks_conversation_id_user_id_fkey FOREIGN KEY (conversation_id, user_id) REFERENCES public.conversation_members(conversation_id, user_id),
  constraint read_marks_pkey PRIMARY KEY (conversation_id, user_id)
) with (fillfactor=70);

create table public.relay_state (
  only_row boolean default true not null,
  epoch uuid default gen_random_uuid() not null,
  constraint relay_state_only_row_check CHECK (only_row),
  constraint relay_state_pkey PRIMARY KEY (only_row)
);

create table public.retired_devices (
  user_id uuid not null,
  device_id smallint not null,
  registration_id smallint not null,
  retired_at timestamp with time zone default now() not null,
  constraint retired_devices_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.accounts(user_id),
  constraint retired_devices_pkey PRIMARY KEY (user_id, device_id)
);

create table public.settings (
  user_id uuid not null,
  read_receipts boolean default true not null,
  presence boolean default true not null,
  constraint settings_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.accounts(user_id),
  constraint settings_pkey PRIMARY KEY (user_id)
);

create table public.signing_keys (
  key_id text not null,
  private_jwk jsonb not null,
  created_at timestamp with time zone not null,
  retires_at timestamp with time zone,
  constraint signing_keys_pkey PRIMARY KEY (key_id)
);

create table public.stranger_deliveries (
  device_key bigint not null,
  stranger uuid not null,
  sequence bigint not null,
  put_at timestamp with time zone default now() not null,
  constraint stranger_deliveries_pkey PRIMARY KEY (device_key, stranger, sequence)
);

create table public.usernames (
  username_hash bytea not null,
  user_id uuid,
  former_user_id uuid,
  released_at timestamp with time zone,
  constraint usernames_username_hash_check CHECK ((length(username_hash) = 32)),
  constraint usernames_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.accounts(user_id),
  constraint usernames_pkey PRIMARY KEY (username_hash),
  constraint usernames_user_id_key UNIQUE (user_id)
);

CREATE OR REPLACE FUNCTION public.append_batch(lk bigint[], ks bigint[], cnt integer[], c_id uuid[], c_digest text[], m_id uuid[], m_conversation uuid[], m_user uuid[], m_key bigint[], m_device smallint[], m_client uuid[], m_type smallint[], m_urgent boolean[], m_reply uuid[], m_attachment text[], m_thumbnail text[], r_k integer[], r_n integer[], r_m integer[], r_type smallint[], r_withheld smallint[], r_at integer[], r_length integer[], r_iv integer[], blob bytea, o_key bigint[], o_message uuid[], x_k bigint[], xo_key bigint[], xo_message uuid[], s_m integer[], s_pending uuid[], a_conversation uuid[], a_user uuid[], sent_at timestamp with time zone, quota integer, stranger_most integer, OUT base bigint[], OUT gone bigint[], OUT duplicates integer[], OUT first_ids uuid[], OUT first_at timestamp with time zone[], OUT moved integer[], OUT full_keys bigint[], OUT full_room integer[], OUT over integer[], OUT written boolean)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
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
$function$
;

CREATE OR REPLACE FUNCTION public.count_room(ks bigint[], cnt integer[], base bigint[], quota integer, INOUT is_full boolean[], INOUT floors bigint[], OUT full_keys bigint[], OUT full_room integer[])
 RETURNS record
 LANGUAGE plpgsql
AS $function$
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
$function$
;

CREATE OR REPLACE FUNCTION public.drop_for_full(o_key bigint[], o_message uuid[])
 RETURNS void
 LANGUAGE sql
AS $function$
  insert into dead_letters (device_key, message_id, reason) select k, m, 'overflow' from unnest(o_key, o_message) x(k, m) on conflict do nothing;
  insert into gaps as g (device_key, overflowed) select k, count(*) from unnest(o_key) k group by k order by k
    on conflict (device_key) do update set overflowed = g.overflowed + excluded.overflowed, gap_id = gen_random_uuid();
  update device_sequences set is_full = true where device_key = any(o_key) and not is_full;
$function$
;

CREATE OR REPLACE FUNCTION public.enqueue_event(ks bigint[], id uuid, conversation uuid, event bytea, at timestamp with time zone)
 RETURNS TABLE(device_key bigint, sequence bigint)
 LANGUAGE plpgsql
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET enable_bitmapscan TO 'off'
AS $function$
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
$function$
;

CREATE OR REPLACE FUNCTION public.forget_stranger_deliveries(ks bigint[], strangers uuid[])
 RETURNS void
 LANGUAGE sql
AS $function$
  delete from stranger_deliveries where ctid = any(array(
    select y.at from (select distinct k, s from unnest(ks, strangers) given(k, s)) x
    cross join lateral (select d.ctid as at, d.sequence from stranger_deliveries d where d.device_key = x.k and d.stranger = x.s) y
    where not exists (select from message_deliveries_waiting w where w.device_key = x.k and w.sequence = y.sequence limit 1)))
$function$
;

CREATE OR REPLACE FUNCTION public.over_for_strangers(s_m integer[], s_conversation uuid[], s_pending uuid[], messages_most integer)
 RETURNS integer[]
 LANGUAGE plpgsql
AS $function$
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
$function$
;

CREATE OR REPLACE FUNCTION public.roster(conversation uuid)
 RETURNS TABLE(kind text, archived boolean, digest text, device_keys bigint[], user_ids uuid[], device_ids smallint[], registration_ids smallint[], pending_user uuid, blockers uuid[])
 LANGUAGE sql
 STABLE
AS $function$
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
$function$
;
