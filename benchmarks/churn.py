#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What a reload costs: requests that fail while nginx reloads under load, with its
own SO_REUSEPORT, with that and tcp_migrate_req, and with fastsocket, and while its
workers are killed. The test of the same name is tests/servers/churn.t.

usage: churn.py REPETITIONS RELOADS"""

import contextlib
import os
import sys

from bench import module, say, tree, write
from fstest import sysctl_for

sys.path.insert(0, os.path.join(tree, "tests", "servers"))
from importlib.machinery import SourceFileLoader  # noqa: E402

churn = SourceFileLoader("churn", tree + "/tests/servers/churn").load_module().churn


def main():
    repetitions, reloads = map(int, sys.argv[1:3])
    with contextlib.ExitStack() as stack:
        sysctl_for(stack, "net.ipv4.tcp_migrate_req", 0)
        measure(repetitions, reloads)


def measure(repetitions, reloads):
    for repetition in range(1, repetitions + 1):
        for kind in "reload", "kill":
            for mode in "plain", "reuseport", "migrate", "fastsocket":
                design = {"plain": "stock"}.get(mode, mode)
                with module(design == "fastsocket"):
                    result = churn(mode, kind, reloads)
                write("churn", design=design, kind=kind,
                      repetition=repetition, count=reloads, requests=result["requests"],
                      failed=result["failed"],
                      failed_per_1000=1000 * result["failed"] / reloads)
                say("%s, %d x %s: %d of %d requests failed" % (
                    design, reloads, kind, result["failed"],
                    result["requests"] + result["failed"]))


main()
