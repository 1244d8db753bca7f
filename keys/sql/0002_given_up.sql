-- Identity keys that were a user's before a new identity took their place: nobody's ever again. [I-6.6]
create table keys.given_up_identities (
  key_hash bytea primary key check (length(key_hash) = 32),
  given_up_at timestamptz not null
);
