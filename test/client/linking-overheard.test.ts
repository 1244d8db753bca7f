// Linking through a relay that reads everything and changes what it likes: it learns nothing, and can substitute nothing. [I-5.4]
import { IdentityKeyPair, PrivateKey, PublicKey } from '@signalapp/libsignal-client'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Device, type LinkAsk, type LinkRequest, MemoryStorage } from '../../client/index.ts'
import { libsignal } from '../../client/node.ts'
import { Stage } from '../../client/stage.ts'
import { offered, shownUri } from '../support/linking.ts'
import { Overheard } from '../support/overheard.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { device, joined, live, quiet } from '../support/sdk.ts'

let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay()
})
afterAll(() => relay.close())

/** The identity pair in a device's store: for the test's eyes. */
const identityOf = (store: MemoryStorage): IdentityKeyPair =>
  IdentityKeyPair.deserialize(
    Uint8Array.from(store.transaction((tx) => tx.get('crypto.self', 'identity')) ?? expect.fail('no identity')),
  )

const ascii = (text: string): Uint8Array => Buffer.from(text, 'ascii')

it('neither the identity key, nor the link code, nor the key to the sealed bytes is in anything it saw of them', async () => {
  const heard = new Overheard()
  const transport = heard.transport()
  const store = new MemoryStorage()
  const alice = await joined(relay, { transport, storage: store })
  const made = vi.spyOn(PrivateKey, 'generate')
  const seal = vi.spyOn(PublicKey.prototype, 'seal')
  const mine = new MemoryStorage()
  const laptop = device(relay, { transport, storage: mine })
  const request = laptop.requestLink({ name: 'laptop' })
  const uri = await shownUri(request)
  const { key, address } = alice.readLinkUri(uri)
  const ephemeral = made.mock.results
    .map(({ value }) => value as PrivateKey)
    .find((each) => Buffer.from(each.getPublicKey().serialize()).equals(key))!
  made.mockRestore()
  const [offer] = await Promise.all([request.once('offer'), alice.approveLink(uri)])
  const plain = seal.mock.calls[0]![0] as Uint8Array
  seal.mockRestore()
  await offer.accept()
  await live(laptop)
  for (const each of [alice, laptop]) await quiet(each)

  const identity = identityOf(store).privateKey.serialize()
  expect(identityOf(mine).privateKey.serialize()).toEqual(identity)
  const { body } = heard.seen
    .filter(({ at }) => at === 'POST /v1/devices/link-code answered')
    .map(({ bytes }) => ({ body: JSON.parse(Buffer.from(bytes).toString()) as { link_code: string } }))[0]!
  // What is looked for would be found: the plaintext has it, and the relay saw code, address and sealed bytes where they belong.
  const inPlain = [{ at: 'plain', bytes: plain }]
  expect([heard.find(identity, inPlain), heard.find(ascii(body.link_code), inPlain)]).toEqual([['plain'], ['plain']])
  const channel = `/v1/provisioning/${Buffer.from(address).toString('base64url')}`
  expect(new Set(heard.find(address))).toEqual(new Set([`socket ${channel}`, `PUT ${channel}`]))
  expect(heard.sealed.length).toBe(1)
  expect(new Set(heard.find(heard.sealed[0]!))).toEqual(new Set([`socket ${channel}`, `PUT ${channel}`]))

  // The code is the relay's own, and of no use without the identity key; on this path it is nobody's.
  expect(heard.provisioning.length).toBeGreaterThan(3)
  expect(heard.find(ascii(body.link_code), heard.provisioning)).toEqual([])
  for (const secret of [identity, ephemeral.serialize(), key, key.slice(1)]) expect(heard.find(secret)).toEqual([])
  for (const each of [alice, laptop]) each.disconnect()
})

describe('what it puts in the place of the sealed bytes', () => {
  let alice: Device
  let mallory: Device
  let laptop: Device
  let heard: Overheard
  let request: LinkRequest
  let ask: LinkAsk
  let account: MemoryStorage
  beforeEach(async () => {
    // Users of their own each time: the relay limits how often one may hand something over. [I-5.3]
    account = new MemoryStorage()
    alice = await joined(relay)
    mallory = await joined(relay, { storage: account })
    for (const each of [alice, mallory]) {
      await quiet(each)
      each.disconnect()
    }
    heard = new Overheard()
    laptop = device(relay, { transport: heard.transport() })
    request = laptop.requestLink()
    ask = alice.readLinkUri(await shownUri(request))
  })

  const sealedFor = (to: Pick<LinkAsk, 'address' | 'key'>): Uint8Array =>
    libsignal().sealProvision(new Stage(account), to, {
      ...{ userId: mallory.userId, linkCode: 'A'.repeat(22), username: '' },
    })

  /** It is refused, another request follows, nobody was linked; and that other request works once the relay is honest. */
  async function isRefused(substitute: (sealed: Uint8Array) => Uint8Array): Promise<void> {
    const uri = request.uri!
    heard.provision = substitute
    let offers = 0
    const off = request.on('offer', () => offers++)
    const [refused] = await Promise.all([request.once('refused'), alice.approveLink(uri)])
    off()
    expect(refused.reason).not.toBe('')
    expect([offers, request.offer, laptop.isRegistered]).toEqual([0, null, false])
    heard.provision = null
    const next = alice.readLinkUri(await shownUri(request, uri))
    expect([next.address, next.key]).not.toContainEqual(ask.address)
    expect([next.address, next.key]).not.toContainEqual(ask.key)
    const offer = await offered(request, alice)
    expect(offer.userId).toBe(alice.userId)
    request.cancel()
  }

  const flipped = (at: (length: number) => number) => (sealed: Uint8Array) => {
    const changed = Uint8Array.from(sealed)
    changed[at(sealed.length)]! ^= 1
    return changed
  }

  it('one bit flipped is refused, wherever it is', async () => {
    // Every byte by the crypto alone, and one through the whole way.
    const key = libsignal().createProvisionKey()
    const sealed = sealedFor(key)
    expect(key.open(sealed).userId).toBe(mallory.userId)
    for (let at = 0; at < sealed.length; at++)
      expect(() => key.open(flipped(() => at)(sealed)), String(at)).toThrow('altered')
    await isRefused(flipped((length) => length - 1))
  })

  it('bytes cut short, none, or more of them are refused', async () => {
    const key = libsignal().createProvisionKey()
    const sealed = sealedFor(key)
    for (const wrong of [new Uint8Array(), sealed.slice(0, -1), sealed.slice(0, 20), Uint8Array.of(...sealed, 0)])
      expect(() => key.open(wrong)).toThrow('altered')
    await isRefused(() => new Uint8Array())
  })

  it('an account of its own, sealed to a key it made, is refused: it has not seen the key that is waiting', async () => {
    expect(heard.find(ask.key)).toEqual([])
    expect(heard.find(ask.key.slice(1))).toEqual([])
    expect(heard.find(ask.address)).not.toEqual([])
    const own = PrivateKey.generate().getPublicKey().serialize()
    await isRefused(() => sealedFor({ address: ask.address, key: own }))
  })

  it('bytes for the same key and another address are refused; had it the key, the user would still be asked', async () => {
    const other = Uint8Array.from(ask.address)
    other[0]! ^= 1
    await isRefused(() => sealedFor({ address: other, key: ask.key }))

    const seen = device(relay, { transport: heard.transport() }).requestLink()
    const uri = await shownUri(seen)
    heard.provision = () => sealedFor(alice.readLinkUri(uri))
    const [offer] = await Promise.all([seen.once('offer'), alice.approveLink(uri)])
    expect(offer.userId).toBe(mallory.userId)
    seen.cancel()
  })

  it('bytes of an earlier request are refused', async () => {
    const uri = request.uri!
    const offer = await offered(request, alice)
    offer.reject()
    await shownUri(request, uri)
    const [earlier] = heard.sealed
    await isRefused(() => earlier!)
  })
})
