// A relay, or a sender, that mixes things up: what is not bound to its envelope is not shown. [P-2] [P-3] [P-5] [S-7.1]
import { randomBytes } from 'node:crypto'
import { uuidToBytes, uuidV7 } from '../../../../proto/ids.ts'
import { type Check, hold, same } from '../../check.ts'
import type { Lies, Person } from '../person.ts'
import type { Stage } from '../stage.ts'

/** Says something wrong and then something right: the first is acked and never shown. */
async function notShown(
  stage: Stage,
  lies: (conversation: string, bob: Person) => Promise<Lies> | Lies,
): Promise<string> {
  const { bob, conversation } = await stage.talk()
  await bob.say(conversation, 'WRONG', await lies(conversation, bob))
  await bob.say(conversation, 'right')
  await stage.shown(conversation, 'right')
  await stage.acked()
  for (const [id] of stage.relay.rooms.all)
    hold(!(await stage.texts(id)).includes('WRONG'), 'the wrong message not to be shown', 'it is')
  return 'acked and not shown; the next one was shown'
}

const scenario = (
  clauses: string[],
  title: string,
  lies: (stage: Stage) => Parameters<typeof notShown>[1],
): Check<Stage> => ({
  clauses,
  title,
  run: (stage) => notShown(stage, lies(stage)),
})

export const binding: Check<Stage>[] = [
  scenario(['P-2'], 'a plaintext without its 80 is refused', () => () => ({ end: 0x81 })),
  scenario(['P-3', 'P-3.1'], 'a Content of another conversation is refused', () => () => ({
    content: { conversationId: randomBytes(16) },
  })),
  scenario(['P-3', 'P-3.1'], 'a Content of another message is refused', () => () => ({
    content: { clientMessageId: uuidToBytes(uuidV7(Date.now())) },
  })),
  scenario(['P-3.2'], 'a Content of the future is refused', (stage) => () => ({
    content: { sentAtMs: stage.relay.now() + 3_600_000 },
  })),
  scenario(['P-3.2'], 'an envelope that says it is an hour older than its Content is refused', (stage) => () => ({
    envelope: (envelope) => {
      envelope.sentAtMs = stage.relay.now() - 3_600_000
    },
  })),
  scenario(['P-3.3', 'P-4'], 'a Content for other members is refused', () => () => ({
    content: { rosterHash: randomBytes(32) },
  })),
  scenario(['P-3.3', 'P-4'], 'a Content without a roster_hash is refused', () => () => ({
    content: { rosterHash: new Uint8Array(0) },
  })),
  {
    clauses: ['P-3.1'],
    title: 'a ciphertext moved to another conversation is refused',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const carol = stage.person()
      const group = await stage.conversation('group', [bob, carol])
      await stage.acked()
      await bob.say(conversation, 'for you alone', {
        envelope: (envelope) => {
          envelope.conversationId = uuidToBytes(group)
        },
      })
      await bob.say(conversation, 'next')
      await stage.shown(conversation, 'next')
      await stage.acked()
      for (const id of [group, conversation])
        hold(!(await stage.texts(id)).includes('for you alone'), 'it not to be shown', 'it is')
      return 'shown in neither'
    },
  },
  {
    clauses: ['P-3.4', 'Q-2.4'],
    title: 'a ciphertext under another sender’s name is refused',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const carol = stage.person()
      await bob.say(conversation, 'by bob', {
        envelope: (envelope) => {
          envelope.ciphertext!.senderUserId = uuidToBytes(carol.userId)
        },
      })
      await bob.say(conversation, 'next')
      await stage.acked()
      hold(!(await stage.texts(conversation)).includes('by bob'), 'it not to be shown', 'it is')
      return 'not shown'
    },
  },
  {
    clauses: ['S-7.1', 'P-3'],
    title: 'clear fields of an envelope are ignored; the sender’s word is inside',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      await bob.say(conversation, 'plainly', {
        envelope: (envelope) => {
          Object.assign(envelope.ciphertext!, {
            replyToMessageId: randomBytes(16),
            attachmentUrl: 'https://evil.example/a',
            thumbnailUrl: 'https://evil.example/b',
          })
        },
      })
      const shown = await stage.shown(conversation, 'plainly')
      hold(!JSON.stringify(shown).includes('evil.example'), 'none of the relay’s URLs', shown)
      await stage.acked()
      return 'shown without them'
    },
  },
  {
    clauses: ['P-5'],
    title: 'a resend of what was read is dropped',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const first = await bob.say(conversation, 'said once')
      await stage.shown(conversation, 'said once')
      await bob.say(conversation, 'said once', { content: { resendOf: first.ciphertext!.clientMessageId! } })
      await bob.say(conversation, 'next')
      await stage.shown(conversation, 'next')
      await stage.acked()
      same(
        (await stage.texts(conversation)).filter((each) => each === 'said once').length,
        1,
        'as count of such messages shown',
      )
      return 'shown once'
    },
  },
  {
    clauses: ['P-5', 'Q-6.3'],
    title: 'a resend of what could not be read is shown, once',
    async run(stage) {
      const { relay } = stage
      const { bob, conversation } = await stage.talk()
      const broken = await bob.device.write(conversation, 'at last')
      const content = Buffer.from(broken.ciphertext!.content!)
      content[content.length - 12]! ^= 1
      relay.deliver({ ...broken, ciphertext: { ...broken.ciphertext!, content } })
      await stage.acked()
      for (let at = 0; at < 2; at++)
        await bob.say(conversation, 'at last', { content: { resendOf: broken.ciphertext!.clientMessageId! } })
      await bob.say(conversation, 'next')
      await stage.shown(conversation, 'next')
      await stage.acked()
      same(
        (await stage.texts(conversation)).filter((each) => each === 'at last').length,
        1,
        'as count of such messages shown',
      )
      return 'shown once, of two resends'
    },
  },
  {
    clauses: ['V-2.3', 'P-3.3'],
    title: 'a message of a user whom no member added is not shown',
    async run(stage) {
      const { relay } = stage
      await stage.join()
      const [bob, carol, ghost] = [stage.person(), stage.person(), stage.person()]
      const conversation = await stage.conversation('group', [bob, carol])
      const room = relay.rooms.all.get(conversation)!
      relay.ghosts.set(conversation, [ghost.userId])
      relay.change(room, {
        change: 'members_added',
        actor: relay.device.userId,
        subjects: [ghost.userId],
        role: 0,
        signedChange: null,
      })
      // The ghost knows the roster as it is without the ghost.
      const { members } = room
      const before = { links: room.links }
      room.links = room.links.slice(0, 1)
      await ghost.say(conversation, 'I belong here')
      await bob.say(conversation, 'who said that?')
      room.links = before.links
      await stage.shown(conversation, 'who said that?')
      await stage.acked()
      hold(!(await stage.texts(conversation)).includes('I belong here'), 'the ghost’s message not to be shown', 'it is')
      return `not shown; ${members.length} members stayed`
    },
  },
]
