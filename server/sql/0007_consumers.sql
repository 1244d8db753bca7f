-- Who takes the envelopes of a device: the epoch of its newest connection, over all nodes (I6). Written at every connect, read with
-- the tails of queues. Unlogged: no connect waits for a disk. What a crash or a failover empties, living connections say again.
create unlogged table device_consumers (
  device_key bigint primary key,
  epoch bigint not null
) with (fillfactor = 50);
