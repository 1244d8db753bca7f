// Usernames as people type and see them: `alice` is short for alice.01; other numbers are shown.

const USUAL = '.01'
const NICK = /^[a-z_][a-z0-9_]{2,31}$/
const FULL = /^[a-z_][a-z0-9_]{2,31}\.\d{2,9}$/

/** The whole username that was meant; null when it cannot be one. */
export function fullName(typed: string): string | null {
  const name = typed.replace(/^@/, '').toLowerCase()
  if (NICK.test(name)) return name + USUAL
  return FULL.test(name) ? name : null
}

/** As it is shown. */
export const shortName = (username: string): string =>
  username.endsWith(USUAL) ? username.slice(0, -USUAL.length) : username

/** What a username looks like, for people who typed something else. */
export const NAME_RULE =
  'a username has 3 to 32 letters, digits and _, begins with a letter, and may end in a number: alice or alice.42'
