#!/bin/bash
# The first process of the netem kernel (see run): it sets up the system, runs the command and
# halts. JOB is the folder of this run and BEGAN its start time; run sets both.
exec >>"$JOB/output" 2>&1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
# the kernel has already mounted /dev
ln -s /proc/self/fd /dev/fd
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run

# shellcheck disable=SC1091  # written by run
. "$JOB/environment"

seconds() { awk -v since="$BEGAN" -v now="$(date +%s%N)" 'BEGIN {printf "%.1f", (now - since) / 1e9}'; }

control_groups() {
    mount -t tmpfs cgroup /sys/fs/cgroup
    local name enabled
    while read -r name _ _ enabled; do
        [ "$enabled" = 1 ] || continue
        mkdir "/sys/fs/cgroup/$name"
        mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name"
    done < <(grep -v '^#' /proc/cgroups)
}

legacy_iptables() {
    # this kernel has no nat for nft
    mkdir /run/legacy
    local tool
    for tool in iptables ip6tables iptables-save iptables-restore; do
        ln -s "$(command -v "${tool/tables/tables-legacy}")" "/run/legacy/$tool"
    done
    export PATH=/run/legacy:$PATH
}

engine() {
    mkdir /run/docker-data
    mount /dev/ubda /run/docker-data
    dockerd --data-root /run/docker-data >"$JOB/dockerd.log" 2>&1 </dev/null &
    local dockerd=$!
    while ! docker info >/dev/null 2>&1; do
        kill -0 "$dockerd" 2>/dev/null || { tail -n 5 "$JOB/dockerd.log"; return 1; }
        sleep 0.5
    done
    echo "netem kernel: Docker Engine answers after $(seconds) s"
}

# halt CODE : writes the exit code for run and stops the kernel
halt() {
    sync
    echo "$1" >"$JOB/exit_code"
    echo o >/proc/sysrq-trigger
    sleep 60
}

ip link set lo up
modprobe -a sch_netem sch_tbf sch_htb sch_ingress ifb act_mirred cls_u32 cls_matchall \
    veth bridge overlay br_netfilter iptable_nat iptable_filter xt_conntrack xt_addrtype \
    xt_MASQUERADE xt_mark xt_nat xt_tcpudp
echo "netem kernel: $(uname -r) booted after $(seconds) s"

if [ -n "$(cat "${JOB%/*}/disk.images")" ]; then
    control_groups
    legacy_iptables
    engine || halt 1
fi

# a health check takes 1.5 s of this kernel's one CPU, and a stack has eleven health checks
export WDMOE_HEALTH_INTERVAL=10m

cd "$PWD" || halt 1
bash "$JOB/command"
code=$?
echo "netem kernel: command ended with $code after $(seconds) s"
halt "$code"
