# Calls storage's gRPC on its socket 50 times a second, each time on a connection of its own, until
# the file of its second argument is there; tells in the file of its third how that went.
import json
import socket
import struct
import sys
import time

SOCKET, END, TOLD = sys.argv[1:]
PERIOD = 0.02
PATIENCE = 30


def text(value):
    return bytes([len(value)]) + value.encode()


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


HEADERS = b"".join(
    b"\0" + text(name) + text(value)
    for name, value in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/blackhole.storage.v1.Storage/Usage"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
)
REQUEST = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(4, 0, 0, b"")
    + frame(1, 4, 1, HEADERS)
    + frame(0, 1, 1, bytes(5))
)


def exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise ConnectionError("closed before the answer")
        data += more
    return data


def call():
    """An answer with a message and trailers is a success; an error has trailers alone."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE)
        stream.connect(SOCKET)
        stream.sendall(REQUEST)
        message = b""
        while True:
            head = exactly(stream, 9)
            length = int.from_bytes(head[:3], "big")
            kind, flags, number = head[3], head[4], int.from_bytes(head[5:9], "big")
            payload = exactly(stream, length)
            if kind == 4 and not flags & 1:
                stream.sendall(frame(4, 1, 0, b""))
            if kind == 0:
                message += payload
            if kind in (3, 7):
                raise ConnectionError(f"frame {kind}: {payload!r}")
            if number == 1 and flags & 1:
                if len(message) < 5:
                    raise ConnectionError(f"no message; trailers {payload!r}")
                return


calls, failures, slowest = 0, [], 0.0
due = time.monotonic()
while True:
    try:
        open(END).close()
        break
    except FileNotFoundError:
        pass
    begun = time.monotonic()
    try:
        call()
    except OSError as error:
        failures.append(f"call {calls}: {error!r}")
    calls += 1
    slowest = max(slowest, time.monotonic() - begun)
    due = max(due + PERIOD, time.monotonic() - 1)
    time.sleep(max(0, due - time.monotonic()))
with open(TOLD, "w") as told:
    json.dump({"calls": calls, "failures": failures, "slowest": slowest}, told)
