#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# shellcheck shell=dash
# The first process of a guest: puts the disks together to one root file system and goes over to it.
# Disks are told apart by their serial numbers, since their order is the kernel's choice.
/bin/busybox mkdir -p /dev /proc /sys /lower /upper /new
/bin/busybox --install -s /bin
export PATH=/bin

fail() {
    echo "lab: guest: $*" >/dev/console
    reboot -f
}

disk() {
    for block in /sys/block/vd*; do
        [ "$(cat "$block/serial")" != "$1" ] || { echo "/dev/${block##*/}" && return; }
    done
    fail "there is no disk $1"
}

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do
    insmod "/modules/$module" || fail "$module cannot be loaded"
done </modules/order

mount -t squashfs -o ro "$(disk root)" /lower || fail "no root file system"
mount -t tmpfs -o size=75% upper /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /new ||
    fail "no overlay"

modules=/new/usr/lib/modules/$(uname -r)
mkdir -p "$modules" /new/mnt/dependencies /new/mnt/lab
mount -t squashfs -o ro "$(disk modules)" "$modules" || fail "no modules"
mount -t squashfs -o ro "$(disk dependencies)" /new/mnt/dependencies || fail "no dependencies"
mount -t squashfs -o ro "$(disk project)" /new/mnt/lab || fail "no project"

for tree in dev proc sys; do
    mount -o move "/$tree" "/new/$tree"
done
mount -t tmpfs run /new/run
mkdir /new/run/lab
cp /bin/busybox /guest.sh /new/run/lab
exec switch_root /new /run/lab/busybox sh /run/lab/guest.sh
