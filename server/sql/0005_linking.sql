-- Used link codes: kept to their end, because the answer may have been lost. [I-4.5]
alter table link_codes
  -- Whom it let in; null = nobody yet. A device that is gone has a number here that is nobody's.
  add column device_key bigint,
  -- Of the keys the device came with. [K-7.1]
  add column keys_digest bytea check (length(keys_digest) = 32),
  -- timestamp_ms of the last proof that was accepted with it.
  add column proven_at_ms bigint,
  add constraint link_codes_used check ((device_key is null) = (keys_digest is null) and (device_key is null) = (proven_at_ms is null));
