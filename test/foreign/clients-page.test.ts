// The bytes that docs/clients.md shows are those of a test vector, and what it points at exists.
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { PublicKey } from '@signalapp/libsignal-client'
import { describe, expect, it } from 'vitest'
import { readVectors } from '../keys/vectors.ts'

const PAGE = new URL('../../docs/clients.md', import.meta.url)
const page = readFileSync(PAGE, 'utf8')
const protocol = readFileSync(new URL('../../proto/README.md', import.meta.url), 'utf8')

/** The hex at the beginning of each line of the block with that name, joined. */
function shown(name: string): string {
  const [, block] = new RegExp(`\`\`\`\n${name}\n([^\`]+)\`\`\``).exec(page) ?? []
  return block!
    .trim()
    .split('\n')
    .map((line) => line.split(' ')[0])
    .join('')
}

describe('the worked example of identity_proof', () => {
  const vector = readVectors('valid', 'identity_proof').find(
    ({ file }) => file === 'keys-identity-proof-register-x3dh-only.json',
  )!

  it('shows the message and the signature of its vector', () => {
    expect(shown('message')).toBe(vector.message)
    expect(shown('signature')).toBe(vector.signature)
    const [identity, message, signature] = [vector.identity_key, shown('message'), shown('signature')].map((hex) =>
      Uint8Array.from(Buffer.from(hex, 'hex')),
    )
    expect(PublicKey.deserialize(identity!).verify(message!, signature!)).toBe(true)
    expect(page).toContain(`here ${message!.length} bytes`)
  })

  it('shows the keys whose hash is in it', () => {
    const keys = Buffer.from(shown('keys'), 'hex')
    expect(shown('message')).toContain(createHash('sha256').update(keys).digest('hex'))
    expect(keys.subarray(0, 33).toString('hex')).toBe(vector.identity_key)
    expect(keys.readUInt16BE(33)).toBe(vector.registration_id)
    expect(page).toContain(`timestamp_ms ${vector.timestamp_ms}`)
  })
})

it('cites clauses that exist and links to files that exist', () => {
  const cited = [...new Set(page.match(/\[[A-Z]-[\d.]+\]/g))]
  expect(cited.length).toBeGreaterThan(40)
  expect(cited.filter((clause) => !protocol.includes(clause))).toEqual([])
  const links = [...page.matchAll(/\]\(([^)]+)\)/g)].map(([, to]) => to!)
  expect(links.filter((to) => !existsSync(new URL(to, PAGE)))).toEqual([])
})
