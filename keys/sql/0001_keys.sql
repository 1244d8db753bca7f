-- The key directory. Stands alone: nothing here refers to a table outside schema keys.
-- Lock order, everywhere: devices (for no key update), one_time_prekeys, kyber_prekeys; within a table ascending (device_key, serial).
create schema keys;

-- One identity key per user, shared by the user's devices.
create table keys.identities (
  user_id uuid primary key,
  identity_key bytea not null constraint identities_key_unique unique check (length(identity_key) = 33)
);

-- The devices that publish keys. device_key is the caller's surrogate key of the device row and is never reused (I9).
-- The relay's device-set check reads this table: registration_id lives here and nowhere else.
create table keys.devices (
  device_key bigint primary key,
  user_id uuid not null references keys.identities,
  device_id smallint not null check (device_id between 1 and 127),
  registration_id smallint not null check (registration_id between 1 and 16383),
  constraint devices_address unique (user_id, device_id)
);

-- The current signed prekey; replaced ones are not kept. [K-2.4]
create table keys.signed_prekeys (
  device_key bigint primary key references keys.devices,
  key_id integer not null check (key_id >= 0),
  -- No other device publishes it. [K-2.6]
  public_key bytea not null constraint signed_prekeys_key_unique unique check (length(public_key) = 33),
  signature bytea not null check (length(signature) = 64),
  created_at timestamptz not null
);

-- Stock. The primary key is the order of claims: first in, first out, whatever the ids. [K-4.1]
create table keys.one_time_prekeys (
  device_key bigint not null references keys.devices,
  serial bigint generated always as identity,
  key_id integer not null check (key_id >= 0),
  public_key bytea not null check (length(public_key) = 33),
  primary key (device_key, serial),
  constraint one_time_prekeys_id unique (device_key, key_id)
);

-- One-time stock and the one last-resort key share an id space, since a client looks them up by one id. [K-2.3]
create table keys.kyber_prekeys (
  device_key bigint not null references keys.devices,
  serial bigint generated always as identity,
  key_id integer not null check (key_id >= 0),
  public_key bytea not null check (length(public_key) = 1569),
  signature bytea not null check (length(signature) = 64),
  last_resort boolean not null,
  -- The last-resort key left since it was uploaded. [K-6.1]
  used boolean not null default false,
  created_at timestamptz not null,
  constraint kyber_prekeys_id primary key (device_key, key_id)
);
create unique index kyber_prekeys_stock on keys.kyber_prekeys (device_key, serial) where not last_resort;
create unique index kyber_prekeys_last_resort on keys.kyber_prekeys (device_key) where last_resort;
create unique index kyber_prekeys_last_resort_key on keys.kyber_prekeys (sha256(public_key)) where last_resort;

-- What left, so that it never leaves again: kept for a year, or until the device is gone. [K-3.1]
create table keys.tombstones (
  device_key bigint not null references keys.devices,
  -- 1 one-time EC, 2 Kyber (one-time keys that left, last-resort keys that were replaced)
  kind smallint not null check (kind in (1, 2)),
  key_id integer not null,
  key_hash bytea not null check (length(key_hash) = 32),
  created_at timestamptz not null,
  primary key (device_key, kind, key_id),
  constraint tombstones_key unique (device_key, kind, key_hash)
);

-- The highest id ever uploaded of a kind; outlives claims, replacement and tombstones. Kinds as in tombstones. [K-6]
create table keys.highest_ids (
  device_key bigint not null references keys.devices,
  kind smallint not null check (kind in (1, 2)),
  key_id integer not null,
  primary key (device_key, kind)
);
