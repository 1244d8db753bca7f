// The command line. The only importer of commander.
import { join } from 'node:path'
import { Command, Option } from 'commander'
import { fullName, NAME_RULE } from './usernames.ts'

/** What was asked for. url and realm are null where nothing was said. */
export type Options = {
  /** nick.NN */
  username: string
  /** Directory of the store. */
  data: string
  url: string | null
  realm: string | null
  start: 'usual' | 'link' | 'recover'
  invitation: string | null
}

type Flags = {
  as: string
  data?: string
  url?: string
  realm?: string
  link?: true
  recover?: true
  invitation?: string
}

const EXAMPLES = `
Examples:
  npm start                                  a relay, in one terminal
  npm run chat -- --as alice                 alice, in a second
  npm run chat -- --as bob                   bob, in a third; then type /chat alice
  npm run chat -- --as alice --link --data ./data/chat/alice-laptop
                                             another device of alice`

/** Reads them; ends the process with usage on stderr when they are wrong, and with the help when it was asked for. */
export function readOptions(argv: string[]): Options {
  const program = new Command('npm run chat --')
    .description('A messenger in the terminal: end-to-end encrypted, over a Sealpost relay.')
    .requiredOption('--as <username>', 'who you are: alice, short for alice.01, or alice.42')
    .option('--url <url>', 'the relay (default: the one used before, or http://localhost:8080)')
    .option('--realm <realm>', "the relay's SEALPOST_REALM (default: http://localhost and the relay's port)")
    .option('--data <directory>', 'where keys and messages are kept (default: ./data/chat/<username>)')
    .addOption(new Option('--link', 'become another device of an account that exists').conflicts('recover'))
    .option('--recover', 'begin anew with a recovery code, after every device was lost')
    .option('--invitation <code>', 'for relays that want one')
    .addHelpText('after', EXAMPLES)
    .allowExcessArguments(false)
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, '')) })
  const flags = program.parse(argv).opts<Flags>()
  const username = fullName(flags.as) ?? program.error(`--as ${flags.as}: ${NAME_RULE}`)
  const url = flags.url?.replace(/\/$/, '') ?? null
  if (url !== null && !/^https?:\/\/[^/]+$/.test(url))
    program.error(`--url ${url}: not the URL of a relay; for example http://localhost:8080`)
  return {
    username,
    data: flags.data ?? join('data', 'chat', flags.as.replace(/^@/, '').toLowerCase()),
    url,
    realm: flags.realm ?? null,
    start: flags.link ? 'link' : flags.recover ? 'recover' : 'usual',
    invitation: flags.invitation ?? null,
  }
}
