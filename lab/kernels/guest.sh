# SPDX-License-Identifier: MIT
# shellcheck shell=dash source=/dev/null
# The first process of a guest once its root file system stands: runs the command, hands the results over, ends.
# What the machine is told: NUL bytes on the console while the guest lives; on the results' disk a tar file.
own=/run/lab
box() { "$own/busybox" "$@"; }

disk() {
    for block in /sys/block/vd*; do
        [ "$(cat "$block/serial")" != "$1" ] || echo "/dev/${block##*/}"
    done
}

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
# Nothing loads it by itself, and where it is built in there is nothing to load: a node has it by its set-up (kubeadm).
modprobe -q br_netfilter || true
box hostname guest
box stty -F /dev/ttyS1 raw

mkdir -p "$own/out/files"
mkfifo "$own/output"
box cat "$own/output" >/dev/ttyS1 &
printer=$!
(while :; do
    printf '\0'
    box sleep 1
done >/dev/ttyS0 2>/dev/null) &
heart=$!
for process in $printer $heart; do
    echo -1000 >"/proc/$process/oom_score_adj"
done

(
    export PATH=/mnt/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export HOME=/root USER=root LOGNAME=root SHELL=/bin/bash LANG=C.UTF-8 TERM=dumb
    export LAB_RESULTS="$own/out/files" PYTHONDONTWRITEBYTECODE=1
    . /mnt/lab/environment
    cat "$(disk command)" >"$own/command"
    cd /mnt/lab/project || exit
    exec sh "$own/command" >"$own/output" 2>&1 </dev/null
)
echo "$?" >"$own/out/exit-code"

# What the command left running must neither write any more nor keep its output open. The kernel's own threads
# have no command line, and take no signal.
for directory in /proc/[0-9]*; do
    process=${directory#/proc/}
    case $process in
    1 | "$printer" | "$heart") ;;
    *) kill -9 "$process" ;;
    esac
done 2>/dev/null
wait "$printer"
tar -cf "$(disk results)" -C "$own/out" . || echo "lab: guest: the results do not fit" >/dev/console
box sync
box reboot -f
