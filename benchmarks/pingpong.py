#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Small messages to and fro over 1 to CONNECTIONS established connections to an
epoll server: how many a second, and their latency. The stock kernel against
fastsocket, without and with busy polling.

usage: pingpong.py CORES CLIENTS REPETITIONS SECONDS CONNECTIONS"""

import contextlib
import os
import sys

from bench import Ping, Wire, say, server, write


def main():
    cores, others, repetitions, seconds, most = map(int, sys.argv[1:6])
    with contextlib.ExitStack() as stack:
        wire = Wire(stack, cores, others)
        os.sched_setaffinity(0, range(cores, cores + others))
        n = 1
        while n <= most:
            for repetition in range(1, repetitions + 1):
                said = []
                for design in "stock", "fastsocket", "fastsocket busy":
                    with server(wire, "pong", design):
                        result = Ping(wire, n, seconds).result()
                    write("pingpong", design=design, cores=cores, connections=n,
                          repetition=repetition, **result)
                    said.append("%s p50 %.0f us, p99 %.0f us" % (design, result["p50"],
                                                                result["p99"]))
                say("%d connections: %s" % (n, "; ".join(said)))
            n *= 2


main()
