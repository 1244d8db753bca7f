// Writes docs/configuration.md from the table in server/variables.ts: `npm run configuration`.
import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { LIMITS } from '../server/limits.ts'
import { VARIABLES } from '../server/variables.ts'

export const CONFIGURATION = fileURLToPath(new URL('../docs/configuration.md', import.meta.url))

/** The page as it should be. */
export function configurationPage(): string {
  const rows = Object.entries(VARIABLES).map(
    ([name, { about, unset, example }]) => `| \`${name}\` | ${about} | ${unset} | \`${example}\` |`,
  )
  const limits = Object.values(LIMITS).map(
    ({ variable, about, unset, whenGone, why }) =>
      `| \`${variable}\` | ${about} | \`${unset}\` | ${whenGone} | ${why} |`,
  )
  return `# Configuration

Environment variables are all there is; without any, \`npm start\` works. \`PORT\`, \`HOST\`, \`DATABASE_URL\`, \`REDIS_URL\` and \`WORKERS\` have the names they have everywhere,
everything else starts with \`SEALPOST_\`. An empty variable counts as unset. A wrong value, or an unknown \`SEALPOST_\` variable, is one line on stderr and exit code 1.

This page is written by \`npm run configuration\` from \`server/variables.ts\`.

| variable | is | unset | example |
|---|---|---|---|
${rows.join('\n')}

## Limits

How often something may be done. \`10/s\` is 10 at once and 10 more a second, \`5000+500/s\` 5,000 at once and 500 more a second; several by comma count all; \`off\` or 0
does not limit. What is above a limit is answered RATE_LIMITED with the time after which it would pass. On one node the relay counts by itself; with \`REDIS_URL\` all nodes
count together, and while Redis is away a limit fails open (each node counts alone, so n nodes allow n times as much) or closed (refused with UNAVAILABLE, or as it says).

| variable | counts | unset | without Redis | because |
|---|---|---|---|---|
${limits.join('\n')}
`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFile(CONFIGURATION, configurationPage())
