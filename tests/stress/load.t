#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What may happen to a loaded machine: the module goes and comes back, and so do
CPUs; namespaces go for good. No request fails that was not to the namespace."""

import os
import random
import sys
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "servers"))
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C
from nginx import Load, Nginx, with_library  # noqa: E402
from proxy import Haproxy  # noqa: E402

RELOADS = int(os.environ.get("RELOADS", 100))


def served_proxy(stack):
    """HAProxy (port 8070) before nginx (port 8080) on loopback, both with the library."""
    steer(1, STEER_PORT, range(4))
    back = Nginx(8080, fastsocket=True)
    stack.callback(back.stop)
    front = Haproxy("127.0.0.1", 8070, "127.0.0.1", 8080, env=with_library())
    stack.callback(front.stop)


def core_local():
    """Both servers accept and connect core-locally."""
    d = Delta()
    work = Load(8070, 8)
    wait_for(lambda: d.accept_local > 20 and d.connect_local > 20, 10)
    assert work.result()[1] == 0


@case
def reloads(stack):
    """rmmod and insmod a hundred times under a loaded proxy: no request fails, and it is core-local again."""
    served_proxy(stack)
    core_local()
    work = Load(8070, 8)
    for _ in range(RELOADS):
        time.sleep(random.uniform(0, 0.2))
        # A call that is under way holds the module.
        wait_for(lambda: "in use" not in run("rmmod", "fastsocket", check=False), 30)
        assert not loaded()
        time.sleep(random.uniform(0, 0.1))
        load()
    requests, failed = work.result()
    print("# %d requests, %d reloads" % (requests, RELOADS))
    assert failed == 0 and requests > RELOADS
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


load()
main()
