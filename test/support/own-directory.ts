// A process that claims the directory of its first argument when it gets SIGUSR2, and says how that went.
import { claimDirectory } from '../../server/ownership.ts'

process.on('SIGUSR2', () => {
  claimDirectory(process.argv[2]!).then(
    () => process.stdout.write('owner\n'),
    (error: Error) => process.stdout.write(`${error.name}: ${error.message}\n`),
  )
})
process.stdout.write('ready\n')
setInterval(() => {}, 1000)
