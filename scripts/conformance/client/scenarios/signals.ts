// Typing, read marks and status, as a client has to take them. [G-1] [G-3]
import { uuidToBytes } from '../../../../proto/ids.ts'
import { type Check, hold, same } from '../../check.ts'
import type { Stage } from '../stage.ts'

/** Who writes in a conversation, as the client shows it. */
async function writing(stage: Stage, conversation: string): Promise<string[]> {
  return (await stage.call('typing', { conversation_id: conversation })).user_ids
}

export const signals: Check<Stage>[] = [
  {
    clauses: ['G-1.3', 'G-1'],
    title: 'the display of typing ends 6 s after the last word of it, and when a message comes',
    async run(stage) {
      stage.needs('typing')
      const { bob, conversation } = await stage.talk()
      const types = (isTyping = true): void =>
        stage.relay.say({
          typing: { conversationId: uuidToBytes(conversation), isTyping, userId: uuidToBytes(bob.userId), deviceId: 1 },
        })
      const shown = async (wanted: string[]) =>
        stage.until(
          async () => JSON.stringify(await writing(stage, conversation)) === JSON.stringify(wanted),
          `${wanted.length} to be shown as writing`,
        )
      types()
      await shown([bob.userId])
      await stage.pass(5000)
      types()
      await shown([bob.userId])
      await stage.pass(7000)
      await shown([])
      types()
      await shown([bob.userId])
      await bob.say(conversation, 'here it is')
      await stage.shown(conversation, 'here it is')
      await shown([])
      types()
      types(false)
      await shown([])
      return 'ended by time, by a message and by the stop'
    },
  },
  {
    clauses: ['G-3.3', 'G-3'],
    title: 'numbers of a message only grow, whatever order updates come in',
    async run(stage) {
      const { bob, conversation } = await stage.talk()
      const sent = await stage.say(conversation, 'read me')
      const update = (delivered: number, read: number): void =>
        stage.relay.say({
          statusUpdate: {
            messages: [{ messageId: sent.messageId, conversationId: uuidToBytes(conversation), delivered, read }],
          },
        })
      const stateOf = async (): Promise<string> =>
        (await stage.messages(conversation)).find((each) => each.text === 'read me')!.state
      update(1, 1)
      await stage.pass(1000)
      const before = await stateOf()
      update(1, 0)
      update(0, 0)
      await bob.say(conversation, 'done')
      await stage.shown(conversation, 'done')
      const after = await stateOf()
      same(after, before, 'after older numbers came, as state')
      hold(['sent', 'delivered', 'read'].includes(after), 'a state of a sent message', after)
      return `${before}, and still ${after}`
    },
  },
]
