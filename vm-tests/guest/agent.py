# The guest's side of the port on which tests tell a machine what to do. A request is a line
# `VERB ARGUMENT LENGTH` and LENGTH bytes; the answer is a line `CODE LENGTH LENGTH` and what the
# script wrote to standard output and standard error.
import os
import subprocess
import time

PORT = "/dev/virtio-ports/agent"
RETRY = 0.5


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


def run(script):
    """Ends with the script itself, even if something that it started keeps its output open."""
    with memory_file() as out, memory_file() as err:
        shell = ["/bin/bash", "-c", script, "test"]
        done = subprocess.run(shell, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd="/root")
        out.seek(0)
        err.seek(0)
        return done.returncode, out.read(), err.read()


def wait(script, seconds):
    """Runs the script until it succeeds; the last answer if it never does."""
    deadline = time.monotonic() + seconds
    while True:
        answer = run(script)
        if answer[0] == 0 or time.monotonic() > deadline:
            return answer
        time.sleep(RETRY)


def judge(program, seconds):
    """Runs the shell script that the program has as SCRIPT until its `holds` is true of what that
    says: in this process, for to start Python takes an emulated machine longer than all else."""
    scope = {}
    exec(program, scope)
    deadline = time.monotonic() + seconds
    while True:
        code, out, err = run(scope["SCRIPT"])
        try:
            if code == 0 and scope["holds"](out):
                return 0, out, err
        except Exception as error:
            err += repr(error).encode()
        if time.monotonic() > deadline:
            return code or 1, out, err
        time.sleep(RETRY)


def put(path, content):
    with open(path, "wb") as file:
        file.write(content)
    return 0, b"", b""


def answer(verb, argument, data):
    try:
        if verb == "run":
            return run(data)
        if verb == "wait":
            return wait(data, float(argument))
        if verb == "judge":
            return judge(data, float(argument))
        return put(argument, data)
    except OSError as error:
        return 255, b"", str(error).encode()


def main():
    port = os.open(PORT, os.O_RDWR)
    while True:
        verb, argument, length = line(port)
        code, out, err = answer(verb, argument, read(port, int(length)))
        write(port, b"%d %d %d\n" % (code, len(out), len(err)) + out + err)


main()
