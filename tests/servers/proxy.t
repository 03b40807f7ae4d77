#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Both halves of a proxied connection on one core: an unmodified HAProxy on a
virtual card prepared by "fastsocket nic setup", in each steering mode."""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../kmod"))
from fstest import (Delta, case, filed, load, main, nic_wire, run, stats, subnet6,  # noqa: E402
                    sysctl, sysctl_for, table, wait_for, wire)
from nginx import Load, with_library  # noqa: E402
from proxy import Haproxy, PacketWitness, backend  # noqa: E402

SUBNET = "198.51.100"
PORT = 80
CPUS = os.cpu_count()
TOOL = os.environ["FASTSOCKET_TOOL"]
SECONDS = 4


def nic(stack, dev, mode):
    print("# " + run(TOOL, "nic", "setup", "--steer", mode, dev).replace("\n", "\n# "))
    stack.callback(run, TOOL, "nic", "reset", dev)


def haproxy(stack, fastsocket=True, **kwargs):
    kwargs.setdefault("threads", CPUS)
    server = Haproxy(SUBNET + ".1", PORT, SUBNET + ".2", 8080,
                     env=with_library() if fastsocket else None, **kwargs)
    stack.callback(server.stop)
    return server


def warm(clients=16):
    """Until each thread has accepted."""
    load_ = Load(PORT, clients, SUBNET + ".1", netns="clients")
    time.sleep(2)
    wait_for(lambda: len(table("listeners")) == CPUS, 30)
    assert load_.result()[1] == 0


def measure(clients=16):
    """(packets on the owner's core, packets, failed requests), and the module's view."""
    witness = PacketWitness()
    d = Delta()
    load_ = Load(PORT, clients, SUBNET + ".1", netns="clients")
    time.sleep(SECONDS)
    requests, failed = load_.result()
    here, packets = witness.result()
    counts = {name: getattr(d, name) for name in (
        "passive_local", "passive_remote", "passive_missed", "active_local",
        "active_remote", "active_missed", "connect_local", "connect_stock",
        "accept_local", "accept_remote", "accept_slow")}
    print("# %d requests, %d of %d packets core-local; %s" % (requests, here, packets, counts))
    assert requests > 50
    return here, packets, failed, counts


def local(stack):
    warm()
    here, packets, failed, n = measure()
    assert failed == 0
    assert here >= 0.99 * packets, (here, packets)
    total = sum(n[k] for k in n if k.startswith(("passive", "active")))
    assert n["passive_remote"] + n["active_remote"] <= 0.01 * total, n
    # A request in one batch with the ACK before it comes too early for the table.
    assert n["passive_missed"] + n["active_missed"] <= 0.1 * total, n
    assert n["connect_stock"] == 0 and n["connect_local"] > 50, n


def in_mode(mode):
    def check(stack):
        nic_wire(stack, "clients", SUBNET)
        nic(stack, "nic0", mode)
        backend(stack, "clients")
        haproxy(stack)
        local(stack)
    check.__name__ = mode
    check.__doc__ = ("HAProxy's packets are processed on their owner's core by steering mode " +
                     mode)
    return case(check)


in_mode("ntuple")
in_mode("rss")
in_mode("xdp")


load()
main()
