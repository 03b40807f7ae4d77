#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Many connections, and then everything is as it was. CONNECTIONS says how many."""

import os
import sys
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "servers"))
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C
from nginx import Nginx  # noqa: E402

CONNECTIONS = int(os.environ.get("CONNECTIONS", 200000))
NAMESPACES = 20
# How many more there may be of each: the rest of the machine has some, too.
SLACK = {"TCP": 4, "TCPv6": 4, "request_sock_TCP": 4, "tw_sock_TCP": 4, "fs_conn": 200,
         "sock_inode_cache": 200, "filp": 200, PEERS: 200, "skbuff_head_cache": 200,
         "net_namespace": 0, "sockets": 4, "module": 0}


def meminfo(name):
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(name + ":"))


def left():
    """The connections that are left: in the module's tables, and the kernel's."""
    return filed(), run("ss", "-Htan", "state", "connected").strip()


def settled():
    """What stays in the module's tables: an orphan whose FIN found no memory never ends
    (tcp_send_fin(); also without the module), and stress/faults.t may have left some."""
    count, since = filed(), time.monotonic()
    while count and time.monotonic() < since + 10 * SLOW:
        time.sleep(0.1)
        if filed() != count:
            count, since = filed(), time.monotonic()
    return count


def inventory(stuck):
    """What is in use of each kind, when no connection but those is left."""
    end = time.monotonic() + 120 * SLOW
    while left() != (stuck, ""):
        assert time.monotonic() < end, left()
        time.sleep(0.1)
    used = {name: objects(name) for name in SLACK if name not in ("sockets", "module")}
    with open("/proc/net/sockstat") as f:
        used["sockets"] = int(f.readline().split()[2])
    with open("/sys/module/fastsocket/refcnt") as f:
        used["module"] = int(f.read())
    return used


def namespace(count):
    """One with local listeners, @count connections of each CPU and steering, that its sockets
    outlive."""
    with contextlib.ExitStack() as sockets:
        with contextlib.ExitStack() as inside:
            unshare_net(inside)
            steer(1, STEER_PORT, range(4))
            parent = listener(sockets, "::")
            locals_ = [spawn(sockets, parent, cpu) for cpu in range(4)]
            for n in range(4 * count):
                client = core_connect(sockets, ("127.0.0.1", "::1")[n % 2], port_of(parent), n % 4)
                talk(client, sockets.enter_context(locals_[n % 4].take()))
            counts = stats()
            assert counts["accept_local"] + counts["accept_remote"] == 4 * count, counts
            assert counts["connect_local"] == 4 * count, counts
        assert filed() >= 8 * count


def work(count):
    """@count requests through both of the module's ways: in and out."""
    done = 0
    before = stats()["accept_local"]
    generator = os.environ["FASTSOCKET_LOAD"]
    process = subprocess.Popen([generator, "127.0.0.1", "8070", "32"], text=True,
                               env=dict(os.environ, LD_PRELOAD=os.environ["FASTSOCKET_LIB"]),
                               stdout=subprocess.PIPE)
    while done < count:
        time.sleep(0.5)
        done = stats()["accept_local"] - before
    process.terminate()
    requests, failed = map(int, process.communicate(timeout=120)[0].splitlines()[-1].split())
    assert not failed
    return requests


@case
def churn(stack):
    """200,000 connections: slabs, sockets, namespaces and the module's references return to where they were."""
    # TIME_WAIT would be many slabs for a minute.
    sysctl_for(stack, "net.ipv4.tcp_max_tw_buckets", 0)
    steer(1, STEER_PORT, range(4))
    stuck = settled()
    server = Nginx(8070, fastsocket=True)
    stack.callback(server.stop)
    wait_for(lambda: len(listeners_of(8070)) == 4, 20)
    work(CONNECTIONS // 20)
    namespace(8)
    before, slab = inventory(stuck), meminfo("SUnreclaim")
    d = Delta()
    requests = work(CONNECTIONS)
    inventory(stuck)
    growth = meminfo("SUnreclaim") - slab
    for _ in range(NAMESPACES):
        namespace(8)

    def more():
        """What there is too much of. Namespaces go at their leisure."""
        after = inventory(stuck)
        return {name: (count, after[name]) for name, count in before.items()
                if after[name] > count + SLACK[name]}
    end = time.monotonic() + 60 * SLOW
    while more() and time.monotonic() < end:
        time.sleep(1)
    kept = more()
    print("# %d requests, %d of them by core-local ports; %s -> %s; unreclaimable slab %+d KiB" % (
        requests, d.connect_local, before, inventory(stuck), growth))
    assert d.connect_local > requests / 2
    assert not kept, kept
    # Not so much as 16 bytes of each connection stay.
    assert QUARANTINE or growth < max(2048, CONNECTIONS * 16 / 1024), growth


load(patient=False)
main()
