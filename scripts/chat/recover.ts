// Becoming oneself again on an empty device, before the screen: asks for the code that was written down.
import { createInterface } from 'node:readline/promises'
import { type Device, InvalidRecoveryCode, RelayError } from '../../client/index.ts'
import { deviceName, type Say } from './link.ts'
import { Refusal, sentenceOf } from './refusals.ts'
import { shortName } from './usernames.ts'

/** Resolves when this is the user's only device. @throws Refusal. */
export async function recoverThis(device: Device, { username, say }: { username: string; say: Say }): Promise<void> {
  say(`Begin anew as ${shortName(username)}: every other device ends, and others have to accept your new identity key.`)
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  const code = await terminal.question('Recovery code: ')
  terminal.close()
  say('Making keys …')
  try {
    await device.recover({ username, code, name: deviceName() })
  } catch (error) {
    if (error instanceof InvalidRecoveryCode)
      throw new Refusal('That is no recovery code: it has 22 letters, digits, - and _.')
    if (error instanceof RelayError && error.code === 'FORBIDDEN')
      throw new Refusal(
        `The relay knows no ${shortName(username)} with that code. A code works once, and a newer one makes it void.`,
      )
    throw new Refusal(`${sentenceOf(error)} Nothing is lost: begin again with the same code.`)
  }
}
