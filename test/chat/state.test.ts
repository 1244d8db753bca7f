// The messenger's state: a pure function of what happened, without terminal, device or relay.
import { describe, expect, it } from 'vitest'
import type { Message } from '../../client/index.ts'
import { EMPTY, edit, textOf } from '../../scripts/chat/editor.ts'
import { labelOf, mention, titleOf } from '../../scripts/chat/labels.ts'
import { layoutOf, maxScroll } from '../../scripts/chat/layout.ts'
import { memberNews } from '../../scripts/chat/membership.ts'
import { type Chat, failedIn, openChat, type State } from '../../scripts/chat/model.ts'
import { type Event, initial, reduce } from '../../scripts/chat/state.ts'
import { widthOf } from '../../scripts/chat/text.ts'
import { clockOf, markOf, transcript } from '../../scripts/chat/transcript.ts'

const [ME, BOB, CAROL] = ['me', 'bob', 'carol'].map((name) => `${name}-id`) as [string, string, string]
const NOON = new Date(2026, 2, 3, 12, 0).getTime()

const given = (state: State, ...events: Event[]): State => events.reduce(reduce, state)

const chat = (id: string, more: Partial<Chat> = {}): Event => ({
  type: 'chat',
  chat: {
    ...{ id, kind: 'direct', name: null, ghosts: [], archived: false },
    members: [ME, BOB].map((userId) => ({ userId, role: 'member' as const })),
    ...more,
  },
})

const message = (text: string, more: Partial<Message> = {}): Message => ({
  ...{ id: text, messageId: `m-${text}`, conversationId: 'one', senderUserId: BOB, senderDeviceId: 1, sentAtMs: NOON },
  ...{ state: 'received', failure: '', body: { text }, withheld: false, audience: 0, delivered: 0, read: 0 },
  ...more,
})
const entry = (text: string, more: Partial<Message> = {}, chatId = 'one'): Event => ({
  type: 'entry',
  chatId,
  entry: { kind: 'message', message: message(text, { conversationId: chatId, ...more }) },
})

const named = (userId: string, username: string, isChecked = true): Event => ({
  type: 'person',
  userId,
  change: { username, isChecked },
})

const start = initial({ userId: ME, deviceId: 1, username: 'me.01' }, 'relay.test', NOON)
const talking = given(start, chat('one'), named(BOB, 'bob.01'), { type: 'open', chatId: 'one' })
const lines = (state: State, id = 'one', cells = 58): string[] =>
  transcript(state, state.chats.find((each) => each.id === id)!, cells).map((line) =>
    line.map(({ text }) => text).join(''),
  )

describe('conversations', () => {
  it('come latest first, each once; what comes late for one that is gone changes nothing', () => {
    const state = given(
      start,
      chat('one'),
      chat('two'),
      entry('a', { sentAtMs: 1 }, 'one'),
      entry('b', { sentAtMs: 2 }, 'two'),
    )
    expect(state.chats.map(({ id }) => id)).toEqual(['two', 'one'])
    expect(given(state, entry('c', { sentAtMs: 3 }, 'one'), chat('one')).chats.map(({ id }) => id)).toEqual([
      'one',
      'two',
    ])
    expect(given(state, entry('x', {}, 'three'), { type: 'unread', chatId: 'three', unread: 1 })).toEqual(state)
    expect(given(state, { type: 'open', chatId: 'two' }, { type: 'gone', chatId: 'two' })).toMatchObject({ open: null })
  })

  it('a message that is there is changed in its place; history comes before it, once', () => {
    let state = given(talking, entry('a', { state: 'sending' }), entry('b'), entry('a', { state: 'sent' }))
    const texts = () => openChat(state)!.entries.map((each) => (each.kind === 'message' ? each.message.body.text : ''))
    expect(texts()).toEqual(['a', 'b'])
    expect(openChat(state)!.entries[0]).toMatchObject({ message: { state: 'sent' } })
    const old = ['o1', 'o2', 'a'].map((text) => ({ kind: 'message' as const, message: message(text) }))
    state = given(state, { type: 'history', chatId: 'one', entries: old, hasOlder: true })
    expect(texts()).toEqual(['o1', 'o2', 'a', 'b'])
    expect(openChat(state)!.hasOlder).toBe(true)
  })

  it('Tab goes round; each keeps its own draft', () => {
    let state = given(
      talking,
      chat('two'),
      { type: 'edit', edit: { do: 'insert', text: 'half' } },
      { type: 'move', by: 1 },
    )
    expect(state.open).toBe('two')
    expect(openChat(state)!.draft).toEqual(EMPTY)
    state = given(state, { type: 'move', by: 1 })
    expect(textOf(openChat(state)!.draft)).toBe('half')
    expect(given(state, { type: 'move', by: -1 }).open).toBe('two')
    expect(given(start, { type: 'move', by: 1 }).open).toBeNull()
  })

  it('who sends something is not typing any more, and nobody is on a lost connection', () => {
    const typing: Event = { type: 'typing', chatId: 'one', userId: BOB, isTyping: true }
    const state = given(talking, typing, typing)
    expect(openChat(state)!.typing).toEqual([BOB])
    expect(openChat(given(state, entry('there')))!.typing).toEqual([])
    expect(
      openChat(given(state, { type: 'connection', connection: { name: 'connecting' }, nowMs: 1 }))!.typing,
    ).toEqual([])
    expect(openChat(given(state, { ...typing, isTyping: false }))!.typing).toEqual([])
  })

  it('an offline connection counts down to the next try', () => {
    const state = given(talking, { type: 'connection', connection: { name: 'offline', retryInMs: 4000 }, nowMs: 1000 })
    expect(state).toMatchObject({ retryAtMs: 5000, nowMs: 1000 })
    expect(given(state, { type: 'tick', nowMs: 3000 }).nowMs).toBe(3000)
  })
})

describe('scrolling', () => {
  const long = given(talking, ...Array.from({ length: 60 }, (_, at) => entry(`line ${at}`)))

  it('ends at both ends, and again after the terminal has another size', () => {
    const top = given(long, { type: 'scroll', by: 1000 })
    expect(openChat(top)!.scroll).toBe(maxScroll(top, openChat(top)!))
    expect(openChat(given(top, { type: 'scroll', by: -1000 }))!.scroll).toBe(0)
    const tall = given(top, { type: 'size', columns: 100, rows: 200 })
    expect(openChat(tall)!.scroll).toBe(0)
  })

  it('whoever reads further up stays there when something comes', () => {
    const up = given(long, { type: 'scroll', by: 10 })
    expect(openChat(given(up, entry('news')))!.scroll).toBe(11)
    expect(openChat(given(up, entry('x '.repeat(100))))!.scroll).toBeGreaterThan(12)
    expect(openChat(given(long, entry('news')))!.scroll).toBe(0)
  })

  it('a page scrolls by itself, from its top, and goes with what replaces it', () => {
    const panel = { title: 'Help', lines: Array.from({ length: 100 }, (_, at) => ({ text: `${at}` })) }
    const state = given(long, { type: 'panel', panel }, { type: 'scroll', by: -5 })
    expect(state.panel!.scroll).toBe(5)
    expect(openChat(state)!.scroll).toBe(0)
    expect(given(state, { type: 'scroll', by: 99 }).panel!.scroll).toBe(0)
    expect(given(state, { type: 'move', by: 1 }).panel).toBeNull()
  })
})

describe('what is drawn', () => {
  it('a line says when, who and what; ticks stand behind the last word', () => {
    const own = (text: string, more: Partial<Message>) => entry(text, { senderUserId: ME, ...more })
    const state = given(talking, entry('hello'), own('hi', { state: 'sent' }), own('waits', { state: 'sending' }))
    const at = clockOf(NOON)
    expect(lines(state)).toEqual([
      '── Tuesday, 3 March ──'.replace(',', ''),
      `${at} bob hello`,
      `${at} you hi ✓`,
      `${at} you waits ◦`,
    ])
    const failed = given(state, own('gone', { state: 'failed', failure: 'unanswered' }))
    expect(lines(failed).slice(-2).join(' ')).toContain('not sent: the relay did not answer')
    expect(failedIn(openChat(failed)!).map(({ id }) => id)).toEqual(['gone'])
  })

  it.each([
    [{ state: 'sending' }, '◦', 'dim'],
    [{ state: 'sent', audience: 1 }, '✓', 'dim'],
    [{ state: 'sent', audience: 3, delivered: 2 }, '✓ 2/3', 'dim'],
    [{ state: 'delivered', audience: 3, delivered: 3 }, '✓✓', 'dim'],
    [{ state: 'delivered', audience: 3, delivered: 3, read: 1 }, '✓✓ 1/3', 'read'],
    [{ state: 'read', audience: 3, delivered: 3, read: 3 }, '✓✓', 'read'],
  ] as [Partial<Message>, string, string][])('%j is marked %s', (more, text, tone) => {
    expect(markOf(message('x', more), true)).toEqual({ text, tone })
    expect(markOf(message('x', more), false)!.text).toBe(tone === 'read' ? `${text} read` : text)
  })

  it('long words, wide characters and newlines break where they fit, and line up', () => {
    const state = given(
      talking,
      entry('你好世界'.repeat(20)),
      entry('x'.repeat(100)),
      entry('two\nlines'),
      entry('👨‍👩‍👧 '.repeat(30)),
    )
    for (const cells of [24, 37, 58]) {
      expect(Math.max(...lines(state, 'one', cells).map(widthOf))).toBeLessThanOrEqual(cells)
      expect(
        lines(state, 'one', cells).every((line) => line.startsWith('──') || /^(\d\d:\d\d bob | {10})/.test(line)),
      ).toBe(true)
    }
  })

  it('nobody can move the cursor, colour the rest or write backwards', () => {
    const state = given(talking, entry('a\x1b[31mred\x07 \u202eback\r\nnext'), named(BOB, 'bob.01'))
    expect(lines(state).join('\n')).not.toMatch(/[^\P{Cc}\n]|\u202e/u)
    expect(lines(state).at(-1)).toMatch(/^ +next$/)
  })

  it('what was not encrypted, and kinds that are not known, are said and not hidden', () => {
    const state = given(talking, entry('a', { withheld: true, body: {} }), entry('b', { body: {} }))
    expect(lines(state).join(' ')).toMatch(/not encrypted for this device[\s\S]*does not know/)
  })

  it('a reaction and an answer name what they are about', () => {
    const state = given(
      talking,
      entry('first'),
      entry('r', { body: { reaction: { messageId: 'm-first', emoji: '👍', removed: false } } }),
      entry('s', { body: { text: 'because', replyTo: 'm-unknown' } }),
    )
    expect(lines(state).join('\n')).toMatch(/reacted 👍 to “first”[\s\S]*↪ an earlier message\n +because/)
  })

  it('names: looked up, claimed, none, oneself; groups by name or by people', () => {
    const state = given(
      talking,
      named(CAROL, 'carol.42', false),
      chat('g', { kind: 'group', members: [ME, BOB, CAROL].map((userId) => ({ userId, role: 'member' as const })) }),
    )
    expect([ME, BOB, CAROL, 'abcdef99'].map((userId) => labelOf(state, userId))).toEqual([
      'you',
      'bob',
      'carol.42?',
      'unnamed-abcdef',
    ])
    const group = state.chats.find(({ id }) => id === 'g')!
    expect(titleOf(state, group)).toBe('bob, carol.42?')
    expect(titleOf(state, { ...group, name: 'Climbing' })).toBe('Climbing')
  })

  it('people in a kept text are called what they are called now', () => {
    const notice = {
      kind: 'notice' as const,
      id: '1',
      atMs: NOON,
      text: `${mention(CAROL)} joined`,
      tone: 'note' as const,
    }
    const state = given(talking, { type: 'entry', chatId: 'one', entry: notice })
    expect(lines(state).at(-1)).toMatch(/· unnamed-carol- joined$/)
    expect(lines(given(state, named(CAROL, 'carol.01'))).at(-1)).toMatch(/· carol joined$/)
  })

  it('rows add up at every size', () => {
    for (const columns of [24, 40, 59, 60, 80, 200])
      for (const rows of [8, 10, 24, 60]) {
        const state = given(
          talking,
          { type: 'size', columns, rows },
          { type: 'edit', edit: { do: 'insert', text: 'w '.repeat(200) } },
        )
        const { side, main, body, page, input } = layoutOf(state)
        expect(body + input + 4).toBe(rows)
        expect(side > 0 ? side + 2 + main : main + 1).toBe(columns)
        expect(page).toBeGreaterThan(0)
      }
  })

  it('news of a group: who came, who went, who is an admin now', () => {
    const group = (members: [string, 'member' | 'admin'][]): Chat => ({
      ...given(start, chat('g', { kind: 'group' })).chats[0]!,
      members: members.map(([userId, role]) => ({ userId, role })),
    })
    const before = group([
      [ME, 'admin'],
      [BOB, 'member'],
    ])
    expect(
      memberNews(
        before,
        group([
          [ME, 'member'],
          [CAROL, 'member'],
        ]),
      ),
    ).toEqual([`${mention(CAROL)} joined`, `${mention(BOB)} left`, `${mention(ME)}: no admin any more`])
    expect(memberNews(before, { ...before, archived: true })).toEqual(['the conversation was archived'])
  })
})

describe('the line that is typed', () => {
  const typed = (text: string, ...edits: Parameters<typeof edit>[1]['do'][]) =>
    edits.reduce(
      (draft, each) => edit(draft, { do: each } as Parameters<typeof edit>[1]),
      edit(EMPTY, { do: 'insert', text }),
    )

  it.each([
    ['ab👨‍👩‍👧', ['backspace'], 'ab', ''],
    ['añ', ['left', 'left', 'delete'], '', 'ñ'],
    ['one two', ['word_left'], 'one ', 'two'],
    ['one two', ['start', 'word_right'], 'one', ' two'],
    ['one two ', ['delete_word'], 'one ', ''],
    ['one\ntwo', ['start'], 'one\n', 'two'],
    ['one\ntwo', ['delete_to_start'], 'one\n', ''],
    ['one two', ['word_left', 'delete_to_end'], 'one ', ''],
    ['', ['backspace', 'delete', 'left', 'right', 'end'], '', ''],
  ] as [string, never[], string, string][])('%j after %j', (text, edits, before, rest) => {
    expect(typed(text, ...edits)).toEqual({ before, after: rest })
  })

  it('takes no more than can be sent', () => {
    expect(textOf(edit(typed('x'.repeat(20_000)), { do: 'insert', text: 'y' }))).toHaveLength(20_000)
  })
})
