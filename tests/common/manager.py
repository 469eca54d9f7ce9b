# A service manager as far as the node can tell (sd_notify(3), sd_listen_fds(3)): it keeps
# descriptors (FDSTORE=1), starts the program of its arguments again when a signal ended it, and
# ends as it ended otherwise. It tells on stderr what it hears.
import array
import ctypes
import os
import select
import signal
import socket
import sys
import threading

ADDRESS, PROGRAM = sys.argv[1], sys.argv[2:]
PR_SET_CHILD_SUBREAPER = 36
# As systemd counts (systemd.exec(5), FDSTORE): what is beyond it is closed, and nobody is told.
STORE_MOST = int(os.environ.get("FDSTORE", "4096"))

kept = []
lock = threading.Lock()
voice = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def say(line):
    os.write(2, f"manager: {line}\n".encode())


def take(data, fds):
    lines = dict(line.split("=", 1) for line in data.decode().splitlines())
    name = lines.get("FDNAME", "stored")
    if lines.get("FDSTORE") == "1":
        for fd in fds:
            if len(kept) < STORE_MOST:
                kept.append((name, fd))
            else:
                say(f"no room for {name}")
                os.close(fd)
        return
    for fd in fds:
        os.close(fd)
    if lines.get("FDSTOREREMOVE") == "1":
        for one in [one for one in kept if one[0] == name]:
            kept.remove(one)
            os.close(one[1])
    else:
        say(" ".join(f"{key}={value}" for key, value in lines.items()))


def hear():
    with lock:
        data, ancillary, _, _ = voice.recvmsg(65536, socket.CMSG_SPACE(1024), socket.MSG_DONTWAIT)
        fds = array.array("i")
        for _, _, rights in ancillary:
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
        take(data, fds)


def hear_for_ever():
    while True:
        select.select([voice], [], [])
        catch_up()


def start():
    with lock:
        handed = list(kept)
    pid = os.fork()
    if pid:
        return pid
    high = [os.dup2(fd, 1000 + at, inheritable=False) for at, (_, fd) in enumerate(handed)]
    for at, fd in enumerate(high):
        os.dup2(fd, 3 + at, inheritable=True)
    os.environ["NOTIFY_SOCKET"] = ADDRESS
    if handed:
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDS"] = str(len(handed))
        os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in handed)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.execv(PROGRAM[0], PROGRAM)


def wait_for(main):
    while True:
        pid, status = os.wait()
        if pid == main:
            return status


def catch_up():
    """What was said before the end is heard before the next start, and before the last word."""
    while True:
        try:
            hear()
        except BlockingIOError:
            return


ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
voice.bind(ADDRESS)
threading.Thread(target=hear_for_ever, daemon=True).start()
main = start()
signal.signal(signal.SIGTERM, lambda *_: os.kill(main, signal.SIGTERM))
while True:
    status = wait_for(main)
    catch_up()
    if not os.WIFSIGNALED(status):
        with lock:
            say(f"kept at the end: {sorted(name for name, _ in kept)}")
        os._exit(os.waitstatus_to_exitcode(status))
    main = start()
    say(f"started {main}")
