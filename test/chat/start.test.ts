// Starting the messenger where something is in the way: one clear line, and nothing left behind that is in the way next time.
import { cpSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Messengers, messengers } from '../support/messengers.ts'
import { hasTerminals, type Terminal } from '../support/terminal.ts'

const SLOW = 120_000

let world: Messengers
beforeAll(async () => {
  world = await messengers()
}, SLOW)
afterAll(() => world.close())

/** What it said before it ended with 1. */
async function refusal(terminal: Terminal): Promise<string> {
  await terminal.see('ended with 1, icanon echo')
  expect(terminal.isAlternate).toBe(false)
  return terminal.screen.split('ended with')[0]!.replaceAll('\n', '').trim()
}

describe.skipIf(!hasTerminals)('one clear line', { timeout: SLOW }, () => {
  it('for a username that is taken, and the same place can be used for another', async () => {
    const alice = await world.start('alice')
    const taken = await refusal(world.launch('alice', { store: 'second' }))
    expect(taken).toMatch(/The username alice is taken on this relay\. Try another: --as alice\.\d\d$/)
    expect(existsSync(join(world.store('second'), 'device.db'))).toBe(false)
    const other = await world.start('alice.42', { store: 'second' })
    await other.see('You are alice.42.')
    await Promise.all([alice.close(), other.close()])
  })

  it('for a store that is open already, and the first one does not notice', async () => {
    const bob = await world.start('bob')
    expect(await refusal(world.launch('bob'))).toBe(
      `bob is open already in another terminal (${world.store('bob')} is in use).`,
    )
    bob.enter('/me')
    await bob.see('bob.01')
    await bob.close()
    expect(await refusal(world.launch('carol', { store: 'bob' }))).toBe(
      `${world.store('bob')} belongs to bob, not to carol.`,
    )
  })

  it('for another realm, at the first start and later', async () => {
    const args = ['--realm', 'https://other.test']
    expect(await refusal(world.launch('dave', { args }))).toContain('has another realm than https://other.test')
    const dave = await world.start('dave')
    await dave.close()
    expect(await refusal(world.launch('dave', { args }))).toBe(
      `This account is on the relay ${world.realm}, not on https://other.test.`,
    )
    await world.relay.stop()
    await world.relay.start({ realm: 'https://other.test' })
    const late = world.launch('dave')
    await late.see('○ closed')
    await late.see(/Another relay answers at this address/)
    late.enter('/quit')
    expect(await late.ended).toBe(0)
    await world.relay.stop()
    await world.relay.start()
  })

  it('for a relay that does not run, at the first start; later the messenger opens without it', async () => {
    const erin = await world.start('erin')
    await erin.close()
    await world.relay.stop()
    expect(await refusal(world.launch('frank'))).toMatch(/no relay answers there/)
    const nowhere = world.launch('frank', { args: ['--url', 'http://127.0.0.1:1'] })
    expect(await refusal(nowhere)).toMatch(/127\.0\.0\.1:1/)
    const offline = world.launch('erin')
    await offline.see(/○ offline, next try in \d+ s/)
    await world.relay.start()
    offline.type('\x14')
    await offline.see('● connected')
    await offline.close()
  })

  it('for two copies of one account: the older one says that the newer took over, and can take it back', async () => {
    const gina = await world.start('gina')
    await gina.close()
    cpSync(world.store('gina'), world.store('copy'), { recursive: true })
    const original = await world.start('gina')
    const copy = await world.start('gina', { store: 'copy' })
    await original.see('This device is open in another place, which took over.')
    original.enter('/connect')
    await copy.see('This device is open in another place, which took over.')
    await original.see('● connected')
    await Promise.all([original.close(), copy.close()])
  })

  it('for what cannot be a username, or is no address', async () => {
    expect(await refusal(world.launch('x'))).toMatch(/^--as x: a username has 3 to 32 letters/)
    expect(await refusal(world.launch('gina', { args: ['--url', 'localhost:1'] }))).toMatch(
      /^--url localhost:1: not the URL of a relay/,
    )
  })
})
