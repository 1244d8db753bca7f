-- Signals between people: what each user shows of himself, how far each member has read, and which users have a message.

-- No row = everything on. [G-2.3] [G-4.3]
create table settings (
  user_id uuid primary key references accounts,
  read_receipts boolean not null default true,
  presence boolean not null default true
);

-- One mark per member, moved forward only; message ids sort by time. Kept when a member leaves: what was told stays true.
create table read_marks (
  conversation_id uuid not null,
  user_id uuid not null,
  -- For the user's own devices. [G-4.2]
  read_up_to uuid not null,
  -- What others were told of it: moves only while the user shows read receipts, so that no number ever falls. [G-3.3]
  shown_up_to uuid,
  primary key (conversation_id, user_id),
  foreign key (conversation_id, user_id) references conversation_members
) with (fillfactor = 70);

-- Whose device had it, also when the device is long gone. Null in rows delivered before this column was: they count for nobody.
alter table message_deliveries add column user_id uuid;

-- Days that are there already; partitions.ts makes the rest with it. System events and withheld copies count for nobody.
do $$
declare
  day text;
begin
  for day in select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'message_deliveries'::regclass and c.relname ~ '^message_deliveries_\d{8}$'
  loop
    execute format('create index %I on %I (message_id, user_id) where ciphertext_type <> 0', day || '_status', day);
  end loop;
end
$$;
