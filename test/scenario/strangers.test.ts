// Somebody nobody knows writes, or puts people into a group: what he may, what he is told, and how it ends. [V-6] I13
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sealpost } from '../../proto/generated/relay.js'
import { STRANGER_MAX_MESSAGES } from '../../proto/limits.ts'
import { Client, idOf, type ServerFrame, type Socket } from '../support/client.ts'
import { FakeTime } from '../support/faketime.ts'
import { type TestRelay, testRelay } from '../support/relay.ts'
import { must } from '../support/request.ts'
import { pass, progress, read, send, take, typing, unasked, watch } from '../support/signals.ts'

const { ErrorCode, Scope, Withheld } = sealpost.v1
const time = new FakeTime()
let relay: TestRelay
beforeAll(async () => {
  relay = await testRelay({ config: { strangers: 'ask' }, time })
})
afterAll(() => relay.close())

/** Ann, who writes; Bob, who does not know her. */
let ann: Client
let bob: Client
let direct = ''
let open: Socket[] = []
beforeEach(async () => {
  time.nowMs = Date.now()
  ;[ann, bob] = await Promise.all([Client.register(relay), Client.register(relay)])
  direct = await ann.direct(bob)
  return async () => {
    await Promise.all(open.map((each) => each.close()))
    open = []
  }
})
const live = async (client: Client): Promise<Socket> => {
  const socket = await client.live()
  open.push(socket)
  return socket
}
const accept = (client: Client, id: string) => client.post(`/v1/conversations/${id}/accept`)
const view = async (client: Client, id: string) => must(await client.get(`/v1/conversations/${id}`)).body
const stateOf = async (client: Client, id: string): Promise<string> => (await view(client, id)).state
const codeOf = ({ error }: ServerFrame) => error?.code ?? null
const mismatchOf = ({ error }: ServerFrame) => ({
  missing: (error?.deviceMismatch?.missing ?? []).map((each) => idOf(each.userId)),
  extra: (error?.deviceMismatch?.extra ?? []).map((each) => idOf(each.userId)),
})

describe('a direct conversation waits for the other one [V-6.1]', () => {
  it('is pending for whom it was made with, and both can see so', async () => {
    expect([await stateOf(ann, direct), await stateOf(bob, direct)]).toEqual(['active', 'pending'])
    const { members } = await view(ann, direct)
    expect(members.map((each: { state: string }) => each.state).sort()).toEqual(['active', 'pending'])
    const { body } = must(await bob.get('/v1/conversations'))
    expect(body.conversations).toMatchObject([{ conversation_id: direct, state: 'pending' }])
  })

  it('an answer accepts it', async () => {
    const [a, b] = [await live(ann), await live(bob)]
    await send(a, direct, bob)
    await take(b)
    await send(b, direct, ann)
    expect(await stateOf(bob, direct)).toBe('active')
    for (let i = 0; i < STRANGER_MAX_MESSAGES; i++) await send(a, direct, bob)
  })

  it.each([
    ['what devices say by themselves', () => [[ann.to()], { scope: Scope.SCOPE_SUBSET }] as const],
    [
      'a message of which nothing is for the other one',
      () =>
        [
          [{ ...ann.to(), content: undefined!, ciphertextType: 0, withheld: Withheld.WITHHELD_UNTRUSTED_IDENTITY }],
          {},
        ] as const,
    ],
  ])('%s does not', async (_, message) => {
    const b = await live(bob)
    const [to, more] = message()
    expect((await b.send(direct, [...to], more)).messageAccepted).toBeTruthy()
    expect(await stateOf(bob, direct)).toBe('pending')
  })

  it('what his devices say by themselves meanwhile is answered as ever and stored for his own: it would tell who is there', async () => {
    const [more, a] = [await bob.link(), await live(ann)]
    const [b, b2] = [await live(bob), await live(more)]
    const asSubset = { scope: Scope.SCOPE_SUBSET }
    const first = (await b.send(direct, [ann.to(), more.to()], asSubset)).messageAccepted
    expect(first).toMatchObject({ duplicate: false, skipped: [] })
    expect((await b2.next('envelope')).messageId).toEqual(first!.messageId)
    await a.fence()
    expect(a.envelopes()).toEqual([])
    must(await accept(bob, direct))
    expect((await a.next('envelope')).systemEvent?.memberAccepted).toBeTruthy()
    expect((await b.send(direct, [ann.to()], asSubset)).messageAccepted).toBeTruthy()
    expect((await a.next('envelope')).ciphertext).toBeTruthy()
  })

  it('a word does: both are told, again changes nothing', async () => {
    const [a, b] = [await live(ann), await live(bob)]
    const revision = (await view(bob, direct)).revision
    expect(await accept(bob, direct)).toMatchObject({ status: 200, body: { conversation_id: direct, revision } })
    for (const socket of [a, b]) {
      const { systemEvent, conversationId } = await socket.next('envelope')
      expect(idOf(systemEvent?.memberAccepted?.userId)).toBe(bob.userId)
      expect(idOf(conversationId)).toBe(direct)
    }
    expect((await accept(bob, direct)).status).toBe(200)
    expect((await accept(ann, direct)).status).toBe(200)
    for (const socket of [a, b]) {
      await socket.fence()
      expect(socket.envelopes()).toEqual([])
    }
  })

  it('is not accepted by strangers, of whom nobody says whether it exists (I13); nor when it is archived', async () => {
    const eve = await Client.register(relay)
    const [real, none] = [await accept(eve, direct), await accept(eve, randomUUID())]
    expect(real).toEqual(none)
    expect(real.status).toBe(404)
    must(await ann.post(`/v1/conversations/${direct}/archive`))
    expect(await accept(bob, direct)).toMatchObject({ status: 403 })
  })
})

describe('until then [V-6.2] [V-6.3]', () => {
  it('ten messages are taken, of all devices together, and the eleventh refused; a repeat is answered as ever', async () => {
    const more = await ann.link()
    const [a, a2, b] = [await live(ann), await live(more), await live(bob)]
    const first = sealpost.v1.SignalMessage.create({
      clientMessageId: Buffer.from(randomUUID().replaceAll('-', ''), 'hex'),
    })
    const repeat = () => a.send(direct, [bob.to(), more.to()], { clientMessageId: first.clientMessageId })
    const answer = (await repeat()).messageAccepted!
    for (let i = 1; i < STRANGER_MAX_MESSAGES; i++) {
      const [from, other] = i % 2 ? [a2, ann] : [a, more]
      expect((await from.send(direct, [bob.to(), other.to()])).messageAccepted).toBeTruthy()
    }
    for (const [from, other] of [
      [a, more],
      [a2, ann],
    ] as const)
      expect(codeOf(await from.send(direct, [bob.to(), other.to()]))).toBe(ErrorCode.ERROR_CODE_FORBIDDEN)
    expect((await repeat()).messageAccepted).toEqual({ ...answer, duplicate: true })
    await b.fence()
    expect(b.envelopes()).toHaveLength(STRANGER_MAX_MESSAGES)
    // One's own devices hear each other all the same, and what was refused cost nothing once he accepts.
    expect((await a.send(direct, [more.to()], { scope: Scope.SCOPE_SUBSET })).messageAccepted).toBeTruthy()
    must(await accept(bob, direct))
    expect((await a.send(direct, [bob.to(), more.to()])).messageAccepted).toBeTruthy()
  })

  it('many at once are no more than ten', async () => {
    const a = await live(ann)
    const answers = await Promise.all(Array.from({ length: 15 }, () => a.send(direct, [bob.to()])))
    expect(answers.filter((each) => each.messageAccepted)).toHaveLength(STRANGER_MAX_MESSAGES)
    expect(answers.map(codeOf).filter((each) => each === ErrorCode.ERROR_CODE_FORBIDDEN)).toHaveLength(5)
  })

  it('ending it and beginning another gives no more of them', async () => {
    const a = await live(ann)
    for (let i = 0; i < 6; i++) await send(a, direct, bob)
    must(await ann.post(`/v1/conversations/${direct}/archive`))
    const again = await ann.direct(bob)
    expect(again).not.toBe(direct)
    for (let i = 6; i < STRANGER_MAX_MESSAGES; i++) await send(a, again, bob)
    expect(codeOf(await a.send(again, [bob.to()]))).toBe(ErrorCode.ERROR_CODE_FORBIDDEN)
  })

  it('neither is shown whether the other writes, is there, has it or has read it', async () => {
    const [a, b] = [await live(ann), await live(bob)]
    const message = await send(a, direct, bob)
    expect(await take(b)).toEqual(message)
    await read(b, direct, message)
    b.write(typing(direct))
    a.write(typing(direct))
    expect(await watch(a, bob)).toEqual({ [bob.userId]: false })
    expect(await watch(b, ann)).toEqual({ [ann.userId]: false })
    await pass(time, 3_000)
    expect(await progress(a, message)).toEqual({ [idOf(message)]: '0/0' })
    for (const kind of ['typing', 'presence', 'statusUpdate'] as const) expect(await unasked(a, kind)).toEqual([])
    expect(await unasked(b, 'typing')).toEqual([])

    must(await accept(bob, direct))
    await pass(time, 2_000)
    expect(await progress(a, message)).toEqual({ [idOf(message)]: '1/1' })
    expect(await watch(a, bob)).toEqual({ [bob.userId]: true })
    b.write(typing(direct))
    await b.fence()
    expect(idOf((await a.next('typing')).userId)).toBe(bob.userId)
  })
})

describe('a group [V-6.4] [V-6.5]', () => {
  let cy: Client
  let group = ''
  /** Bob knows Ann, Cy does not. */
  beforeEach(async () => {
    cy = await Client.register(relay)
    must(await accept(bob, direct))
    group = await ann.group([bob, cy])
  })

  it('has those who know its maker at once, and invites the others', async () => {
    const { members } = await view(ann, group)
    const states = Object.fromEntries(
      members.map((each: { user_id: string; state: string }) => [each.user_id, each.state]),
    )
    expect(states).toEqual({ [ann.userId]: 'active', [bob.userId]: 'active', [cy.userId]: 'invited' })
    expect(await stateOf(cy, group)).toBe('invited')
  })

  it('has who blocks its maker as it had without the block: the state of a member is seen by all', async () => {
    must(await bob.put(`/v1/blocks/${ann.userId}`, {}))
    const other = await ann.group([bob, cy])
    expect([await stateOf(bob, other), await stateOf(cy, other)]).toEqual(['active', 'invited'])
    must(await ann.delete(`/v1/conversations/${other}/members/${bob.userId}`))
    must(await ann.post(`/v1/conversations/${other}/members`, { user_ids: [bob.userId] }))
    expect(await stateOf(bob, other)).toBe('active')
  })

  it('an invitation by somebody its user blocks is in no list while the block lasts; another admin may still invite [V-7.1]', async () => {
    const listed = async () =>
      must(await cy.get('/v1/conversations')).body.conversations.map(
        (each: { conversation_id: string }) => each.conversation_id,
      )
    expect(await listed()).toEqual([group])
    must(await cy.put(`/v1/blocks/${ann.userId}`, {}))
    expect(await listed()).toEqual([])
    expect(await stateOf(cy, group)).toBe('invited')
    const { members } = await view(ann, group)
    expect(members).toContainEqual(expect.objectContaining({ user_id: cy.userId, state: 'invited' }))
    must(await cy.delete(`/v1/blocks/${ann.userId}`))
    expect(await listed()).toEqual([group])
    must(await cy.put(`/v1/blocks/${ann.userId}`, {}))
    must(await ann.patch(`/v1/conversations/${group}/members/${bob.userId}`, { role: 'admin' }))
    must(await bob.delete(`/v1/conversations/${group}/members/${cy.userId}`))
    must(await bob.post(`/v1/conversations/${group}/members`, { user_ids: [cy.userId] }))
    expect(await listed()).toEqual([group])
    must(await accept(cy, group))
    must(await cy.put(`/v1/blocks/${bob.userId}`, {}))
    expect(await listed()).toEqual([group])
  })

  it('whoever is invited gets the event of it and nothing else, and is in no device set', async () => {
    const [a, b] = [await live(ann), await live(bob)]
    const c = await cy.connect()
    open.push(c)
    expect(codeOf(await a.send(group, [bob.to(), cy.to()]))).toBe(ErrorCode.ERROR_CODE_DEVICE_MISMATCH)
    expect(mismatchOf(await a.send(group, [bob.to(), cy.to()]))).toEqual({ missing: [], extra: [cy.userId] })
    await send(a, group, bob)
    a.write(typing(group))
    await a.fence()
    await b.next('typing')
    must(await ann.patch(`/v1/conversations/${group}`, { name: 'another' }))
    const events = await c.drain()
    expect(events.map((each) => each.systemEvent?.conversationChanged?.change)).toEqual([
      sealpost.v1.ConversationChange.CONVERSATION_CHANGE_CREATED,
    ])
    expect(await unasked(c, 'typing')).toEqual([])
    for (const refused of [await c.send(group, []), await c.ask(typing(group))])
      expect(codeOf(refused)).toBe(ErrorCode.ERROR_CODE_FORBIDDEN)
    expect((await cy.patch(`/v1/conversations/${group}`, { name: 'mine' })).status).toBe(403)
  })

  it('accepting makes a member: all are told, and the next send must have the devices', async () => {
    const [a, c] = [await live(ann), await live(cy)]
    must(await accept(cy, group))
    for (const socket of [a, c]) {
      const { systemEvent } = await socket.next('envelope')
      expect(idOf(systemEvent?.memberAccepted?.userId)).toBe(cy.userId)
    }
    expect(mismatchOf(await a.send(group, [bob.to()]))).toEqual({ missing: [cy.userId], extra: [] })
    await send(a, group, bob, cy)
    expect((await c.next('envelope')).ciphertext).toBeTruthy()
    expect((await c.send(group, [ann.to(), bob.to()])).messageAccepted).toBeTruthy()
  })

  it('declining is leaving, and an admin may take an invitation back; who left is asked anew', async () => {
    must(await cy.delete(`/v1/conversations/${group}/members/${cy.userId}`))
    expect((await cy.get(`/v1/conversations/${group}`)).status).toBe(403)
    must(await ann.post(`/v1/conversations/${group}/members`, { user_ids: [cy.userId] }))
    expect(await stateOf(cy, group)).toBe('invited')
    expect((await ann.patch(`/v1/conversations/${group}/members/${cy.userId}`, { role: 'admin' })).status).toBe(409)
    must(await ann.delete(`/v1/conversations/${group}/members/${cy.userId}`))
    expect((await accept(cy, group)).status).toBe(403)
  })

  it('who declined is out, whatever an admin still takes out of the chain; keys of who signed in it stay', async () => {
    const bundles = async (who: Client, of: Client): Promise<number> =>
      must(await who.post('/v1/keys/bundles', { targets: [{ user_id: of.userId, device_id: 1 }] })).body.bundles.length
    must(await cy.delete(`/v1/conversations/${group}/members/${cy.userId}`))
    expect(await bundles(ann, cy)).toBe(0)
    must(await ann.delete(`/v1/conversations/${group}/members/${cy.userId}`))
    expect((await ann.delete(`/v1/conversations/${group}/members/${cy.userId}`)).status).toBe(404)
    expect(await bundles(ann, cy)).toBe(0)
    must(await ann.patch(`/v1/conversations/${group}/members/${bob.userId}`, { role: 'admin', signed_change: 'AAAA' }))
    must(await ann.delete(`/v1/conversations/${group}/members/${ann.userId}`))
    must(await ann.post(`/v1/conversations/${direct}/archive`))
    expect(await bundles(bob, ann)).toBe(1)
  })

  it('who signed in the chain stays known when he left, is invited again and declines', async () => {
    const bundles = async (): Promise<number> =>
      must(await bob.post('/v1/keys/bundles', { targets: [{ user_id: ann.userId, device_id: 1 }] })).body.bundles.length
    must(await ann.patch(`/v1/conversations/${group}/members/${bob.userId}`, { role: 'admin', signed_change: 'AAAA' }))
    must(await ann.delete(`/v1/conversations/${group}/members/${ann.userId}`))
    must(await ann.post(`/v1/conversations/${direct}/archive`))
    time.nowMs += 1000
    must(await bob.post(`/v1/conversations/${group}/members`, { user_ids: [ann.userId] }))
    expect(await stateOf(ann, group)).toBe('invited')
    expect(await bundles()).toBe(1)
    must(await ann.delete(`/v1/conversations/${group}/members/${ann.userId}`))
    expect(await bundles()).toBe(1)
  })

  it('a member of a shared group is known: no invitation', async () => {
    must(await accept(cy, group))
    const other = await cy.group([ann, bob])
    expect(await stateOf(bob, other)).toBe('active')
  })
})

describe('what strangers put into a queue [V-6.6]', () => {
  it('at most 20 deliveries of one wait for a device, whatever he does; acked ones count no more', async () => {
    const group = await ann.group([bob, await Client.register(relay)])
    const again = async (): Promise<void> => {
      must(await ann.delete(`/v1/conversations/${group}/members/${bob.userId}`))
      must(await ann.post(`/v1/conversations/${group}/members`, { user_ids: [bob.userId] }))
    }
    for (let i = 0; i < 12; i++) await again()
    // All his messages are taken all the same: a refusal would tell that his events wait there, and so that nobody blocks him.
    const a = await live(ann)
    for (let i = 0; i < STRANGER_MAX_MESSAGES; i++) await send(a, direct, bob)
    expect(codeOf(await a.send(direct, [bob.to()]))).toBe(ErrorCode.ERROR_CODE_FORBIDDEN)
    await again()
    const b = await bob.connect()
    open.push(b)
    expect(await b.drain()).toHaveLength(20)
    expect(await stateOf(bob, group)).toBe('invited')
    await again()
    expect(await b.next('envelope')).toBeTruthy()
  })
})
