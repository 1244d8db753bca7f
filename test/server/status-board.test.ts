// What a sender is told of his messages, when acks and read marks come in together. [G-3]
import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { StatusBoard } from '../../server/features/status-board.ts'

const [sender, conversationId] = [randomUUID(), randomUUID()]
const id = (n: number): string => `01980000-0000-7000-8000-${String(n).padStart(12, '0')}`
const messageId = id(5)

const opened = (lastId = id(1)): StatusBoard => {
  const board = new StatusBoard()
  board.open(sender, lastId)
  return board
}

const seen = (board: StatusBoard) => {
  const { tell, count } = board.take(sender)
  return { tell: tell.map(({ delivered, read }) => ({ delivered, read })), count }
}

it('a delivery is told although a read mark is to be counted, which counts for nothing where receipts are off', () => {
  const board = opened()
  expect(board.delivered(sender, messageId, conversationId, 1)).toBe(true)
  board.read(sender, conversationId, null, messageId)
  expect(seen(board)).toEqual({ tell: [{ delivered: 1, read: 0 }], count: [messageId] })
  expect(board.counted(sender, [{ messageId, conversationId, delivered: 1, read: 0 }])).toEqual([])
  expect(seen(board)).toEqual({ tell: [], count: [] })
})

it('a delivery is told although the message is being counted already', () => {
  const board = opened()
  board.delivered(sender, messageId, conversationId, null)
  board.delivered(sender, messageId, conversationId, 1)
  expect(seen(board)).toEqual({ tell: [{ delivered: 1, read: 0 }], count: [messageId] })
})

it('what was counted is told once, and never less than before', () => {
  const board = opened()
  const status = (delivered: number, read: number) => [{ messageId, conversationId, delivered, read }]
  board.delivered(sender, messageId, conversationId, null)
  expect(seen(board).count).toEqual([messageId])
  expect(board.counted(sender, status(2, 1))).toEqual(status(2, 1))
  expect(board.counted(sender, status(2, 1))).toEqual([])
  expect(board.counted(sender, status(1, 0))).toEqual([])
  expect(board.counted(sender, status(1, 2))).toEqual(status(1, 2))
})

it('whoever may have read further on before he had it is counted: before the sender came, and in any conversation since', () => {
  const board = opened(id(3))
  for (const n of [3, 4]) board.delivered(sender, id(n), conversationId, 1)
  expect(seen(board)).toEqual({ tell: [{ delivered: 1, read: 0 }], count: [id(3)] })
  board.read(sender, randomUUID(), null, id(8))
  for (const n of [8, 9]) board.delivered(sender, id(n), conversationId, 1)
  expect(seen(board)).toEqual({ tell: [{ delivered: 1, read: 0 }], count: [id(8)] })
})

it('a mark concerns what lies between it and the one before, in its conversation', () => {
  const board = opened()
  for (const n of [2, 3, 4, 5]) board.delivered(sender, id(n), n === 3 ? randomUUID() : conversationId, 1)
  expect(seen(board).tell).toHaveLength(4)
  expect(board.read(sender, conversationId, id(2), id(4))).toBe(true)
  expect(seen(board)).toEqual({ tell: [], count: [id(4)] })
  expect(board.read(sender, conversationId, id(5), id(9))).toBe(false)
})

it('nothing is remembered of who is not connected, nor once he is gone', () => {
  const board = new StatusBoard()
  expect(board.delivered(sender, messageId, conversationId, 1)).toBe(false)
  expect(board.read(sender, conversationId, null, messageId)).toBe(false)
  board.asked(sender, [{ messageId, conversationId, delivered: 1, read: 1 }])
  expect([board.messages, seen(board)]).toEqual([0, { tell: [], count: [] }])
  board.open(sender, id(1))
  board.delivered(sender, messageId, conversationId, 1)
  expect(board.messages).toBe(1)
  board.forget(sender)
  expect([board.messages, seen(board)]).toEqual([0, { tell: [], count: [] }])
})

it('what one device of a sender was told when it asked is news to the others', () => {
  const board = opened()
  board.asked(sender, [{ messageId, conversationId, delivered: 1, read: 0 }])
  expect(seen(board)).toEqual({ tell: [], count: [] })
  expect(board.read(sender, conversationId, null, messageId)).toBe(true)
  expect(seen(board)).toEqual({ tell: [], count: [messageId] })
  const counted = [{ messageId, conversationId, delivered: 1, read: 0 }]
  expect(board.counted(sender, counted)).toEqual(counted)
})

it('memory is bounded, per sender and in all: the oldest goes. I10', () => {
  const board = opened()
  for (let n = 0; n < 1_000; n++) board.delivered(sender, id(100 + n), conversationId, 1)
  expect(board.messages).toBe(512)
  expect(board.take(sender).tell.map((each) => each.messageId)).toEqual(
    Array.from({ length: 512 }, (_, n) => id(588 + n)),
  )
  for (let user = 0; user < 400; user++) {
    const other = randomUUID()
    board.open(other, id(1))
    for (let n = 0; n < 600; n++) board.delivered(other, id(100 + n), conversationId, 1)
  }
  expect(board.messages).toBe(200_000)
})

it('the first to go is whoever got his first one first, however many connected before and have none. I10', () => {
  const board = opened()
  const [idle, later, first] = [randomUUID(), randomUUID(), randomUUID()]
  for (const each of [idle, later, first]) board.open(each, id(1))
  board.delivered(first, id(10), conversationId, 1)
  board.delivered(later, id(11), conversationId, 1)
  for (let user = 0; user < 391; user++) {
    const other = randomUUID()
    board.open(other, id(1))
    for (let n = 0; n < 512 && board.messages < 200_000; n++) board.delivered(other, id(100 + n), conversationId, 1)
  }
  board.delivered(sender, id(12), conversationId, 1)
  expect(board.take(first).tell).toEqual([])
  expect(board.take(later).tell).toHaveLength(1)
  // Who was forgotten begins anew behind the others.
  board.delivered(first, id(13), conversationId, 1)
  expect(board.take(first).tell).toHaveLength(1)
  expect(board.messages).toBe(200_000)
})
