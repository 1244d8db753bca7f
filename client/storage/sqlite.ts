// A store in one SQLite file, for Node. The only importer of @signalapp/sqlcipher: synchronous, its binaries in the package.
import Database from '@signalapp/sqlcipher'
import { type Range, refusePromise, type Storage, type Transaction } from '../storage.ts'

type Row = { key: string; value: Uint8Array }

/** The store is open in another process, or in another place of this one. */
export class StorageInUse extends Error {}

/**
 * One file, held by one process. Every transaction is on disk when it returns (synchronous = FULL).
 * @param path the file; made when missing. @param passphrase encrypts the file with SQLCipher; absent = not encrypted.
 */
export class SqliteStorage implements Storage {
  private readonly db: Database
  private inside = false

  /** @throws StorageInUse when somebody else has it open; Error when it is no store, or the passphrase is wrong. */
  constructor(path: string, options: { passphrase?: string } = {}) {
    this.db = new Database(path, { cacheStatements: true })
    try {
      if (options.passphrase !== undefined) this.db.pragma(`key = '${options.passphrase.replaceAll("'", "''")}'`)
      // Exclusive: the first write takes the file until it is closed, and WAL then needs no shared memory.
      this.db.exec('pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full')
      this.db.exec(`begin immediate;
        create table if not exists records (tbl text not null, key text not null, value blob not null,
          primary key (tbl, key)) without rowid, strict;
        pragma user_version = 1;
        commit`)
    } catch (error) {
      this.db.close()
      if ((error as { code?: string }).code === 'SQLITE_BUSY')
        throw new StorageInUse(`${path} is in use by another process`, { cause: error })
      throw error
    }
  }

  transaction<T>(work: (tx: Transaction) => T): T {
    if (this.inside) throw new Error('a transaction inside another')
    this.inside = true
    this.db.exec('begin immediate')
    try {
      const result = work(this.tx)
      refusePromise(result)
      this.db.exec('commit')
      return result
    } catch (error) {
      this.db.exec('rollback')
      throw error
    } finally {
      this.inside = false
    }
  }

  close(): void {
    this.db.close()
  }

  private run(sql: string, params: (string | Uint8Array | number)[]): void {
    if (!this.inside) throw new Error('the transaction is over')
    this.db.prepare(sql).run(params as (string | Uint8Array<ArrayBuffer> | number)[])
  }

  private readonly tx: Transaction = {
    get: (table, key) => {
      const row = this.db
        .prepare('select value from records where tbl = ? and key = ?')
        .get<{ value: Uint8Array<ArrayBuffer> }>([table, key])
      return row ? Uint8Array.from(row.value) : null
    },
    put: (table, key, value) =>
      this.run('insert or replace into records values (?, ?, ?)', [table, key, Uint8Array.from(value)]),
    delete: (table, key) => this.run('delete from records where tbl = ? and key = ?', [table, key]),
    count: (table) => this.db.prepare('select count(*) as n from records where tbl = ?').get<{ n: number }>([table])!.n,
    scan: (table, { prefix = '', after, before, limit = -1, backwards = false }: Range = {}) => {
      const conditions = ['tbl = ?', 'key >= ?']
      const params: (string | number)[] = [table, prefix]
      if (prefix) {
        conditions.push('key < ?')
        params.push(`${prefix}\u{10ffff}`)
      }
      if (after !== undefined) {
        conditions.push('key > ?')
        params.push(after)
      }
      if (before !== undefined) {
        conditions.push('key < ?')
        params.push(before)
      }
      const rows = this.db
        .prepare(
          `select key, value from records where ${conditions.join(' and ')} order by key ${backwards ? 'desc' : ''} limit ?`,
        )
        .all([...params, limit]) as unknown as Row[]
      return rows.map(({ key, value }) => ({ key, value: Uint8Array.from(value) }))
    },
  }
}
