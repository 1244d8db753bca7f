"""What the client can do, played against a running relay: `stories.py <story>`, told by foreign.test.ts.

Reads one line of JSON, prints lines of JSON: {"cue": …} asks the other side to do something and waits for a line in return,
{"result": …} is the end.
"""
import asyncio
import json
import sys

import websockets

import wire
import xeddsa
from client import Connection, Device, Disconnected, Refused


def cue(name, **more):
    print(json.dumps({"cue": name, **more}), flush=True)
    return json.loads(sys.stdin.readline())


def device_of(given):
    """The device that registered in an earlier story."""
    known = given["device"]
    device = Device(wire.load(given["descriptors"]), given["url"], given["realm"], bytes.fromhex(known["identity"]))
    device.user_id, device.device_id, device.secret = known["user_id"], known["device_id"], known["secret"]
    return device


def text_of(named, envelope):
    return named("Content").FromString(wire.unpad(envelope.ciphertext.content)).text


def sealing(named, conversation_id, client_message_id, text):
    """In place of libsignal: a Content, padded [P-1] [P-2], and not encrypted."""
    content = named("Content")(
        conversation_id=wire.id_bytes(conversation_id),
        client_message_id=client_message_id,
        sent_at_ms=wire.now_ms(),
        text=text,
    )
    return lambda _user, _device: (2, wire.pad(content.SerializeToString()))


async def refusal_of(awaitable):
    try:
        await awaitable
    except Refused as refused:
        return refused.code
    return "accepted"


async def vectors(given):
    """The same bytes as everybody else's, and signatures that are told apart."""
    proofs, signatures = {}, {}
    for each in given["proofs"]:
        signed, last = each["signed_prekey"], each["last_resort_kyber_prekey"]
        keys = wire.lasting_keys(
            bytes.fromhex(each["identity_key"]),
            each["registration_id"],
            signed["key_id"],
            bytes.fromhex(signed["public_key"]),
            last and (last["key_id"], bytes.fromhex(last["public_key"])),
        )
        proofs[each["file"]] = wire.proof_message(
            each["purpose"], each["realm"], keys, each["timestamp_ms"], each["link_code"]
        ).hex()
    for each in given["signatures"]:
        parts = [bytes.fromhex(each[name]) for name in ("identity_key", "message", "signature")]
        signatures[each["file"]] = xeddsa.verify(*parts)
    return {"proofs": proofs, "signatures": signatures}


async def registers(given):
    device = Device(wire.load(given["descriptors"]), given["url"], given["realm"])
    device.register()
    for browser in (False, True):
        connection = await device.connect(browser)
        hello = connection.hello
        await connection.close()
    secret, device.secret = device.secret, "x" * 43
    try:
        device.token()
    except Refused as refused:
        wrong_secret = refused.code
    try:
        await websockets.connect(given["url"].replace("http", "ws") + "/v1/ws")
    except websockets.InvalidHandshake as refused:
        without_token = getattr(refused, "status_code", None) or refused.response.status_code
    return {
        "device": {
            "user_id": device.user_id,
            "device_id": device.device_id,
            "secret": secret,
            "identity": device.identity.hex(),
            "registration_id": device.registration_id,
        },
        "hello": {
            "realm": hello.realm,
            "user_id": wire.id_text(hello.user_id),
            "device_id": hello.device_id,
            "queue_waiting": hello.queue_waiting,
            "page_messages": hello.limits.page_messages,
        },
        "wrong_secret": wrong_secret,
        "without_token": without_token,
    }


async def reads(given):
    device = device_of(given)
    connection = await device.connect()
    waiting = [connection.hello.queue_waiting]
    request = device.named("SyncRequest")(limit=2)
    first = (await connection.ask(sync_request=request)).sync_response
    page = [device.read(each) for each in first.messages]
    # The connection ends before the ack: the page comes again, and is shown once.
    await connection.close()

    connection = await device.connect()
    waiting.append(connection.hello.queue_waiting)
    read = await connection.catch_up(limit=2)
    cue("live")
    live = await connection.next("envelope")
    await connection.ack([live.message_id, live.message_id, wire.uuid_v7()])
    await connection.close()

    connection = await device.connect()
    waiting.append(connection.hello.queue_waiting)
    left = await connection.catch_up()
    await connection.close()
    named = device.named
    return {
        "waiting": waiting,
        "first": [each.sequence for each in page],
        "has_more": first.has_more,
        "rest": [each.sequence for each in read],
        "texts": [text_of(named, each) for each in page + read if each.HasField("ciphertext")],
        "live": text_of(named, live),
        "left": len(left),
    }


async def sends(given):
    device = device_of(given)
    conversation, book = given["conversation"], {}
    connection = await device.connect()
    await connection.catch_up()

    async def say(text, client_message_id=None):
        client_message_id = client_message_id or wire.uuid_v7()
        seal = sealing(device.named, conversation, client_message_id, text)
        accepted, rounds = await connection.send(conversation, client_message_id, book, seal)
        return {"message_id": wire.id_text(accepted.message_id), "duplicate": accepted.duplicate, "rounds": rounds}

    again = wire.uuid_v7()
    results = {"first": await say("to a stranger", again), "again": await say("to a stranger", again)}
    cue("link")
    results["linked"] = await say("after a link")
    cue("unlink")
    results["unlinked"] = await say("after an unlink")
    cue("start over")
    results["stale"] = await say("after a new start")

    # The answer is lost with the connection: the same message goes out again on the next one. [S-9.6]
    lost = wire.uuid_v7()
    connection.reading.cancel()
    unanswered = asyncio.create_task(say("said once", lost))
    await asyncio.to_thread(cue, "wait for it")
    connection.socket.transport.abort()
    unanswered.cancel()
    connection = await device.connect()
    results["lost"] = await say("said once", lost)
    await connection.close()
    return results


async def errors(given):
    device = device_of(given)
    named = device.named
    connection = await device.connect()
    scope = named("Scope").values_by_name["SCOPE_ALL"].number
    ids = {"client_message_id": wire.uuid_v7(), "conversation_id": wire.uuid_v7()}
    message = named("SignalMessage")(**ids, scope=scope)
    result = {
        "unknown_conversation": await refusal_of(connection.ask(signal_message=message)),
        "too_many_acks": await refusal_of(connection.ack([wire.uuid_v7()] * 1001)),
        "empty_token": await refusal_of(connection.ask(reauthenticate=named("Reauthenticate")(token="x"))),
    }
    # Still usable [E-2.1]; and what is no frame at all is answered without a request id. [C-7]
    await connection.ack([])
    await connection.socket.send(b"\xff\xff")
    result["garbage"] = connection.refusal(await connection.next("error")).code
    fresh = named("Reauthenticate")(token=device.token())
    ends_at_ms = (await connection.ask(reauthenticate=fresh)).reauthenticated.expires_at_ms
    result["reauthenticated"] = ends_at_ms > wire.now_ms()
    for _ in range(5):
        await connection.socket.send("text is for people")
    result["malformed"] = await ended(connection)

    older = await device.connect()
    newer = await device.connect()
    result["displaced"] = await ended(older)
    await newer.ack([])
    await newer.close()

    laptop = Device(named, given["url"], given["realm"], bytes.fromhex(given["identity"]))
    laptop.link(given["user_id"], given["link_code"])
    connection = await laptop.connect()
    cue("unlink", device_id=laptop.device_id)
    result["unlinked"] = await ended(connection)
    try:
        laptop.token()
    except Refused as refused:
        result["unlinked_token"] = refused.code
    return result


async def ended(connection: Connection):
    try:
        while True:
            await connection.next("going_away")
    except Disconnected as end:
        return end.close_code


STORIES = {each.__name__: each for each in (vectors, registers, reads, sends, errors)}
if __name__ == "__main__":
    print(json.dumps({"result": asyncio.run(STORIES[sys.argv[1]](json.loads(sys.stdin.readline())))}))
