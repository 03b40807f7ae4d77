#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What may happen to a loaded machine: the module goes and comes back, and so do
CPUs; namespaces go for good; a user closes listeners all the time. No request
fails that was not to the namespace."""

import os
import random
import subprocess
import sys
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "servers"))
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C
from nginx import Load, Nginx, with_library  # noqa: E402
from proxy import Haproxy  # noqa: E402

RELOADS = int(os.environ.get("RELOADS", 100))


def served_proxy(stack, **options):
    """HAProxy (port 8070) before nginx (port 8080) on loopback, both with the library."""
    steer(1, STEER_PORT, range(4))
    back = Nginx(8080, fastsocket=True)
    stack.callback(back.stop)
    front = Haproxy("127.0.0.1", 8070, "127.0.0.1", 8080, env=with_library(), **options)
    stack.callback(front.stop)


def grown(name, since=None):
    """A counter by CPU, or how much it has grown."""
    now = [int(row[name]) for row in table("stats")]
    return [a - b for a, b in zip(now, since)] if since else now


def core_local():
    """Both servers accept and connect core-locally, on each CPU."""
    before = {name: grown(name) for name in ("accept_local", "connect_local")}

    def growth():
        return {name: grown(name, since) for name, since in before.items()}
    work = [Load(8070, 2, cpus=str(cpu)) for cpu in range(4)]
    try:
        wait_for(lambda: all(min(by_cpu) > 10 for by_cpu in growth().values()), 20)
    finally:
        failed = sum(load_.result()[1] for load_ in work)
        print("# by CPU: %s" % growth())
    assert failed == 0


def in_use():
    """The ports of local listeners that have accepted since the module was loaded."""
    return {row["port"] for row in table("listeners")
            if row["state"] == "live" and int(row["accepted"]) > 0}


@case
def reloads(stack):
    """rmmod and insmod a hundred times under a loaded proxy: no request fails, and it is core-local again."""
    # In its chroot() it would not find the module again.
    served_proxy(stack, chroot=False)
    core_local()
    # One that does not is to fail nobody, either.
    chrooted = Haproxy("127.0.0.1", 8071, "127.0.0.1", 8080, env=with_library())
    stack.callback(chrooted.stop)
    loads = [Load(8070, 6), Load(8071, 2)]
    used, both = [], {"8070", "8080"}
    for turn in range(RELOADS):
        # The races are in the short ones; but the library takes up to a second to see
        # that the module is back.
        if turn % 2:
            time.sleep(random.uniform(0, 0.2))
        else:
            wait_for(lambda: in_use() >= both, 20)
        used.append(in_use())
        unload()
        time.sleep(random.uniform(0, 0.1))
        load(patient=False)
    requests, failed = map(sum, zip(*(load_.result() for load_ in loads)))
    print("# %d requests, %d reloads, %d of them with local listeners in use" % (
        requests, RELOADS, sum(map(bool, used))))
    assert failed == 0 and requests > RELOADS
    assert sum(ports >= both for ports in used) >= RELOADS / 2
    steer(1, STEER_PORT, range(4))
    core_local()


@case
def hotplug(stack):
    """CPUs go offline and come back under load: no request fails, and all of them have their share again."""
    def online(cpu, value):
        with open("/sys/devices/system/cpu/cpu%d/online" % cpu, "w") as f:
            f.write(value)
    if not os.path.exists("/sys/devices/system/cpu/cpu3/online"):
        raise Skip("this machine's CPUs cannot go offline")
    served_proxy(stack)
    core_local()
    for cpu in (1, 2, 3):
        stack.callback(online, cpu, "1")
    work = Load(8070, 8)
    for cpus in ((3,), (2,), (1, 2, 3), (1, 3), (2,)):
        for cpu in cpus:
            online(cpu, "0")
            time.sleep(0.3)
        for cpu in cpus:
            online(cpu, "1")
            time.sleep(0.3)
    requests, failed = work.result()
    print("# %d requests" % requests)
    assert failed == 0 and requests > 50
    core_local()


@case
def namespaces(stack):
    """Namespaces are deleted with servers and connections in them: each comes to its end, and the others are served."""
    served_proxy(stack)
    work = Load(8070, 4)
    for n in range(4):
        name = "gone%d" % n
        with contextlib.ExitStack() as inner:
            wire(inner, name, "10.70.%d" % n, "gone")
            run("ip", "-n", name, "link", "set", "lo", "up")
            with in_netns(name):
                served_proxy(inner)
                other = Load(8070, 4)
                time.sleep(1)
                assert table("listeners")
            # The namespace goes before what is in it, and its device at its end.
            run("ip", "netns", "del", name)
            other.load.kill()
            other.load.wait()
        wait_for(lambda: not os.path.exists("/sys/class/net/gone"), 60)
    requests, failed = work.result()
    print("# %d requests" % requests)
    assert failed == 0 and requests > 50


@case
def drains(stack):
    """Of one listener, 1024 closed local listeners at most wait for half-open connections that never end, for 10 s; others' are made and closed meanwhile as ever."""
    floodable(stack)
    hostile, parent = listener(stack), listener(stack)
    port = port_of(hostile)

    def others():
        started = time.monotonic()
        for _ in range(20):
            spawn(stack, parent, 1).close()
        return (time.monotonic() - started) / 20

    alone = others()
    started = time.monotonic()
    for turn in range(18):
        locals_ = [spawn(stack, hostile, 0) for _ in range(64)]
        with on_cpu(0):
            flood(port, 64, 64 * turn)      # one each, as they take turns
        for local in locals_:
            local.close()
        assert len(listeners_of(port)) <= 1024
    ended = time.monotonic()
    assert {row["state"] for row in listeners_of(port)} == {"draining"}
    if ended - started < 9:     # none has gone by itself yet
        assert len(listeners_of(port)) == 1024
        assert {row["half_open"] for row in listeners_of(port)} == {"1"}
    beside = others()
    wait_for(lambda: not listeners_of(port), 20)
    took = time.monotonic() - ended
    print("# closed within %.1f s, gone %.1f s later; another's listener made and closed in %.1f ms, alone %.1f ms" %
          (ended - started, took, 1000 * beside, 1000 * alone))
    assert took < 10 + SLOW and beside < 0.1 * SLOW


@case
def defer_close(stack):
    """TCP_DEFER_ACCEPT: a client that has sent nothing yet when its local listener closes is not lost, however late its next SYN-ACK."""
    unshare_net(stack)
    sysctl("net.ipv4.tcp_synack_retries", 2)
    parent = listener(stack, backlog=16, setup=deferring(200))
    locals_ = [spawn(stack, parent, cpu) for cpu in range(2)]
    clients = [connect(stack, "127.0.0.1", port_of(parent), cpu) for cpu in [0] + 10 * [1]]
    locals_[0].close()          # the timers are at 1, 3, 7, 15 and 31 s
    time.sleep(16)
    locals_[1].close()
    wait_for(lambda: not listeners_of(port_of(parent)), 30)
    all_heard(parent, clients)


@case
def rmmod_close(stack):
    """A local listener that closes while rmmod waits for its clients under TCP_DEFER_ACCEPT waits for them as long."""
    parent = listener(stack, setup=deferring(60))
    local = spawn(stack, parent, 0)
    clients = [connect(stack, "127.0.0.1", port_of(parent), 0) for _ in range(4)]
    time.sleep(16)              # the timers are at 15 and 31 s
    with subprocess.Popen(["rmmod", "fastsocket"]) as unloads:
        stack.callback(load, patient=False)
        time.sleep(1)
        assert unloads.poll() is None
        local.close()
        assert unloads.wait() == 0
    all_heard(parent, clients)


load(patient=False)
main()
