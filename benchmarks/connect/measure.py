#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What connect() costs when a part of the ports towards its destination is in
use: the stock kernel's, of all ports, and the library's, of one core's.

Both are the same program in the same namespace, without and with the library,
in turns. Their destinations differ, so that each has ports of its own to fill:
ports are taken per destination. Both are beyond a dummy device, where every SYN
is dropped: what is measured is connect() itself, without a peer's work."""

import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from bench import module, tree, write  # noqa: E402
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

PROGRAM = os.path.join(tree, "build", "connect")
LIBRARY = os.path.realpath(os.path.join(tree, "preload", "libfsocket.so"))
STOCK, LOCAL = "10.99.1.1", "10.99.1.2"
CLASSES = 4
LOW = 32768


class Filler:
    """Connections that take ports: of all, or with "local" of CPU 0."""

    def __init__(self, stack, *args):
        self.process = stack.enter_context(subprocess.Popen(
            ["taskset", "-c", "0", PROGRAM, "fill", *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        stack.callback(self.process.stdin.close)

    def to(self, count):
        self.process.stdin.write("%d\n" % count)
        self.process.stdin.flush()
        have = int(self.process.stdout.readline())
        assert have == count, "%d connections instead of %d" % (have, count)


def sample(addr, count, library=""):
    out = subprocess.run(["taskset", "-c", "0", PROGRAM, "sample", addr, "80", str(count)],
                         env=dict(os.environ, LD_PRELOAD=library), text=True,
                         stdout=subprocess.PIPE, check=True).stdout
    return statistics.median(map(int, out.split()))


def measure(ports=8192, levels=(0, 50, 90, 95, 99), batches=9, count=40):
    """Per level of occupancy, in %: the medians of all batches, stock and local, in ns."""
    result = {}
    with contextlib.ExitStack() as stack:
        unshare_net(stack)
        blackhole(LOW, LOW + ports - 1)
        steer(socket.if_nametoindex("blackhole"), STEER_PORT, range(CLASSES))
        stock = Filler(stack, STOCK, "80")
        local = Filler(stack, LOCAL, "80", "local")
        for level in levels:
            stock.to(ports * level // 100)
            local.to(ports // CLASSES * level // 100)
            d = Delta()
            times = [], []
            for _ in range(batches):
                times[0].append(sample(STOCK, count))
                times[1].append(sample(LOCAL, count, LIBRARY))
            assert d.connect_stock == 0 and d.connect_local >= batches * count, stats()
            result[level] = times
    return result


def main():
    ports = int(os.environ.get("PORTS", 8192))
    print("connect(), Linux %s, %d CPUs (%s), %d ports, %d of them of the core" % (
        os.uname().release, os.cpu_count(), os.environ.get("FASTSOCKET_ACCEL", "no emulation"),
        ports, ports // CLASSES))
    print("%8s %12s %8s %12s %8s %8s" % (
        "in use", "stock ns", "to 0 %", "core ns", "to 0 %", "stock/core"))
    with module():
        levels = measure(ports)
    first = None
    for level, times in levels.items():
        stock, local = map(statistics.median, times)
        write("connect", occupancy=level, ports=ports, stock_ns=stock, local_ns=local,
              stock_all=times[0], local_all=times[1])
        first = first or (stock, local)
        print("%6d %% %12.0f %7.2fx %12.0f %7.2fx %9.1fx" % (
            level, stock, stock / first[0], local, local / first[1], stock / local),
            flush=True)


if __name__ == "__main__":
    main()
