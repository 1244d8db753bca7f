// The test device is a real libsignal client.
import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { type BundleParts, PREKEY, TestDevice, WHISPER } from './keys.ts'

const named = (device: TestDevice): TestDevice => Object.assign(device, { userId: randomUUID() })

const bundleOf = (device: TestDevice): BundleParts => ({
  registrationId: device.registrationId,
  deviceId: device.deviceId,
  identityKey: device.identityKey,
  signedPrekey: device.makeSignedPrekey(1),
  oneTimePrekey: device.makeOneTimePrekeys(1)[0]!,
  kyberPrekey: device.makeLastResort(7),
})

test('two test devices talk: the first message is a prekey message, after the answer they are whispers', async () => {
  const [ada, ben] = [named(new TestDevice()), named(new TestDevice())]
  await ada.startSession(ben.userId, bundleOf(ben))
  const first = await ada.encrypt(ben.userId, 1, Buffer.from('hello'))
  expect(first.type).toBe(PREKEY)
  expect(Buffer.from(await ben.decrypt(ada.userId, 1, first.type, first.content)).toString()).toBe('hello')
  expect(ben.prekeys.records.size).toBe(0)
  const answer = await ben.encrypt(ada.userId, 1, Buffer.from('hello back'))
  expect(answer.type).toBe(WHISPER)
  expect(Buffer.from(await ada.decrypt(ben.userId, 1, answer.type, answer.content)).toString()).toBe('hello back')
})

test('a bundle with a tampered signature is refused', async () => {
  const [ada, ben] = [named(new TestDevice()), named(new TestDevice())]
  const bundle = bundleOf(ben)
  bundle.signedPrekey.signature[10]! ^= 1
  await expect(ada.startSession(ben.userId, bundle)).rejects.toThrow(/invalid signature/i)
})
