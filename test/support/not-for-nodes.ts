// What `npm run test:nodes` leaves out, each with its reason: files, and single stories of others.

/** Path → why it makes no sense, or no difference, with two nodes behind one address. */
export const notForNodes: Record<string, string> = {
  'test/scenario/across.test.ts': 'is the short form of the very same',
  'test/scenario/cluster-nodes.test.ts': 'starts its nodes itself',
  'test/scenario/cluster.test.ts': 'runs npm run cluster, whose nodes are processes of its own',
  'test/scenario/cluster-provisioning.test.ts': 'starts its nodes itself',
  'test/scenario/cluster-takeover.test.ts': 'starts its nodes itself',
  'test/scenario/limits.test.ts': 'turns the clock, and Redis counts by its own; several nodes are one of its stories',
  'test/scenario/redis-chaos.test.ts': 'starts its nodes itself',
  'test/scenario/churn.test.ts': 'starts its nodes itself',
  'test/scenario/hints.test.ts': 'starts its nodes itself',
  'test/scenario/redis.test.ts': 'starts its nodes itself',
  'test/scenario/haproxy.test.ts': 'starts its nodes itself, behind a real HAProxy',
  'test/scenario/drain.test.ts': 'moves the time in which one relay goes down',
  'test/scenario/batch-bounds.test.ts': 'is about what one node holds, and asks for it with all that is sent',
  'test/scenario/workers.test.ts': 'starts its nodes itself',
  'test/scenario/demo.test.ts': 'runs the demo as a process, which starts its own relay or is given one address',
  'test/scenario/start.test.ts': 'is about the start of one process; with Redis it is test/server/config.test.ts',
  'test/scenario/explain.test.ts': 'asks PostgreSQL about statements; no relay runs',
  'test/scenario/races-hunt.test.ts': 'has two nodes of its own already, without sockets',
}

/** Part of a test's name → why. */
export const notTold: Record<string, string> = {
  "another device's: an unlinked device's token":
    'wants the other node to know within the same moment; across.test.ts has it, by hint, and identity.test.ts within 5 s',
  'signals between two requests come with the next':
    'asks at the moment in which a hint has surely arrived, which is known of one node only; redis.test.ts has the crossing',
  'polls that wait are connections: past the limit OVERLOADED': 'counts the connections of one node',
  'a relay that goes away sends polls home': 'goes on asking the node that went, whose neighbour answers',
}
