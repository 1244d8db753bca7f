// Every wrong variable gives one line that says what to change; no line repeats a secret.
import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { FETCH_RATES } from '../../keys/budget.ts'
import { CONFIGURATION, configurationPage } from '../../scripts/configuration.ts'
import { readConfig, StartError } from '../../server/config.ts'
import { usualRates } from '../../server/limits.ts'

const refusal = (env: Record<string, string>): string[] => {
  try {
    readConfig(env)
  } catch (error) {
    expect(error).toBeInstanceOf(StartError)
    return (error as StartError).message.split('\n')
  }
  throw new Error('was accepted')
}

test('without any variable the relay listens on this machine only and brings its own database', () => {
  const config = readConfig({}, false)
  expect(config).toMatchObject({ host: '127.0.0.1', port: 8080, databaseUrl: null, dataDir: './data' })
  expect(config).toMatchObject({ realm: 'http://localhost:8080', registration: 'open', issuer: null })
  expect(config.queue).toEqual({ maxMessages: 10_000, ttlMs: 30 * 24 * 3600 * 1000 })
  expect(config.log).toEqual({ level: 'info', format: 'json' })
  expect(readConfig({}, true).log.format).toBe('pretty')
})

test('the realm follows the port, an empty variable counts as unset', () => {
  expect(readConfig({ PORT: '9000', SEALPOST_REALM: '', HOST: '' }).realm).toBe('http://localhost:9000')
})

test.each([
  [{ PORT: 'http' }, /^PORT=http is not a whole number; for example PORT=8080$/],
  [{ PORT: '65536' }, /^PORT=65536 is not between 0 and 65535/],
  [{ SEALPOST_REGISTRATION: 'closed' }, /^SEALPOST_REGISTRATION=closed is not one of open, invite, issuer/],
  [{ SEALPOST_LOG_LEVEL: 'verbose' }, /^SEALPOST_LOG_LEVEL=verbose is not one of trace, debug/],
  [{ SEALPOST_METRICS_TOKEN: 'short' }, /^SEALPOST_METRICS_TOKEN is shorter than 16 characters/],
  [{ SEALPOST_REALM: 'chat.example.org' }, /^SEALPOST_REALM=chat\.example\.org is not a URL/],
  [{ SEALPOST_REALM: 'https://chat.example.org/' }, /ends with a slash/],
  [{ SEALPOST_QUEUE_MESSAGES: '999' }, /^SEALPOST_QUEUE_MESSAGES=999 is not between 1000/],
  [{ SEALPOST_ISSUER_ALGORITHMS: 'HS256' }, /^SEALPOST_ISSUER_ALGORITHMS=HS256 has an algorithm/],
  [{ WORKERS: '2' }, /^WORKERS=2 needs REDIS_URL, through which they know of each other; for example REDIS_URL=redis:/],
  [{ WORKERS: '0' }, /^WORKERS=0 is not between 1 and 256/],
  [
    { SEALPOST_GRACE_SECONDS: '9', SEALPOST_DRAIN_PAUSE_SECONDS: '5' },
    /^SEALPOST_DRAIN_PAUSE_SECONDS=5 is more than half of SEALPOST_GRACE_SECONDS=9;/,
  ],
  [{ SEALPOST_REGISTRATION: 'issuer' }, /^SEALPOST_REGISTRATION=issuer needs SEALPOST_ISSUER_URL/],
  [{ REDIS_URL: 'localhost:6379' }, /^REDIS_URL is not a list of URLs that start with redis:\/\/ or rediss:\/\/; for/],
  [{ REDIS_URL: 'redis://a,http://b' }, /^REDIS_URL is not a list of URLs/],
  [{ SEALPOST_REDIS_CLUSTER: 'yes' }, /^SEALPOST_REDIS_CLUSTER needs REDIS_URL/],
  [
    { REDIS_URL: 'redis://a,redis://b', SEALPOST_REDIS_CLUSTER: 'no' },
    /^SEALPOST_REDIS_CLUSTER=no does not fit several/,
  ],
  [{ SEALPOST_DATADIR: '/x' }, /^SEALPOST_DATADIR is not a variable of the relay; did you mean SEALPOST_DATA_DIR\?$/],
])('%o is one clear line', (env, line) => {
  const lines = refusal(env as Record<string, string>)
  expect(lines).toHaveLength(1)
  expect(lines[0]).toMatch(line)
})

test('several Redis URLs are a cluster, one is when it is said', () => {
  expect(readConfig({}).redis).toBe(null)
  expect(readConfig({ REDIS_URL: 'redis://a' }).redis).toEqual({ urls: ['redis://a'], cluster: false })
  const both = { REDIS_URL: 'rediss://:pw@a', SEALPOST_REDIS_CLUSTER: 'yes' }
  expect(readConfig(both).redis).toEqual({ urls: ['rediss://:pw@a'], cluster: true })
  expect(readConfig({ REDIS_URL: 'redis://a, redis://b' }).redis).toEqual({
    urls: ['redis://a', 'redis://b'],
    cluster: true,
  })
})

test('a wrong DATABASE_URL is named without its password', () => {
  const [line] = refusal({ DATABASE_URL: 'mysql://me:hunter2@host/db' })
  expect(line).toMatch(/^DATABASE_URL is not a URL that starts with postgres:\/\//)
  expect(line).not.toContain('hunter2')
})

test('all wrong variables are told at once', () => {
  expect(refusal({ PORT: 'x', SEALPOST_LOG_LEVEL: 'y', SEALPOST_NOPE: 'z' })).toHaveLength(3)
})

test('what Kubernetes sets for a service called sealpost is no mistake of the operator', () => {
  readConfig({
    SEALPOST_SERVICE_HOST: '10.0.0.1',
    SEALPOST_PORT: 'tcp://10.0.0.1:80',
    SEALPOST_PORT_80_TCP: 'tcp://10.0.0.1:80',
  })
  expect(refusal({ SEALPOST_PORT: '8080' })).toHaveLength(1)
})

test('an outside issuer needs only its URL', () => {
  expect(readConfig({ SEALPOST_ISSUER_URL: 'https://login.example.org' }).issuer).toEqual({
    issuer: 'https://login.example.org',
    audience: 'http://localhost:8080',
    algorithms: ['EdDSA', 'ES256', 'RS256'],
    jwksUrl: 'https://login.example.org/.well-known/jwks.json',
  })
})

test('docs/configuration.md is what `npm run configuration` writes', async () => {
  expect(await readFile(CONFIGURATION, 'utf8')).toBe(configurationPage())
})

test('limits: rates of both forms, several at once, none; each has its variable', () => {
  const { limits } = readConfig({})
  expect(limits.messages).toEqual([
    { burst: 10, everyMs: 100 },
    { burst: 100, everyMs: 600 },
  ])
  expect(limits.deliveries).toEqual([{ burst: 5000, everyMs: 2 }])
  expect(limits.lookups).toEqual([{ burst: 20, everyMs: 30_000 }])
  const set = readConfig({
    ...{ SEALPOST_LIMIT_MESSAGES: '3/d, 7+2/h', SEALPOST_LIMIT_DELIVERIES: 'off', SEALPOST_LIMIT_BUNDLES: '0' },
    SEALPOST_MAX_USER_CONNECTIONS: '0',
  })
  expect(set.limits).toMatchObject({ deliveries: [], bundles: [], registrations: limits.registrations })
  expect(set.limits.messages).toEqual([
    { burst: 3, everyMs: 28_800_000 },
    { burst: 7, everyMs: 1_800_000 },
  ])
  expect(set.maxUserConnections).toBe(Number.POSITIVE_INFINITY)
})

test.each(['10', '10/', '/s', '0/s', '10/week', '0+1/s', '10/s,', '1.5/s', '-1/s'])('a limit cannot be %s', (text) => {
  const [line] = refusal({ SEALPOST_LIMIT_MESSAGES: text })
  expect(line).toMatch(/is neither off nor of the form 10\/s or 5000\+500\/s; for example SEALPOST_LIMIT_MESSAGES=10/)
})

test('the rates of bundles and look-ups are those the protocol names, unless they are set [K-5] [U-4]', () => {
  expect(usualRates()).toMatchObject({
    bundles: [FETCH_RATES.caller],
    bundlesOfDevice: [FETCH_RATES.pairBundles],
    oneTimeKeys: [FETCH_RATES.pairOneTime],
    oneTimeKeysOfDevice: [FETCH_RATES.target],
  })
})
