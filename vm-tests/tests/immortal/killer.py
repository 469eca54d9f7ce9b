# Kills the orchestrator as often as its argument says, each time when it has come back, and tells
# how long each came to take until the unit was active again, in seconds of the guest.
import json
import os
import signal
import subprocess
import sys
import time


def properties():
    show = ["systemctl", "show", "--property", "MainPID,ActiveState", "blackhole"]
    lines = subprocess.run(show, check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def active_after(former):
    while True:
        now = properties()
        if now["ActiveState"] == "active" and now["MainPID"] not in ("0", former):
            return now["MainPID"]
        if now["ActiveState"] == "failed":
            sys.exit("the unit has failed")
        time.sleep(0.02)


took = []
main = properties()["MainPID"]
for _ in range(int(sys.argv[1])):
    begun = time.monotonic()
    os.kill(int(main), signal.SIGKILL)
    main = active_after(main)
    took.append(time.monotonic() - begun)
took.sort()
print(json.dumps({"kills": len(took), "median": took[len(took) // 2], "most": took[-1]}))
