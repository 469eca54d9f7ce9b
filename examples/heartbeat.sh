#!/bin/sh
# The smallest service: says on standard output that it lives, ends at SIGTERM.
trap 'echo "<5>told to end"; exit 0' TERM
beat=0
while :; do
    beat=$((beat + 1))
    echo "level=info msg=\"beat $beat\""
    sleep "${HEARTBEAT_SECONDS:-5}" &
    wait $!
done
