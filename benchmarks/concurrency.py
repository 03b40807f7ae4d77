#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Many idle connections: the kernel's memory that each takes, at both ends together, and the
latency on 1,000 active ones among them. The stock kernel against fastsocket.

usage: concurrency.py CORES CLIENTS REPETITIONS SECONDS CONNECTIONS"""

import contextlib
import os
import resource
import sys
import time

from bench import SUBNET, Ping, Wire, placed, say, server, write
from fstest import run, sockstat, sysctl_for, wait_for

ACTIVE = 1000
# Of each address. When half of them are taken, connect() searches long for another one.
PORTS = 20000


def memory():
    """What the kernel has in use: objects of slabs, however full those are, and what is
    too large for slabs."""
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")
    time.sleep(2)
    objects = pages = 0
    with open("/proc/slabinfo") as f:
        for row in f.read().splitlines()[2:]:
            words = row.split()
            active, _, size, _, per_slab = map(int, words[1:6])
            objects += active * size
            pages += int(words[words.index("slabdata") + 2]) * per_slab * resource.getpagesize()
    with open("/proc/meminfo") as f:
        info = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in f}
    return objects + info["Slab"] - pages + info["VmallocUsed"] + info["Percpu"]


def main():
    cores, others, repetitions, seconds, count = map(int, sys.argv[1:6])
    sources = [SUBNET + ".%d" % (10 + n) for n in range((count + ACTIVE) // PORTS + 1)]
    with contextlib.ExitStack() as stack:
        sysctl_for(stack, "fs.nr_open", 1 << 20)
        sysctl_for(stack, "fs.file-max", 4 << 20)
        wire = Wire(stack, cores, others)
        os.sched_setaffinity(0, range(cores, cores + others))
        for source in sources:
            run(*placed("clients"), "ip", "addr", "add", source + "/24", "dev", "eth0")
        run(*placed("clients"), "sysctl", "-q", "net.ipv4.ip_local_port_range=1024 65535")
        # The first round is for the kernel's caches, and not written down.
        for repetition in range(repetitions + 1):
            for design in "stock", "fastsocket":
                each, result = measure(wire, design, seconds,
                                       count if repetition else min(count, 10000), sources)
                if repetition:
                    write("concurrency", design=design, cores=cores, connections=count,
                          repetition=repetition, bytes_per_connection=round(each, 1), **result)
                    say("%s: %d idle connections, %.0f bytes each; p50 %.0f us, p99 %.0f us" % (
                        design, count, each, result["p50"], result["p99"]))


def measure(wire, design, seconds, count, sources):
    """Bytes for each idle connection, and what the active ones have had."""
    with server(wire, "pong", design):
        before = memory()
        with Ping(wire, ACTIVE, seconds, count, sources) as ping:
            each = (memory() - before) / count
            result = ping.result()
    # So that the next one begins with what this one began with.
    wait_for(lambda: not sockstat()["orphan"], 180)
    return each, result


main()
