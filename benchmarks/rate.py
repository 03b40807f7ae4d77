#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""How many short connections a server takes: nginx and HAProxy with a connection
for each request, on 1 to CORES cores, in the four designs in turn.

usage: rate.py CORES CLIENTS REPETITIONS SECONDS

The numbers of emulated CPUs can be compared with one another and with nothing
else: they are as many as the host has time for."""

import contextlib
import os
import sys
import time

from bench import DESIGNS, Wire, clients, counters, opened, peer, say, server, write


def core_counts(most):
    """1, 2, 4, ... and @most."""
    return [n for n in (1 << i for i in range(most.bit_length())) if n < most] + [most]


def main():
    cores, others, repetitions, seconds = map(int, sys.argv[1:5])
    with contextlib.ExitStack() as stack:
        wire = Wire(stack, cores, others)
        os.sched_setaffinity(0, range(cores, cores + others))
        for workload in "nginx", "haproxy":
            with peer(wire, workload):
                for n in core_counts(cores):
                    for repetition in range(1, repetitions + 1):
                        measure(wire, workload, n, repetition, seconds)


def measure(wire, workload, n, repetition, seconds):
    rates = []
    for design in DESIGNS:
        with server(wire, workload, design, n), clients(wire, workload, 8 * wire.cores):
            time.sleep(1)
            before, start = opened(workload), time.monotonic()
            with counters(n) as counted:
                time.sleep(seconds)
            count, passed = opened(workload) - before, time.monotonic() - start
        rates.append("%s %.0f" % (design, count / passed))
        write("rate", workload=workload, design=design, cores=n, repetition=repetition,
              requests_per_s=round(count / passed, 1),
              counters={name: round(value / count, 1) for name, value in counted.items()})
    say("%s, %d cores, requests/s: %s" % (workload, n, ", ".join(rates)))


main()
