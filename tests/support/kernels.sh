#!/bin/sh
# The first process of a machine of tests/kernels: runs /script in the working tree, and ends the machine.
export PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8 PYTHONPATH=/src/tests ECHOD_TEST_DEADLINE=200
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for folder in /dev/shm /run /tmp; do
    mkdir -p $folder
    mount -t tmpfs tmpfs $folder
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
chmod 1777 /tmp
ip link set lo up
depmod
cd /src || exit
sh /script
echo "exit code: $?"
sync
echo b >/proc/sysrq-trigger
