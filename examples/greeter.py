#!/usr/bin/env python3
"""A gRPC service in Python that is handed its listener by the node, as fd 3.

grpcio cannot serve on a listener it did not open, so the connections accepted on fd 3 are passed
on, byte for byte, to its own socket in the service's folder. Everything a node needs of a service
is here: the listener, grpc.health.v1, lines on standard output, an end at SIGTERM.
"""

import os
import signal
import socket
import sys
import threading
from concurrent import futures

import grpc

SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse { status: SERVING }


def check(_request, _context):
    return SERVING


def watch(_request, context):
    yield SERVING
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait()


def greet(request, _context):
    """Takes and gives a google.protobuf.StringValue of at most 100 bytes."""
    name = request[2:].decode()
    print(f'level=info msg="greeting" name={name}', flush=True)
    answer = f"hello, {name}"[:100].encode()
    return bytes([0x0A, len(answer)]) + answer


def serve(address):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    health = {
        "Check": grpc.unary_unary_rpc_method_handler(check),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
    }
    greeter = {"Greet": grpc.unary_unary_rpc_method_handler(greet)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
            grpc.method_handlers_generic_handler("demo.Greeter", greeter),
        )
    )
    server.add_insecure_port(address)
    server.start()
    return server


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def pass_on(listener, path):
    while True:
        caller, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(path)
        for ends in ((caller, server), (server, caller)):
            threading.Thread(target=copy, args=ends, daemon=True).start()


def main():
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        sys.exit("started by hand: no listener was passed; run it as a service of a node")
    path = os.path.join(os.environ["STATE_DIRECTORY"], f"grpc-{os.getpid()}.sock")
    server = serve(f"unix:{path}")
    listener = socket.socket(fileno=3)
    threading.Thread(target=pass_on, args=(listener, path), daemon=True).start()
    print('level=info msg="serving on the passed listener"', flush=True)
    signal.sigwait({signal.SIGTERM})
    server.stop(grace=1).wait()
    os.unlink(path)


# Blocked before any thread exists, so that it waits for sigwait.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
main()
