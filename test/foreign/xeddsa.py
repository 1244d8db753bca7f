"""Keys and XEdDSA signatures as libsignal makes them: 33 public bytes, 64 bytes of signature. [K-1.1] [K-1.4]

Pure Python, slow, and not in constant time: it is here so that this client needs nothing but Debian's packages. An app takes
these from its libsignal binding: PrivateKey.generate, getPublicKey, sign, verify.
"""
import hashlib
import os

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
BASE_Y = 4 * pow(5, -1, P) % P


def recover(y, sign):
    """The point with this y, as extended coordinates (X, Y, Z, T). Raises ValueError when there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P != 0:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P != 0:
        raise ValueError("not on the curve")
    if x % 2 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def add(one, other):
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(factor, point):
    product = (0, 1, 1, 0)
    while factor > 0:
        if factor & 1:
            product = add(product, point)
        point = add(point, point)
        factor >>= 1
    return product


BASE = recover(BASE_Y, 0)


def encode(point):
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def scalar(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER


def generate():
    """A private key, 32 bytes."""
    key = bytearray(os.urandom(32))
    key[0] &= 0xF8
    key[31] = key[31] & 0x7F | 0x40
    return bytes(key)


def public_key(private):
    """05, then the u coordinate of the point on the Montgomery curve."""
    _, y, z, _ = multiply(int.from_bytes(private, "little"), BASE)
    return b"\x05" + ((z + y) * pow(z - y, -1, P) % P).to_bytes(32, "little")


def sign(private, message):
    a = int.from_bytes(private, "little") % ORDER
    point = encode(multiply(a, BASE))
    r = scalar(b"\xfe" + b"\xff" * 31, private, message, os.urandom(64))
    commitment = encode(multiply(r, BASE))
    s = (r + scalar(commitment, point, message) * a) % ORDER
    # The sign of the Edwards point travels in a bit that s leaves free.
    return commitment + (s | (point[31] >> 7) << 255).to_bytes(32, "little")


def verify(public, message, signature):
    if len(public) != 33 or public[0] != 5 or len(signature) != 64:
        return False
    u = int.from_bytes(public[1:], "little") % P
    s = int.from_bytes(signature[32:], "little")
    try:
        point = recover((u - 1) * pow(u + 1, -1, P) % P, s >> 255)
    except ValueError:
        return False
    s &= 2**255 - 1
    if s >= ORDER:
        return False
    h = scalar(signature[:32], encode(point), message)
    negative = (P - point[0], point[1], 1, P - point[3])
    return encode(add(multiply(s, BASE), multiply(h, negative))) == signature[:32]
