-- Accounts, conversations and the queue. Why the queue's tables look like this: docs/decisions/sequences.md.

-- One row: facts about this database as a whole.
create table relay_state (
  only_row boolean primary key default true check (only_row),
  -- Changes when the database was restored from a backup. [K-9]
  epoch uuid not null default gen_random_uuid()
);
insert into relay_state default values;

-- Ed25519 keys that sign access tokens; the newest signs, older ones verify until they retire.
create table signing_keys (
  key_id text primary key,
  private_jwk jsonb not null,
  created_at timestamptz not null,
  retires_at timestamptz
);

create table accounts (
  user_id uuid primary key,
  -- The outside issuer's `sub` that registered it: one account each. Null where no such issuer was asked.
  outside_subject text constraint accounts_outside_subject unique,
  created_at timestamptz not null default now()
);

create table devices (
  device_key bigint generated always as identity primary key,
  device_uuid uuid not null unique,
  user_id uuid not null references accounts,
  device_id smallint not null check (device_id between 1 and 127),
  name text not null default '',
  secret_hash bytea not null check (length(secret_hash) = 32),
  created_at timestamptz not null default now(),
  constraint devices_number unique (user_id, device_id)
);

-- Which number was held last by which registration id: numbers are not reused until 1-127 is exhausted.
create table retired_devices (
  user_id uuid not null references accounts,
  device_id smallint not null,
  registration_id smallint not null,
  retired_at timestamptz not null default now(),
  primary key (user_id, device_id)
);

-- Single use, ten minutes; only the hash is stored.
create table link_codes (
  code_hash bytea primary key check (length(code_hash) = 32),
  user_id uuid not null references accounts,
  expires_at timestamptz not null
);
create index link_codes_user on link_codes (user_id);

-- Registration by invitation; only the hash is stored.
create table invitations (
  token_hash bytea primary key check (length(token_hash) = 32),
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_by uuid
);

-- A libsignal username hash; the name itself never reaches the server.
create table usernames (
  username_hash bytea primary key check (length(username_hash) = 32),
  -- Null once released: locked for its former owner until then.
  user_id uuid unique references accounts,
  former_user_id uuid,
  released_at timestamptz
);

create table conversations (
  conversation_id uuid primary key,
  kind text not null check (kind in ('direct', 'group')),
  privacy_mode text not null default 'strict_e2e' check (privacy_mode in ('strict_e2e', 'search_enabled')),
  name text not null default '',
  description text not null default '',
  created_at timestamptz not null default now(),
  archived_at timestamptz,
  -- Length of the chain in conversation_changes.
  revision bigint not null default 0,
  -- Direct conversations only, ordered by id.
  low_user uuid,
  high_user uuid,
  check ((kind = 'direct') = (low_user is not null and high_user is not null) and low_user < high_user)
);
-- A pair has one direct conversation; once it is archived, the pair may begin another.
create unique index conversations_pair on conversations (low_user, high_user) where archived_at is null;

create table conversation_members (
  conversation_id uuid not null references conversations,
  user_id uuid not null references accounts,
  role text not null default 'member' check (role in ('member', 'admin')),
  state text not null default 'active' check (state in ('active', 'left', 'removed')),
  joined_at timestamptz not null default now(),
  ended_at timestamptz,
  muted_until timestamptz,
  primary key (conversation_id, user_id)
);
create index conversation_members_user on conversation_members (user_id);

-- The chain of changes. signed_change is opaque: the clients' roster is this chain, the relay's list is only routing.
create table conversation_changes (
  conversation_id uuid not null references conversations,
  revision bigint not null,
  -- Named as in relay.proto's ConversationChange.
  change text not null check (change in
    ('CREATED', 'MEMBERS_ADDED', 'MEMBER_REMOVED', 'MEMBER_LEFT', 'ROLE_CHANGED', 'UPDATED', 'ARCHIVED')),
  actor_user_id uuid not null,
  subject_user_ids uuid[] not null default '{}',
  role text check (role in ('member', 'admin')),
  signed_change bytea not null default '' check (length(signed_change) <= 1024),
  changed_at timestamptz not null default now(),
  primary key (conversation_id, revision)
);

-- One row per accepted message; remembers (sender device, client_message_id) for at least 7 days (I2).
create table messages (
  message_id uuid primary key,
  conversation_id uuid,
  -- 1 user, 2 system, 3 bot
  sender_type smallint not null,
  sender_user_id uuid,
  sender_device_key bigint,
  sender_device_id smallint,
  client_message_id uuid,
  message_type smallint not null default 1,
  urgent boolean not null default true,
  reply_to_message_id uuid,
  attachment_url text,
  thumbnail_url text,
  sent_at timestamptz not null,
  constraint messages_once unique (sender_device_key, client_message_id)
);

-- The row that is locked to write to a device's queue. Never updated, so its index never grows a tail of dead versions.
create table device_locks (
  device_key bigint primary key
);

-- Last sequence given out per device. Changed by delete + insert and read newest first: an updated counter is found by
-- walking every dead version while an old snapshot pins them.
create table device_sequences (
  device_key bigint not null,
  last bigint not null,
  -- last - floor is never below the number of waiting rows; moved up when the quota is counted, so counting is rare (D7).
  floor bigint not null default 0,
  -- The quota was reached and the queue has not drained to four fifths of it yet.
  is_full boolean not null default false,
  primary key (device_key, last)
);
alter table device_sequences set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

-- One row per recipient device. Undelivered rows are in message_deliveries_waiting, delivered ones in a partition per day.
create table message_deliveries (
  device_key bigint not null,
  sequence bigint not null,
  message_id uuid not null,
  -- libsignal's number; 0 = content is a SystemEvent.
  ciphertext_type smallint not null default 0,
  withheld smallint not null default 0,
  content bytea,
  iv bytea,
  delivered_at timestamptz,
  delivered_on date
) partition by list (delivered_on);

create table message_deliveries_waiting partition of message_deliveries for values in (null);
create index message_deliveries_waiting_queue on message_deliveries_waiting (device_key, sequence);
-- Ciphertext does not compress, and most of it fits a page: fewer round trips through TOAST.
alter table message_deliveries_waiting alter column content set storage external;
alter table message_deliveries_waiting set (toast_tuple_target = 8160,
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000, autovacuum_vacuum_cost_delay = 0);

-- What a device will never get, and why.
create table dead_letters (
  device_key bigint not null,
  message_id uuid not null,
  -- 'overflow': the queue was full.
  reason text not null,
  died_at timestamptz not null default now(),
  primary key (message_id, device_key)
);
create index dead_letters_device on dead_letters (device_key);

-- What a device has to be told it missed; acked by gap_id, which changes with every addition.
create table gaps (
  device_key bigint primary key,
  gap_id uuid not null default gen_random_uuid(),
  overflowed bigint not null default 0,
  expired bigint not null default 0,
  since timestamptz not null default now()
);

-- Orders connections of one device: the higher epoch is the newer consumer (I6).
create sequence session_epoch;
