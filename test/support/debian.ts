// What a test needs of the machine beyond npm, with a word on stderr: once about what is installed for it, or why it is left out.
import { type Obtained, obtain as obtainFor, type Wanted } from '../../scripts/debian.ts'

export { INSTALL_MAX_MS, type Obtained, program, type Wanted } from '../../scripts/debian.ts'

/** Finds it, or installs it first where the tests may: as root on a Debian. */
export async function obtain<T>(wanted: Wanted<T>): Promise<Obtained<T>> {
  const obtained = await obtainFor(wanted, (line) => process.stderr.write(`tests: ${line}\n`))
  if (obtained.missing !== null) process.stderr.write(`tests left out: ${obtained.missing}\n`)
  return obtained
}
