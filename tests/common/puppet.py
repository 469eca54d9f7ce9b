# A service that does what a test tells it: each line on its socket is a Python expression or
# statement as a JSON string, each answer a JSON object. With the argument "ready" it says READY=1.
import array
import json
import os
import signal
import socket
import sys
import threading
import time


def send(data, fds=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as voice:
        voice.sendmsg([data], rights, 0, os.environ["NOTIFY_SOCKET"])


def notify(*lines, fds=()):
    send("\n".join(lines).encode(), fds)


def sync():
    """Returns when the node has dealt with everything that was said before."""
    ours, theirs = os.pipe()
    notify("BARRIER=1", fds=[theirs])
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)


def in_child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def daemon():
    """Forks twice, away from the session and from every pipe; returns the pid."""
    ours, theirs = os.pipe()
    first = os.fork()
    if first == 0:
        os.setsid()
        second = os.fork()
        if second != 0:
            os.write(theirs, str(second).encode())
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        nothing = os.open("/dev/null", os.O_RDWR)
        for fd in range(0, 64):
            if fd != nothing:
                try:
                    os.dup2(nothing, fd)
                except OSError:
                    pass
        while True:
            time.sleep(1000)
    os.close(theirs)
    os.waitpid(first, 0)
    pid = int(os.read(ours, 32))
    os.close(ours)
    return pid


def do(code):
    try:
        code = compile(code, "told", "eval")
    except SyntaxError:
        return exec(compile(code, "told", "exec"), globals())
    return eval(code, globals())


def reply(line):
    try:
        return {"ok": do(json.loads(line))}
    except Exception as error:
        return {"error": repr(error)}


if "ready" in sys.argv:
    notify("READY=1")
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rw") as lines:
        for line in lines:
            lines.write(json.dumps(reply(line), default=repr) + "\n")
            lines.flush()
