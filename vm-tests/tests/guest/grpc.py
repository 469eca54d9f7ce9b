# Unary gRPC calls over a Unix socket, each on a connection of its own, with what Python has.
import socket
import struct

PATIENCE = 30


def field(number, value):
    """Bytes or text as a field of a protobuf message."""
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    data = b""
    while value > 127:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])


def fields(message):
    """The values of a message by their numbers, the last of each: numbers and bytes."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = number()
        value = number()
        if tag & 7 == 2:
            at += value
            value = message[at - value:at]
        found[tag >> 3] = value
    return found


def text(value):
    return bytes([len(value)]) + value.encode()


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise ConnectionError("closed before the answer")
        data += more
    return data


def call(path, method, message=b""):
    """The message of the answer; an error has trailers alone, and is a ConnectionError."""
    headers = b"".join(
        b"\0" + text(name) + text(value)
        for name, value in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
    )
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE)
        stream.connect(path)
        stream.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(4, 0, 0, b"")
            + frame(1, 4, 1, headers)
            + frame(0, 1, 1, struct.pack(">BI", 0, len(message)) + message)
        )
        answer = b""
        while True:
            head = exactly(stream, 9)
            length = int.from_bytes(head[:3], "big")
            kind, flags, number = head[3], head[4], int.from_bytes(head[5:9], "big")
            payload = exactly(stream, length)
            if kind == 4 and not flags & 1:
                stream.sendall(frame(4, 1, 0, b""))
            if kind == 0:
                answer += payload
            if kind in (3, 7):
                raise ConnectionError(f"frame {kind}: {payload!r}")
            if number == 1 and flags & 1:
                if len(answer) < 5:
                    raise ConnectionError(f"no message; trailers {payload!r}")
                return answer[5:]
