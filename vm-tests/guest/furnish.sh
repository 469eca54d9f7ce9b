#!/bin/sh
# Run by mmdebstrap when the packages of a machine are installed: furnishes its root, then makes a
# disk of it. usage: furnish.sh ROOT OUT GUEST, the last being the folder of this file.
set -eu
root=$1 out=$2 guest=$3

echo machine >"$root/etc/hostname"
echo 127.0.0.1 localhost machine >"$root/etc/hosts"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo /dev/vda / ext4 rw 0 1 >"$root/etc/fstab"
touch "$root/etc/.updated" "$root/var/.updated"

install -m 644 "$guest/agent.py" "$root/usr/local/lib/agent.py"
install -m 644 "$guest/agent.service" "$guest/shell.service" "$root/etc/systemd/system/"
systemctl --root="$root" --quiet enable agent.service shell.service
# What would only keep a test machine busy, at its start or at a moment of its own.
systemctl --root="$root" --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
  e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer \
  getty@.service serial-getty@.service systemd-random-seed.service

cp "$root"/boot/vmlinuz-* "$out/kernel"
cp "$root"/boot/initrd.img-* "$out/initrd"
rm -rf "$root"/boot/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin
rm -f "$out/disk"
truncate -s 2G "$out/disk"
# Bound without what is mounted below it: /proc, /sys and more.
unshare --mount sh -c 'mount --bind "$1" /mnt && mke2fs -q -t ext4 -L root -d /mnt "$2"' \
  bind "$root" "$out/disk"
chmod a+r "$out"/*
