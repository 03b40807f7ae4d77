#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""In the virtual machine: have the servers of one workload work in each design in
turn, and mark a window of each for the sharing meter.

usage: measure.py WORKLOAD CORES CLIENTS REPETITIONS CONNECTIONS DESIGN...

A window begins when the same number of connections has gone by without one. How
many it has, the meter counts: the steps (see sharing.c)."""

import contextlib
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from bench import DESIGNS, Wire, clients, peer, say, server, tree, wait_opened  # noqa: E402
from fstest import run, sockstat, sysctl, sysctl_for, wait_for  # noqa: E402

MARK = tree + "/build/mark"
SECONDS = 600


def keep_house(cores, others):
    """The kernel's threads and work that are bound to no core, to the clients' cores."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open("/proc/%s/stat" % pid) as f:
            # Behind the name: its state, its parent.
            if f.read().rpartition(")")[2].split()[1] == "2":
                os.sched_setaffinity(int(pid), range(cores, cores + others))
    with open("/sys/devices/virtual/workqueue/cpumask", "w") as f:
        f.write("%x" % ((1 << cores + others) - (1 << cores)))


def note_module(noted):
    """The module's symbols, wherever it has been loaded this time, but for those @noted."""
    with open("/proc/kallsyms") as f:
        rows = {row for row in f if row.endswith("[fastsocket]\n")} - noted
    noted |= rows
    with open(os.environ["OUT"] + "/kallsyms", "a") as f:
        f.writelines(rows)


def forget():
    """End all that is in TIME_WAIT, as it would end in the window of the next design. For
    servers that is the same in all of them; but ports of connect() are not each core's own
    in all."""
    def gone():
        run("ss", "-KHt", "state", "time-wait", "state", "fin-wait-2")
        return not sockstat()["tw"]
    wait_for(gone, 60)


def main():
    workload, *numbers = sys.argv[1:6]
    cores, others, repetitions, connections = map(int, numbers)
    # What watches for time is not to be measured.
    for name in "kernel.watchdog", "kernel.numa_balancing":
        with contextlib.suppress(FileNotFoundError):
            sysctl(name, 0)
    keep_house(cores, others)
    with contextlib.ExitStack() as stack:
        # In so small a machine, many would go without TIME_WAIT.
        sysctl_for(stack, "net.ipv4.tcp_max_tw_buckets", 1 << 18)
        wire = Wire(stack, cores, others)
        # All but the servers, and this program, too.
        os.sched_setaffinity(0, range(cores, cores + others))
        stack.enter_context(peer(wire, workload))
        # The meter reads it when it is told to watch.
        shutil.copy("/proc/kallsyms", os.environ["OUT"] + "/kallsyms")
        os.chmod(os.environ["OUT"] + "/kallsyms", 0o644)
        subprocess.run([MARK, "watch"], check=True)
        noted = set()
        # The first round is for the kernel's caches, and has no window.
        for repetition in range(repetitions + 1):
            for design in sys.argv[6:]:
                # It takes a minute where clients have these cores to themselves.
                with server(wire, workload, design, loaded=lambda: note_module(noted)), \
                        clients(wire, workload, 4 * cores):
                    wait_opened(workload, connections, SECONDS)
                    if repetition:
                        subprocess.run([MARK, "begin", str(DESIGNS.index(design) + 1)],
                                       check=True)
                        wait_opened(workload, connections, SECONDS)
                        subprocess.run([MARK, "end"], check=True)
                        say("%s, %d cores: %s, %d of %d" % (workload, cores, design,
                                                           repetition, repetitions))
                if workload == "connect":
                    forget()


main()
