// A device on Node: registers once, says hello to a user, prints what comes. `node --import tsx client/examples/chat.ts <url> <realm> <file> [user id]`
import { Device } from '../index.ts'
import { libsignal, SqliteStorage, wsTransport } from '../node.ts'

const [url = 'http://localhost:8080', realm = url, file = 'device.db', peer] = process.argv.slice(2)

const device = new Device({
  url,
  realm,
  transport: wsTransport(),
  storage: new SqliteStorage(file),
  crypto: libsignal(),
})

device.on('state', (state) => process.stdout.write(`[${state.name}]\n`))
device.on('message', (message) => {
  process.stdout.write(`${message.senderUserId}: ${message.body.text ?? ''}\n`)
  device.markRead(message.conversationId)
})
device.on('message_changed', (message) => process.stdout.write(`${message.id} is ${message.state}\n`))
device.on('typing', ({ userId, isTyping }) => process.stdout.write(`${userId} ${isTyping ? 'is' : 'stopped'} typing\n`))
device.on('identity_changed', ({ userId }) =>
  process.stdout.write(`${userId} has another key: compare ${device.safetyNumber(userId)}\n`),
)

if (!device.isRegistered) await device.register({ name: 'example' })
process.stdout.write(`I am ${device.userId}\n`)
device.connect()

if (peer) {
  const conversation = await device.conversations.direct(peer)
  // Stored before it is sent: what follows may fail, restart or be offline.
  device.send(conversation, { text: 'hello' })
}
