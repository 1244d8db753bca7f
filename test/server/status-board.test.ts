// What a sender is told of his messages, when acks and read marks come in together. [G-3]
import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { StatusBoard } from '../../server/features/status-board.ts'

const [sender, conversationId, messageId] = [randomUUID(), randomUUID(), randomUUID()]

const seen = (board: StatusBoard) => {
  const { tell, count } = board.take(sender)
  return { tell: tell.map(({ delivered, read }) => ({ delivered, read })), count }
}

it('a delivery is told although a read mark is to be counted, which counts for nothing where receipts are off', () => {
  const board = new StatusBoard()
  expect(board.delivered(sender, messageId, conversationId, 1)).toBe(true)
  board.read(sender, conversationId, null, messageId)
  expect(seen(board)).toEqual({ tell: [{ delivered: 1, read: 0 }], count: [messageId] })
  expect(board.counted(sender, [{ messageId, conversationId, delivered: 1, read: 0 }])).toEqual([])
  expect(seen(board)).toEqual({ tell: [], count: [] })
})

it('a delivery is told although the message is being counted already', () => {
  const board = new StatusBoard()
  board.delivered(sender, messageId, conversationId, null)
  board.delivered(sender, messageId, conversationId, 1)
  expect(seen(board)).toEqual({ tell: [{ delivered: 1, read: 0 }], count: [messageId] })
})

it('what was counted is told once, and never less than before', () => {
  const board = new StatusBoard()
  const status = (delivered: number, read: number) => [{ messageId, conversationId, delivered, read }]
  board.delivered(sender, messageId, conversationId, null)
  expect(seen(board).count).toEqual([messageId])
  expect(board.counted(sender, status(2, 1))).toEqual(status(2, 1))
  expect(board.counted(sender, status(2, 1))).toEqual([])
  expect(board.counted(sender, status(1, 0))).toEqual([])
  expect(board.counted(sender, status(1, 2))).toEqual(status(1, 2))
})
