// The account resource. [H-4]
import { z } from 'zod'
import { type Route, route } from '../../proto/route.ts'
import type { Accounts } from '../accounts.ts'
import { ENROLMENT_MAX_BYTES, enrolledAnswer, enrolmentFields, toEnrolment } from './enrolment.ts'

const registration = z.strictObject({ ...enrolmentFields, invitation: z.string().max(64).nullish() })

/** `POST /v1/accounts`. */
export const accountRoutes = ({ accounts }: { accounts: Accounts }): Route[] => [
  route({
    method: 'POST',
    path: '/v1/accounts',
    summary: 'Register a user with its identity key and its first device.',
    auth: 'none',
    perAddress: 'registrations',
    body: registration,
    maxBodyBytes: ENROLMENT_MAX_BYTES,
    async handle({ body, bearer, nowMs }) {
      const permit = { invitation: body.invitation ?? null, outsideToken: bearer }
      return enrolledAnswer(await accounts.register(toEnrolment(body), permit, nowMs))
    },
  }),
]
