# Calls storage's gRPC on its socket 50 times a second until the file of its second argument is
# there; tells in the file of its third how that went.
import json
import sys
import time

from grpc import call

SOCKET, END, TOLD = sys.argv[1:]
PERIOD = 0.02

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
        call(SOCKET, "/blackhole.storage.v1.Storage/Usage")
    except OSError as error:
        failures.append(f"call {calls}: {error!r}")
    calls += 1
    slowest = max(slowest, time.monotonic() - begun)
    due = max(due + PERIOD, time.monotonic() - 1)
    time.sleep(max(0, due - time.monotonic()))
with open(TOLD, "w") as told:
    json.dump({"calls": calls, "failures": failures, "slowest": slowest}, told)
