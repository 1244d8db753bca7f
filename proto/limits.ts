// Every number of the protocol, with its unit and its source. Numbers an operator may change are in server/config.ts.

/** Largest ciphertext for one device, bytes. [L-1] */
export const CONTENT_MAX_BYTES = 96 * 1024
/** Largest initialisation vector, bytes. */
export const IV_MAX_BYTES = 64
/** Largest frame accepted on the socket, bytes; larger ones are answered TOO_LARGE. [L-1] */
export const FRAME_MAX_BYTES = 1024 * 1024
/** Beyond this the socket closes with 1009, bytes. [L-1] */
export const FRAME_HARD_MAX_BYTES = 1.25 * 1024 * 1024
/** Largest frame over HTTP, bytes. [C-9.4] */
export const FRAME_HTTP_MAX_BYTES = 16 * 1024 * 1024
/** Longest wait of one request for deliveries, seconds. [C-9.8] */
export const POLL_WAIT_MAX_SECONDS = 60
/** Message ids in one Ack. */
export const ACK_MAX_IDS = 1000
/** Users in one PresenceSubscription. [G-2.1] */
export const PRESENCE_MAX_USERS = 500
/** Message ids in one StatusRequest. [G-3.2] */
export const STATUS_MAX_IDS = 100
/** Messages in one SyncResponse. */
export const PAGE_MAX_MESSAGES = 100
/** Bytes in one SyncResponse. */
export const PAGE_MAX_BYTES = 1024 * 1024
/** Active members of a group, at least and at most. [V-3] */
export const GROUP_MIN_MEMBERS = 3
export const GROUP_MAX_MEMBERS = 500
/** Devices of one user. */
export const DEVICES_MAX_PER_USER = 10
/** Device ids, libsignal's range. */
export const DEVICE_ID_MIN = 1
export const DEVICE_ID_MAX = 127
/** Registration ids: 14 bit, never 0. */
export const REGISTRATION_ID_MIN = 1
export const REGISTRATION_ID_MAX = 16383
/** Prekey ids, 0 is legal. [K-2] */
export const KEY_ID_MAX = 2 ** 31 - 1
/** One-time keys of a kind in one upload, and in stock. [K-2] */
export const KEYS_MAX_PER_UPLOAD = 100
export const KEYS_MAX_IN_STOCK = 200
/** Targets of one bundle request. [K-4] */
export const BUNDLE_MAX_TARGETS = 100
/** Below this many one-time keys of a kind the device is told KeysLow. [K-6] */
export const KEYS_LOW_BELOW = 20
/** Un-acked envelopes a live session may have outstanding. */
export const WINDOW_MAX_MESSAGES = 256
/** Messages to somebody who has not accepted the conversation [V-6.2], and events of such a user that wait for one device [V-6.6]. */
export const STRANGER_MAX_MESSAGES = 10
export const STRANGER_MAX_EVENTS = 10
/** Users whom one user blocks. [V-7] */
export const BLOCKS_MAX = 1000
/** Bytes buffered for one socket before the relay stops sending to it. I10 */
export const BUFFERED_MAX_BYTES = 256 * 1024
/** A signed change, bytes. [V-2] */
export const SIGNED_CHANGE_MAX_BYTES = 1024
/** Attachment and thumbnail URL, characters. */
export const URL_MAX_CHARS = 2048
/** Conversation name and description, characters. */
export const NAME_MAX_CHARS = 128
export const DESCRIPTION_MAX_CHARS = 1024
/** Canonical key encodings, bytes. [K-1] */
export const EC_KEY_BYTES = 33
export const KYBER_KEY_BYTES = 1569
export const SIGNATURE_BYTES = 64
/** Clock difference accepted in an identity_proof, milliseconds. [I-2] */
export const IDENTITY_PROOF_SKEW_MS = 10 * 60 * 1000
/** Life of a link code, milliseconds. [I-4] */
export const LINK_CODE_TTL_MS = 10 * 60 * 1000
/** Sealed bytes for a device that waits to be linked, and how long it may wait, milliseconds. [I-5] */
export const PROVISION_MAX_BYTES = 64 * 1024
export const PROVISIONING_TTL_MS = 90_000
/** Life of an access token, seconds. [T-1] */
export const TOKEN_TTL_SECONDS = 3600
/** How long a client_message_id is remembered at least, milliseconds. [S-2] */
export const DEDUPE_MIN_MS = 7 * 24 * 3600 * 1000
/** Life of an undelivered message, milliseconds. */
export const QUEUE_TTL_MS = 30 * 24 * 3600 * 1000
