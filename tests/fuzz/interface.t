#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Every ioctl, sysctl and file of the module, called with anything by anybody.
CALLS, SEED and THREADS select; what a run printed as its seed repeats the calls, and with
one thread their order."""

import os
import random
import re
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

CALLS = int(os.environ.get("CALLS", 1000000))
SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
THREADS = int(os.environ.get("THREADS", 8))


def fuzz(stack, who):
    """Half of the calls; returns how often each kind of call gave what."""
    load(patient=False)
    nic_load()
    print("# SEED=%d, %d calls, %d threads" % (SEED, CALLS // 2, THREADS), flush=True)
    said = run(os.environ["FASTSOCKET_INTERFACE"], who, str(CALLS // 2), str(SEED),
               str(THREADS))
    print("".join("# %s\n" % line for line in said.splitlines()), end="", flush=True)
    wait_for(lambda: not filed(), 120)
    assert table("listeners", "1") == []
    run("rmmod", "fastsocket")
    load(patient=False)
    parent = listener(stack)
    child = spawn(stack, parent, 0)
    conn = connect(stack, "127.0.0.1", port_of(parent), 0)
    talk(conn, stack.enter_context(child.take()))
    got = {what: dict((e, int(n)) for e, n in re.findall(r"(\w+)=(\d+)", rest))
           for what, _, rest in (line.partition(":") for line in said.splitlines())}
    # Kernels with calls of 32 bits have this.
    if os.path.exists("/proc/sys/abi/vsyscall32"):
        for what in ("info", "spawn", "port"):
            assert got["32-bit " + what].get("ok"), what
    return got


@case
def nobody(stack):
    """A user without privilege may call anything: what is not theirs is refused, nothing breaks, nothing stays behind."""
    got = fuzz(stack, "user")
    for what in ("info", "spawn", "sync", "port", "ports given", "reads"):
        assert got[what].get("ok"), what
    assert set(got["steer"]) | set(got.get("32-bit steer", ())) == {"EPERM"}
    assert set(got["sysctl writes"]) == {"EACCES"}


@case
def root_of_namespace(stack):
    """Nor does the root user of a user namespace break anything, who may steer and set the sysctls there."""
    got = fuzz(stack, "root")
    for what in ("info", "spawn", "sync", "steer", "steer by RSS", "port", "sysctl writes", "reads"):
        assert got[what].get("ok"), what


main()
