# The guest's side of the port on which tests tell a machine what to do. A request is a line
# `VERB ARGUMENT LENGTH` and LENGTH bytes; the answer is a line `CODE LENGTH LENGTH` and what the
# script wrote to standard output and standard error.
import os
import select
import subprocess
import time

PORT = "/dev/virtio-ports/agent"
# How long it waits before it tries again; longer every time, for whoever is waited for needs the
# processor.
RETRY, RETRY_MOST = 0.5, 2.0
# The exit code of timeout(1).
TIMED_OUT = 124


def read(port, length):
    data = bytearray()
    while len(data) < length:
        some = os.read(port, min(length - len(data), 1 << 20))
        if not some:
            # The host has hung up; it comes again.
            time.sleep(RETRY)
        data += some
    return bytes(data)


def line(port):
    data = b""
    while not data.endswith(b"\n"):
        data += read(port, 1)
    return data.decode().split()


def write(port, data):
    while data:
        data = data[os.write(port, data):]


def memory_file():
    """Whatever is full or broken, there is room for an answer."""
    return os.fdopen(os.memfd_create("answer"), "w+b")


def run(script, seconds):
    """Ends with the script itself, even if something that it started keeps its output open; ends a
    script that hangs as timeout(1) does, so that somebody can still be asked why."""
    with memory_file() as out, memory_file() as err:
        shell = ["/bin/bash", "-c", script, "test"]
        process = subprocess.Popen(
            shell, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd="/root")
        ended = ends(process, seconds)
        if not ended:
            process.kill()
        code = process.wait()
        out.seek(0)
        err.seek(0)
        return code if ended else TIMED_OUT, out.read(), err.read()


def ends(process, seconds):
    """Whether it ends in so many seconds. subprocess would look every 50 ms."""
    pidfd = os.pidfd_open(process.pid)
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


def wait(script, seconds):
    """Runs the script until it succeeds; the last answer if it never does."""
    deadline, pause = time.monotonic() + seconds, RETRY
    while True:
        answer = run(script, seconds)
        if answer[0] == 0 or time.monotonic() > deadline:
            return answer
        time.sleep(pause)
        pause = min(pause * 1.3, RETRY_MOST)


def judge(program, seconds):
    """Reads what the program's COMMAND says, line by line, until the program's `holds` is true of one;
    if the command ends, it is run again. To start a program, and most of all Python, takes an emulated
    machine longer than what it does."""
    scope = {}
    exec(program, scope)
    deadline = time.monotonic() + seconds
    while True:
        with memory_file() as errors:
            said = Lines(scope["COMMAND"], errors)
            try:
                for line in said.until(deadline):
                    if scope["holds"](line):
                        return 0, line, b""
            except Exception as error:
                errors.write(repr(error).encode())
            finally:
                said.end()
            errors.seek(0)
            if time.monotonic() > deadline:
                return 1, said.last, errors.read()
        time.sleep(RETRY)


class Lines:
    """What a command writes to its standard output."""

    def __init__(self, command, errors):
        self.last = b""
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, bufsize=0)

    def until(self, deadline):
        """Its lines, up to its end or the deadline."""
        output, begun = self.process.stdout, b""
        while select.select([output], [], [], max(0, deadline - time.monotonic()))[0]:
            some = output.read(1 << 20)
            if not some:
                return
            *lines, begun = (begun + some).split(b"\n")
            for self.last in lines:
                yield self.last

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def put(path, content):
    with open(path, "wb") as file:
        file.write(content)
    return 0, b"", b""


def answer(verb, argument, data):
    try:
        if verb == "run":
            return run(data, float(argument))
        if verb == "wait":
            return wait(data, float(argument))
        if verb == "judge":
            return judge(data, float(argument))
        return put(argument, data)
    except OSError as error:
        return 255, b"", str(error).encode()


def opened():
    """udev names the port: before the root is mounted if it is in time, else when it is run again."""
    while not os.path.exists(PORT):
        time.sleep(0.1)
    return os.open(PORT, os.O_RDWR)


def main():
    port = opened()
    while True:
        verb, argument, length = line(port)
        code, out, err = answer(verb, argument, read(port, int(length)))
        write(port, b"%d %d %d\n" % (code, len(out), len(err)) + out + err)


main()
