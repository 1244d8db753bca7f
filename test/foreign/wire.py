"""Bytes of the protocol: frames from their descriptors, proofs, padding. Knows no connection.

Frames are made at run time from a descriptor set, `buf build proto -o sealpost.binpb`, so that no compiler is needed here. With
protoc the same classes come from `protoc --python_out=. relay.proto content.proto`.
"""
import hashlib
import os
import time
import uuid

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def load(path):
    """A function from the name of a message or enum of the protocol to its class or descriptor."""
    pool = descriptor_pool.DescriptorPool()
    descriptors = descriptor_pb2.FileDescriptorSet()
    with open(path, "rb") as file:
        descriptors.ParseFromString(file.read())
    for each in descriptors.file:
        pool.AddSerializedFile(each.SerializeToString())

    def named(name):
        try:
            descriptor = pool.FindMessageTypeByName(f"sealpost.v1.{name}")
        except KeyError:
            return pool.FindEnumTypeByName(f"sealpost.v1.{name}")
        if hasattr(message_factory, "GetMessageClass"):
            return message_factory.GetMessageClass(descriptor)
        return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # protobuf below 4.22, as on Debian 12

    return named


def now_ms():
    return int(time.time() * 1000)


def uuid_v7():
    """16 bytes; the time leads, so that ids ascend. [S-2.3]"""
    drawn = bytearray(now_ms().to_bytes(6, "big") + os.urandom(10))
    drawn[6] = 0x70 | drawn[6] & 0x0F
    drawn[8] = 0x80 | drawn[8] & 0x3F
    return bytes(drawn)


def id_bytes(text):
    return uuid.UUID(text).bytes


def id_text(raw):
    return str(uuid.UUID(bytes=bytes(raw)))


def lasting_keys(identity_key, registration_id, signed_prekey_id, signed_prekey, last_resort=None):
    """What proofs say of a device's keys. [I-2.2] last_resort: (id, 1569 bytes), or None without Kyber."""
    last = b"\x00" if last_resort is None else b"\x01" + last_resort[0].to_bytes(4, "big") + last_resort[1]
    return (
        identity_key
        + registration_id.to_bytes(2, "big")
        + signed_prekey_id.to_bytes(4, "big")
        + signed_prekey
        + last
    )


def proof_message(purpose, realm, keys, timestamp_ms, code=""):
    """The bytes that identity_proof signs. [I-2.1] purpose: register, link or identity; code: the link code's text, if any."""
    return (
        f"sealpost.v1 {purpose}".encode()
        + b"\x00"
        + realm.encode()
        + hashlib.sha256(code.encode()).digest()
        + hashlib.sha256(keys).digest()
        + timestamp_ms.to_bytes(8, "big")
    )


def pad(encoded):
    """[P-2]"""
    return encoded + b"\x80" + b"\x00" * (-(len(encoded) + 1) % 160)


def unpad(padded):
    """[P-2] Raises ValueError."""
    encoded = padded.rstrip(b"\x00")
    if not encoded.endswith(b"\x80"):
        raise ValueError("the padding is wrong")
    return encoded[:-1]
