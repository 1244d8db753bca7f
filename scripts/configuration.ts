// Writes docs/configuration.md from the table of variables in server/config.ts: `npm run configuration`.
import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { VARIABLES } from '../server/config.ts'

export const CONFIGURATION = fileURLToPath(new URL('../docs/configuration.md', import.meta.url))

/** The page as it should be. */
export function configurationPage(): string {
  const rows = Object.entries(VARIABLES).map(
    ([name, { about, unset, example }]) => `| \`${name}\` | ${about} | ${unset} | \`${example}\` |`,
  )
  return `# Configuration

Environment variables are all there is; without any, \`npm start\` works. \`PORT\`, \`HOST\` and \`DATABASE_URL\` have the names every platform gives them, everything
else starts with \`SEALPOST_\`. An empty variable counts as unset. A wrong value, or an unknown \`SEALPOST_\` variable, is one line on stderr and exit code 1.

This page is written by \`npm run configuration\` from \`server/config.ts\`.

| variable | is | unset | example |
|---|---|---|---|
${rows.join('\n')}
`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFile(CONFIGURATION, configurationPage())
