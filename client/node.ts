// What an app on Node imports besides index.ts: libsignal, SQLite and ws, each of which has binaries or sockets of Node's own.
export { libsignal } from './crypto/libsignal.ts'
export { SqliteStorage, StorageInUse } from './storage/sqlite.ts'
export { wsTransport } from './transport/ws.ts'
