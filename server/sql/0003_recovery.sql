-- Beginning anew: what authorises it, and who is still to be told. [I-6]

-- SHA-256 of the recovery code's text; null = none. Void with its use and with every new identity. [I-6.3]
alter table accounts add column recovery_code_hash bytea check (length(recovery_code_hash) = 32);

-- New identities that not everybody has been told of yet. [V-5]
create table identity_news (
  user_id uuid primary key references accounts,
  -- The new one.
  identity_key bytea not null check (length(identity_key) = 33),
  changed_at timestamptz not null,
  -- Users are told in ascending order; everybody up to here was. Null = nobody yet.
  told_up_to uuid
);
