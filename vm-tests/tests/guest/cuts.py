# Has storage, ledger and identity write what they keep to a disk that is cut off at random moments:
# what is on it then is copied, and each copy must have everything that was answered before, and
# nothing that is torn. Copies of the last cuts are kept for their services.
# usage: cuts.py BACKING SEED CUTS KEPT FOLDER; tells how it went in JSON.
import base64
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import threading
import time

from grpc import call, field, fields

BACKING, SEED, CUTS, KEPT, FOLDER = sys.argv[1], *map(int, sys.argv[2:5]), pathlib.Path(sys.argv[5])
SOCKETS = "/run/blackhole/sockets"
MOUNTED = FOLDER / "mounted"

blocks, entries, problems = [], [], []
# Blocks that were found whole at an earlier cut.
whole = set()
chance = random.Random(SEED)


def cid(content):
    raw = b"\x01\x55\x12\x20" + hashlib.sha256(content).digest()
    return "b" + base64.b32encode(raw).decode().lower().rstrip("=")


def identity():
    """An author with a signature that it gives again and again."""
    create = call(f"{SOCKETS}/identity.sock", "/blackhole.identity.v1.Identity/Create", field(1, "author"))
    did = fields(fields(create)[1])[1]
    sign = field(1, did) + field(2, "paid")
    signature = fields(call(f"{SOCKETS}/identity.sock", "/blackhole.identity.v1.Identity/Sign", sign))[1]
    return did, field(1, did) + field(2, "paid") + field(3, signature)


def put():
    content = os.urandom(random.randrange(1, 12_000))
    call(f"{SOCKETS}/storage.sock", "/blackhole.storage.v1.Storage/Put", field(1, content))
    blocks.append(cid(content))


def append():
    call(f"{SOCKETS}/ledger.sock", "/blackhole.ledger.v1.Ledger/Append", entry)
    entries.append(None)


def again_and_again(one):
    while not ended.is_set():
        time.sleep(0.02)
        try:
            one()
        except OSError as error:
            problems.append(f"{one.__name__}: {error!r}")
            return


def run(*command):
    subprocess.run(command, check=True)


def cut(copy):
    """What was answered before the cut; the disk as it is at that moment is in `copy`."""
    answered = len(blocks), len(entries)
    run("dmsetup", "suspend", "--nolockfs", "--noflush", "power")
    try:
        run("cp", BACKING, copy)
    finally:
        run("dmsetup", "resume", "power")
    return answered


def check(number, copy, answered):
    run("mount", "-o", "loop", copy, MOUNTED)
    try:
        there = {block.name: block for block in (MOUNTED / "services/storage/blocks").glob("*/*")}
        for name in there.keys() - whole:
            if cid(there[name].read_bytes()) != name:
                problems.append(f"cut {number}: {name} is torn")
        whole.update(there)
        lost = set(blocks[:answered[0]]) - there.keys()
        if lost:
            problems.append(f"cut {number}: of {answered[0]} blocks are lost: {sorted(lost)}")
    finally:
        run("umount", MOUNTED)


FOLDER.mkdir()
MOUNTED.mkdir()
author, entry = identity()
ended = threading.Event()
writers = [threading.Thread(target=again_and_again, args=[one]) for one in (put, put, append)]
for writer in writers:
    writer.start()
begun = time.monotonic()
kept = []
for number in range(CUTS):
    time.sleep(chance.uniform(0, 0.3))
    copy = FOLDER / f"cut-{number}"
    answered = cut(copy)
    check(number, copy, answered)
    if number < CUTS - KEPT:
        copy.unlink()
    else:
        kept.append({"disk": str(copy), "blocks": answered[0], "entries": answered[1]})
ended.set()
for writer in writers:
    writer.join()
told = {"seconds": time.monotonic() - begun, "blocks": len(blocks), "entries": len(entries), "problems": problems, "kept": kept}
print(json.dumps(told | {"author": author.decode()}))
