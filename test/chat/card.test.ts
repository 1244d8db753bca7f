// What is drawn of strangers: a pure function of a state, at every size, without terminal, device or relay.
import { expect, it } from 'vitest'
import type { Message } from '../../client/index.ts'
import { layoutOf } from '../../scripts/chat/layout.ts'
import { footerOf, placeholderOf, titleLine } from '../../scripts/chat/lines.ts'
import { type Asked, type Line, NOTHING_ASKED, openChat, type State } from '../../scripts/chat/model.ts'
import { sideLines } from '../../scripts/chat/side.ts'
import { type Event, initial, reduce } from '../../scripts/chat/state.ts'
import { widthOf } from '../../scripts/chat/text.ts'
import { transcript } from '../../scripts/chat/transcript.ts'
import { welcome } from '../../scripts/chat/welcome.ts'

const [ME, BOB, CAROL] = ['me', 'bob', 'carol']
const start = initial({ userId: ME, deviceId: 1, username: 'me.01' }, 'relay.test', 0)

const given = (state: State, ...events: Event[]): State => events.reduce(reduce, state)
const chat = (id: string, users: string[], kind: 'direct' | 'group' = 'direct', archived = false): Event => ({
  type: 'chat',
  chat: {
    ...{ id, kind, name: null, ghosts: [], archived },
    members: users.map((userId) => ({ userId, role: 'member' })),
  },
})
const message = (chatId: string, senderUserId: string, sentAtMs: number, more: Partial<Message> = {}): Event => ({
  type: 'entry',
  chatId,
  entry: {
    kind: 'message',
    message: {
      ...{
        id: `${sentAtMs}`,
        messageId: `m${sentAtMs}`,
        conversationId: chatId,
        senderUserId,
        senderDeviceId: 1,
        sentAtMs,
      },
      ...{ state: senderUserId === ME ? 'sent' : 'received', failure: '', body: { text: `text ${sentAtMs}` } },
      ...{ withheld: false, audience: 0, delivered: 0, read: 0 },
      ...more,
    },
  },
})
const named = (userId: string, isChecked = true): Event => ({
  type: 'person',
  userId,
  change: { username: `${userId}.01`, isChecked },
})
const asked = (more: Partial<Asked>): Event => ({ type: 'asked', asked: { ...NOTHING_ASKED, ...more } })
const open = (chatId: string | null): Event => ({ type: 'open', chatId })

const plain = (lines: Line[]): string[] =>
  lines.map((line) =>
    line
      .map(({ text }) => text)
      .join('')
      .trimEnd(),
  )
const banner = (state: State): string =>
  plain(layoutOf(state).banner)
    .join('\n')
    .replaceAll(/\n {2}/g, ' ')
const side = (state: State): string[] => plain(sideLines(state, { side: 20, body: 19 }))

const request = given(
  start,
  named(BOB),
  chat('b', [ME, BOB]),
  message('b', BOB, 1),
  asked({ requests: { b: BOB } }),
  open('b'),
)
const invitation = given(
  start,
  ...[named(BOB), named(CAROL), chat('g', [BOB, CAROL, ME], 'group'), asked({ requests: { g: BOB } }), open('g')],
)

it('says who asks, what accepts, what ends it, what can be vouched for, and that nothing was told', () => {
  expect(banner(request)).toBe(
    [
      '? bob wants to talk to you. An answer accepts it, /join too. /decline ends it, which they see; /block hides them, and they cannot tell.',
      '· bob.01, looked up · not verified · no groups in common',
      '· Until you accept they are not told what arrived, what you read, when you write or are online.',
    ].join('\n'),
  )
  expect(plain([titleLine(request, openChat(request))])).toEqual(['bob · asks to talk'])
  expect(placeholderOf(request)).toBe('Answer to accept; /decline or /block')
  expect(footerOf(request)).toMatch(/^ Enter send and accept/)
})

it('an invitation cannot be answered, and says so', () => {
  expect(banner(invitation)).toMatch(
    /^\? bob invites you to a group of 3\. \/join accepts it.*\n· bob: bob\.01, looked up/,
  )
  expect(plain([titleLine(invitation, openChat(invitation))])).toEqual(['bob, carol · an invitation'])
  expect(placeholderOf(invitation)).toMatch(/^\/join to accept/)
  expect(footerOf(invitation)).toMatch(/^ \/join accept/)
  const own = given(invitation, message('g', ME, 2))
  expect(banner(own)).toContain('invites you')
})

it('an answer is the word that was waited for, also while it is on its way; one that failed is none', () => {
  const answers = (state: Message['state']) => banner(given(request, message('b', ME, 2, { state })))
  expect(answers('sending')).toBe('')
  expect(answers('sent')).toBe('')
  expect(answers('failed')).toContain('bob wants to talk to you.')
  expect(banner(given(request, asked({})))).toBe('')
})

it('names are claims until they were looked up; keys and groups are facts', () => {
  const facts = (...events: Event[]) => /\n· (.*)/.exec(banner(given(request, ...events)))![1]
  expect(facts(named(BOB, false))).toMatch(/^says to be bob\.01 · not verified/)
  expect(facts({ type: 'person', userId: BOB, change: { username: '' } })).toMatch(/^tells no name/)
  expect(facts({ type: 'person', userId: BOB, change: { isVerified: true } })).toMatch(/ · verified · /)
  expect(facts({ type: 'person', userId: BOB, change: { hasNewKey: true } })).toMatch(/another key than before/)
  const groups = ['g1', 'g2', 'g3'].flatMap((id): Event[] => [
    chat(id, [ME, BOB, CAROL], 'group'),
    {
      type: 'chat',
      chat: {
        id,
        kind: 'group',
        name: id,
        members: [ME, BOB].map((userId) => ({ userId, role: 'member' })),
        ghosts: [],
        archived: false,
      },
    },
  ])
  expect(facts(...groups.slice(0, 2))).toMatch(/with you in g1$/)
  expect(facts(...groups)).toMatch(/with you in g1, g2 and 1 more$/)
  // What one was only invited to, what is over, and where he is not, is nothing in common.
  expect(facts(...groups.slice(0, 2), asked({ requests: { b: BOB, g1: BOB } }))).toMatch(/no groups in common$/)
  expect(facts(chat('g1', [ME, BOB, CAROL], 'group', true))).toMatch(/no groups in common$/)
  expect(facts(chat('g1', [ME, CAROL, 'dave'], 'group'))).toMatch(/no groups in common$/)
})

it('nothing breaks at any size: what has little room says less, and the transcript stays in sight', () => {
  for (const each of [request, invitation])
    for (const columns of [24, 30, 40, 59, 60, 80, 200])
      for (const rows of [8, 10, 12, 16, 24, 60]) {
        const state = given(each, { type: 'size', columns, rows })
        const { main, body, page, banner } = layoutOf(state)
        const lines = plain(banner)
        expect(Math.max(...lines.map(widthOf))).toBeLessThanOrEqual(main)
        expect(lines[0]).toMatch(/^\? /)
        expect(1 + page + lines.length).toBeLessThanOrEqual(body)
        expect(page).toBeGreaterThanOrEqual(Math.min(6, Math.max(1, body - 3)))
        const typing = given(state, { type: 'edit', edit: { do: 'insert', text: '/' } })
        expect(plain(layoutOf(typing).banner)[0]).toMatch(/^\? /)
      }
  const narrow = banner(given(request, { type: 'size', columns: 40, rows: 24 }))
  for (const part of ['bob wants', 'An answer accepts', '/block', 'no groups', 'not told what arrived'])
    expect(narrow).toContain(part)
  expect(banner(given(request, { type: 'size', columns: 40, rows: 12 }))).toBe(
    '? A request: answer, /decline or /block',
  )
})

it('who asks stands apart and last, without a word of what was written, and takes no more than a third', () => {
  const carol = given(request, named(CAROL), chat('c', [ME, CAROL]), message('c', CAROL, 0), open('c'))
  const unread = given(carol, { type: 'unread', chatId: 'b', unread: 10 })
  expect(side(unread)).toEqual([' Conversations', '›  carol', ' Requests · 1', ' ? bob           10'])
  expect(side(unread).join()).not.toContain('text')
  expect(given(unread, { type: 'move', by: 1 }).open).toBe('b')
  expect(footerOf(unread)).toContain('Tab next ·')
  expect(footerOf(given(unread, { type: 'size', columns: 40, rows: 24 }))).toMatch(/^ Enter send · Tab next \(1 new\)/)
  // With the answer he is one of them.
  expect(side(given(unread, message('b', ME, 5)))).toEqual([' Conversations', '   bob           10', '›  carol'])

  const ids = Array.from({ length: 30 }, (_, at) => `${at}`.padStart(2, '0'))
  const many = given(
    start,
    ...ids.flatMap((id) => [chat(`t${id}`, [ME, `t${id}`]), chat(`r${id}`, [ME, `r${id}`])]),
    asked({ requests: Object.fromEntries(ids.map((id) => [`r${id}`, `r${id}`])) }),
  )
  const spammed = side(many)
  expect(spammed).toHaveLength(19)
  expect(spammed.indexOf(' Requests · 30')).toBe(13)
  expect(side(given(many, open('r17')))).toContain('›? unnamed-r17')
  expect(side(given(many, open('t17')))).toContain('›  unnamed-t17')
})

it('with nothing but requests the first screen says that a look tells nothing', () => {
  expect(plain(welcome(given(request, open(null)), 200)).join()).toMatch(
    /asks to talk to you: Tab shows it, and tells them nothing/,
  )
})

it('of whom one blocks: it is said in their conversation, their messages are hidden in groups, unwanted groups say so', () => {
  const talk = given(
    start,
    named(CAROL),
    named(BOB),
    chat('b', [ME, BOB]),
    message('b', BOB, 1),
    open('b'),
    asked({ blocked: [BOB] }),
  )
  expect(banner(talk)).toMatch(/^! You block bob.*\/unblock/)
  const group = given(
    talk,
    ...[
      chat('g', [BOB, CAROL, ME], 'group'),
      message('g', BOB, 2),
      message('g', CAROL, 3, { body: { text: 'fine', replyTo: 'm2' } }),
    ],
    ...[open('g'), asked({ blocked: [BOB], unwanted: { g: BOB } })],
  )
  expect(banner(group)).toMatch(/^! bob, whom you block, put you into this group\. \/leave leaves it\.$/)
  expect(side(group)[1]).toMatch(/^›# bob, carol +!$/)
  const words = (state: State) => plain(transcript(state, openChat(state)!, 58)).join('\n')
  expect(words(group)).toMatch(/bob.*\(of somebody you block\)[\s\S]*↪ an earlier message/)
  expect(words(group)).not.toContain('text 2')
  expect(words(given(group, asked({})))).toMatch(/text 2[\s\S]*↪ “text 2”/)
})

it('messages that stay sent are no riddle: whoever may be a stranger to the other one is told what that means', () => {
  const hint = '· If bob does not know you, ✓ is all you see until they accept.'
  const asking = given(start, named(BOB), chat('b', [ME, BOB]), open('b'))
  expect(banner(asking)).toBe('')
  expect(banner(given(asking, message('b', ME, 1, { state: 'sending' })))).toBe('')
  const sent = given(asking, message('b', ME, 1, { audience: 1 }))
  expect(banner(sent)).toBe(hint)
  expect(banner(given(sent, message('b', ME, 2, { state: 'failed', failure: 'FORBIDDEN' })))).toBe(hint)
  expect(banner(given(sent, message('b', BOB, 2)))).toBe('')
  expect(banner(given(sent, message('b', ME, 1, { audience: 1, delivered: 1, state: 'delivered' })))).toBe('')
  const why = (state: State) => plain(transcript(state, openChat(state)!, 200)).at(-1)
  const refused = given(sent, message('b', ME, 2, { state: 'failed', failure: 'FORBIDDEN' }))
  expect(why(refused)).toMatch(/not sent: they have not accepted yet/)
  const over = given(refused, chat('b', [ME, BOB], 'direct', true))
  expect(why(over)).toMatch(/not sent: the conversation is archived/)
  expect(banner(over)).toMatch(/archived\. \/chat bob begins another/)
})
