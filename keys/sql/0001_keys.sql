-- The key directory. Stands alone: nothing here refers to a table outside schema keys.
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
