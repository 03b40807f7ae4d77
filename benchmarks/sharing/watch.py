#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Beside an emulated machine that the meter watches: end the machine when it hangs.

usage: watch.py DIR SECONDS

It hangs when the meter has written nothing to DIR/meter for so long. First, what its
CPUs were doing goes to DIR.hung, three times a second apart: QEMU is asked, by its
protocol (QMP) at DIR/qmp."""

import json
import os
import socket
import sys
import time


def ask(qemu, command, **arguments):
    """What @qemu returns for @command; None if it is gone."""
    qemu.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    qemu.flush()
    for line in qemu:
        answer = json.loads(line)
        if "return" in answer:
            return answer["return"]
    return None


def main():
    directory, limit = sys.argv[1], float(sys.argv[2])
    start = time.time()
    while True:
        time.sleep(5)
        try:
            written = os.stat(directory + "/meter").st_mtime
        except FileNotFoundError:
            written = 0
        if time.time() - max(start, written) > limit:
            break
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(directory + "/qmp")
        with sock.makefile("rw") as qemu, open(directory + ".hung", "w") as f:
            ask(qemu, "qmp_capabilities")
            for _ in range(3):
                f.write(ask(qemu, "human-monitor-command",
                            **{"command-line": "info registers -a"}))
                time.sleep(1)
            ask(qemu, "quit")


main()
