"""A device of another language: registers, connects, reads its queue, sends. It encrypts nothing: where an app calls libsignal,
`seal` is handed to `send`, and what `read` returns is still ciphertext.
"""
import asyncio
import base64
import inspect
import json
import random
import urllib.error
import urllib.parse
import urllib.request

import websockets

import wire
import xeddsa

# A page holds up to 1 MiB [Q-4], and the library's own limit is exactly that.
LARGEST_FRAME = 4 * 1024 * 1024
# Renamed in websockets 14.
HEADERS = next(name for name in inspect.signature(websockets.connect).parameters if name.endswith("_headers"))
ROUNDS = 5  # [S-4.5]


class Refused(Exception):
    """The relay said no: a code of [E-1], and whether to try again. Nothing was changed [E-2]."""

    def __init__(self, code, message, retry_after_ms=0, mismatch=None):
        super().__init__(f"{code}: {message}")
        self.code, self.retry_after_ms, self.mismatch = code, retry_after_ms, mismatch


class Disconnected(Exception):
    """The connection ended before the answer came: whether it was done is unknown [S-9.6]."""

    def __init__(self, close_code):
        super().__init__(f"closed {close_code}")
        self.close_code = close_code


def http(url, method, path, body=None, token=None, form=False):
    """One call of the HTTP API. [H-1] [H-2] Returns the answer's JSON. Raises Refused."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = None
    if body is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded" if form else "application/json"
        data = (urllib.parse.urlencode(body) if form else json.dumps(body)).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, headers, method=method)) as answer:
            text = answer.read()
            return json.loads(text) if text else None
    except urllib.error.HTTPError as refusal:
        error = json.loads(refusal.read())["error"]
        if isinstance(error, str):  # The token endpoint speaks RFC 6749. [T-3.1]
            raise Refused(error, "") from None
        raise Refused(error["code"], error["message"], error["retry_after_ms"]) from None


def base64_of(raw):
    return base64.b64encode(raw).decode()


class Device:
    """One device of one user: its keys and secret, and what it knows of others."""

    def __init__(self, named, url, realm, identity=None):
        self.named, self.url, self.realm = named, url, realm
        self.identity = identity or xeddsa.generate()
        self.registration_id = random.randint(1, 16383)
        self.user_id = self.device_id = self.secret = None
        self.seen = set()  # [Q-6.4]

    def keys(self, purpose, code=""):
        """Keys and their proof, as registration and linking take them. X3DH only: no Kyber. [I-1] [I-2]"""
        identity_key = xeddsa.public_key(self.identity)
        signed_prekey = xeddsa.public_key(xeddsa.generate())
        now = wire.now_ms()
        lasting = wire.lasting_keys(identity_key, self.registration_id, 1, signed_prekey)
        proof = xeddsa.sign(self.identity, wire.proof_message(purpose, self.realm, lasting, now, code))
        signature = xeddsa.sign(self.identity, signed_prekey)
        return {
            "identity_key": base64_of(identity_key),
            "registration_id": self.registration_id,
            "signed_prekey": {
                "key_id": 1,
                "public_key": base64_of(signed_prekey),
                "signature": base64_of(signature),
            },
            "identity_proof": {"timestamp_ms": now, "signature": base64_of(proof)},
        }

    def register(self):
        """A new user with this as its first device. [I-1]"""
        self._enrolled(http(self.url, "POST", "/v1/accounts", self.keys("register")))

    def link(self, user_id, code):
        """One more device of that user, whose identity this one was made with. [I-4]"""
        body = {**self.keys("link", code), "user_id": user_id, "link_code": code}
        self._enrolled(http(self.url, "POST", "/v1/devices", body))

    def _enrolled(self, answer):
        # An app stores these like a private key. [I-1.3]
        self.user_id, self.device_id, self.secret = answer["user_id"], answer["device_id"], answer["device_secret"]

    def token(self):
        """An access token, good for an hour. [T-3]"""
        credentials = {"client_id": f"{self.user_id}.{self.device_id}", "client_secret": self.secret}
        form = {"grant_type": "client_credentials", **credentials}
        return http(self.url, "POST", "/oauth/token", form, form=True)["access_token"]

    def bundle(self, user_id, device_id):
        """What opens a session with a device, its signature verified. [K-4] Raises ValueError for a relay that lies."""
        answer = http(self.url, "GET", f"/v1/keys/{user_id}/{device_id}", token=self.token())
        [bundle] = answer["devices"]
        signed = {name: base64.b64decode(bundle["signed_prekey"][name]) for name in ("public_key", "signature")}
        # An app also compares the identity key with the one it knows for this user. [K-4.5]
        if not xeddsa.verify(base64.b64decode(answer["identity_key"]), signed["public_key"], signed["signature"]):
            raise ValueError("the signed prekey is not that identity's")
        return bundle

    async def connect(self, browser=False):
        """Opens the connection and waits for Hello. [C-1] [C-3]"""
        token = self.token()
        offered = ["sealpost.v1", f"bearer.{token}"] if browser else None
        headers = {} if browser else {"Authorization": f"Bearer {token}"}
        address = self.url.replace("http", "ws", 1) + "/v1/ws"
        options = {HEADERS: headers, "subprotocols": offered, "max_size": LARGEST_FRAME}
        connection = Connection(self, await websockets.connect(address, **options))
        connection.hello = await connection.next("hello")
        if connection.hello.realm != self.realm:  # [C-3.2]
            raise ValueError("another deployment answers here")
        return connection

    def read(self, envelope):
        """Returns the envelope once, and None whenever it comes again. [Q-6.4]"""
        sent = envelope.ciphertext
        is_event = envelope.WhichOneof("payload") == "system_event"
        key = (sent.sender_user_id, sent.sender_device_id, sent.client_message_id)
        key = envelope.message_id if is_event else key
        if key in self.seen:
            return None
        # An app decrypts, and commits session, message and this mark to disk in one transaction, before it acks. [Q-6.3]
        self.seen.add(key)
        return envelope


class Connection:
    """One WebSocket: matches answers to requests [C-2.2], keeps what comes unasked in order."""

    def __init__(self, device, socket):
        self.device, self.socket, self.hello = device, socket, None
        self.named, self.request_id = device.named, 0
        self.waiting, self.unasked = {}, asyncio.Queue()
        self.reading = asyncio.create_task(self._read())

    async def _read(self):
        try:
            async for data in self.socket:
                frame = self.named("ServerFrame").FromString(data)
                answered = self.waiting.pop(frame.request_id, None)
                if answered:
                    answered.set_result(frame)
                else:
                    self.unasked.put_nowait(frame)
        except websockets.ConnectionClosed:
            pass
        for each in self.waiting.values():
            each.set_exception(Disconnected(self.socket.close_code))
        self.unasked.put_nowait(None)

    async def ask(self, **body):
        """Sends one request and waits for its one answer [C-2.3]. Raises Refused, Disconnected, TimeoutError."""
        self.request_id += 1
        answer = self.waiting[self.request_id] = asyncio.get_running_loop().create_future()
        await self.socket.send(self.named("ClientFrame")(request_id=self.request_id, **body).SerializeToString())
        frame = await asyncio.wait_for(answer, 5)  # [S-9.6]
        if frame.WhichOneof("body") == "error":
            raise self.refusal(frame.error)
        return frame

    def refusal(self, error):
        known = self.named("ErrorCode").values_by_number.get(error.code)
        # A code of a later version counts as INTERNAL. [E-1]
        code = known.name.removeprefix("ERROR_CODE_") if known else "INTERNAL"
        mismatch = error.device_mismatch if error.HasField("device_mismatch") else None
        return Refused(code, error.message, error.retry_after_ms, mismatch)

    async def next(self, kind):
        """The next unasked frame of that kind; others are passed over, unknown ones too [C-2.5]. Raises Disconnected."""
        while True:
            frame = await asyncio.wait_for(self.unasked.get(), 10)
            if frame is None:
                raise Disconnected(self.socket.close_code)
            if frame.WhichOneof("body") == kind:
                return getattr(frame, kind)

    async def catch_up(self, limit=0):
        """Reads what waits, page by page, acking what it read; then envelopes come by themselves. [Q-3] to [Q-6]"""
        read, cursor = [], b""
        while True:
            request = self.named("SyncRequest")(last_message_id=cursor, limit=limit)
            page = (await self.ask(sync_request=request)).sync_response
            read += [each for each in map(self.device.read, page.messages) if each]
            ids = [each.message_id for each in page.messages]
            if page.HasField("gap"):  # Tell the user: these are lost. [Q-8]
                ids.append(page.gap.gap_id)
            await self.ack(ids)
            cursor = page.messages[-1].message_id if page.messages else cursor
            if not page.has_more:
                break
        await self.next("queue_empty")  # [Q-5]
        return read

    async def ack(self, message_ids):
        await self.ask(ack=self.named("Ack")(message_ids=message_ids))

    async def send(self, conversation_id, client_message_id, book, seal):
        """Sends to every device in the book, which is put right as the relay says. [S-4]

        book: {(user id, device id): registration id}. seal: (user id, device id) → (ciphertext type, bytes).
        Returns MessageAccepted and the rounds it took. After Disconnected or TimeoutError: call it again with the same
        client_message_id, and a seal that returns the same bytes. [S-2.4]
        """
        sealed = {}
        for rounds in range(1, ROUNDS + 1):
            message = self.named("SignalMessage")(
                client_message_id=client_message_id,
                conversation_id=wire.id_bytes(conversation_id),
                scope=self.named("Scope").values_by_name["SCOPE_ALL"].number,
            )
            for address, registration_id in book.items():
                if (address, registration_id) not in sealed:
                    sealed[address, registration_id] = seal(*address)
                kind, content = sealed[address, registration_id]
                message.recipients.add(
                    user_id=wire.id_bytes(address[0]),
                    device_id=address[1],
                    registration_id=registration_id,
                    ciphertext_type=kind,
                    content=content,
                )
            try:
                return (await self.ask(signal_message=message)).message_accepted, rounds
            except Refused as refused:
                if refused.mismatch is None or rounds == ROUNDS:
                    raise
                self.repair(book, refused.mismatch)

    def repair(self, book, mismatch):
        """[S-4.4] An app also checks that a missing user is in its roster [S-4.6], and ends its session with a stale device."""
        for each in mismatch.extra:
            book.pop((wire.id_text(each.user_id), each.device_id), None)
        for each in [*mismatch.missing, *mismatch.stale]:
            user_id = wire.id_text(each.user_id)
            bundle = self.device.bundle(user_id, each.device_id)
            book[user_id, each.device_id] = bundle["registration_id"]

    async def close(self):
        await self.socket.close()
        await self.reading
