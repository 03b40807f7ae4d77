#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Both halves of a proxied connection on one core: an unmodified HAProxy on a
virtual card prepared by "fastsocket nic setup", in each steering mode."""

import os
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../kmod"))
from fstest import (PEERS, SLOW, Delta, Skip, case, filed, in_netns, load, main,  # noqa: E402
                    nic_wire, objects, run, subnet6, sysctl, table, wait_for, wire)
from nginx import Load, Nginx, with_library  # noqa: E402
from proxy import Haproxy, PacketWitness, backend  # noqa: E402

SUBNET = "198.51.100"
PORT = 80
CPUS = os.cpu_count()
TOOL = os.environ["FASTSOCKET_TOOL"]
SECONDS = 3 * SLOW


def nic(stack, dev, mode):
    print("# " + run(TOOL, "nic", "setup", "--steer", mode, dev).replace("\n", "\n# "))
    stack.callback(run, TOOL, "nic", "reset", dev)


def haproxy(stack, fastsocket=True, addr=SUBNET + ".1", server=SUBNET + ".2", **kwargs):
    proxy = Haproxy(addr, PORT, server, 8080, threads=CPUS,
                    env=with_library() if fastsocket else None, **kwargs)
    stack.callback(proxy.stop)
    return proxy


def warm(addr=SUBNET + ".1", clients=16):
    """Until each thread has accepted."""
    load_ = Load(PORT, clients, addr, netns="clients")
    time.sleep(2 * SLOW)
    wait_for(lambda: len(table("listeners")) == CPUS, 30)
    assert load_.result()[1] == 0


def seen():
    return witness.counts() if witness else (0, 0)


def measure(addr=SUBNET + ".1", clients=16, during=None):
    """(packets on the owner's core, packets, failed requests), and the module's view."""
    before = seen()
    d = Delta()
    load_ = Load(PORT, clients, addr, netns="clients")
    if during:
        during()
    else:
        time.sleep(SECONDS)
    requests, failed = load_.result()
    here, packets = (a - b for a, b in zip(seen(), before))
    counts = {name: getattr(d, name) for name in (
        "passive_local", "passive_remote", "passive_missed", "active_local",
        "active_remote", "active_missed", "connect_local", "connect_stock",
        "accept_local", "accept_remote", "accept_slow")}
    print("# %d requests, %d of %d packets core-local; %s" % (requests, here, packets, counts))
    assert requests > 50 / SLOW
    return here, packets, failed, counts


def local(addr=SUBNET + ".1"):
    """Nearly all packets on the owner's core, as the witness and the module see it."""
    warm(addr)
    here, packets, failed, n = measure(addr)
    assert failed == 0
    assert here >= 0.99 * packets, (here, packets)
    total = sum(n[k] for k in n if k.startswith(("passive", "active")))
    assert n["passive_remote"] + n["active_remote"] <= 0.01 * total, n
    # A request in one batch with the ACK before it comes too early for the table.
    assert n["passive_missed"] + n["active_missed"] <= 0.1 * total, n
    assert n["connect_stock"] == 0 and n["connect_local"] > 50 / SLOW, n


def in_mode(mode):
    def check(stack):
        nic_wire(stack, "clients", SUBNET)
        nic(stack, "nic0", mode)
        backend(stack, "clients")
        haproxy(stack)
        local()
    check.__name__ = mode
    check.__doc__ = ("HAProxy's packets are processed on their owner's core by steering mode " +
                     mode)
    return case(check)


in_mode("ntuple")
in_mode("rss")
in_mode("xdp")


@case
def xdp_veth(stack):
    """Mode xdp does the same on veth, which has one queue and neither rules nor hash."""
    wire(stack, "clients", SUBNET)
    nic(stack, "wire", "xdp")
    backend(stack, "clients")
    haproxy(stack)
    local()


@case
def ipv6(stack):
    """IPv6 alike."""
    nic_wire(stack, "clients", SUBNET)
    nic(stack, "nic0", "auto")
    backend(stack, "clients", "[::]:8080")
    ours = subnet6(SUBNET) + "1"
    haproxy(stack, addr=ours, server=subnet6(SUBNET) + "2")
    local(ours)


@case
def processes(stack):
    """So are those of a proxy of processes (nginx)."""
    nic_wire(stack, "clients", SUBNET)
    nic(stack, "nic0", "auto")
    backend(stack, "clients")
    proxy = Nginx(PORT, workers=CPUS, fastsocket=True,
                  location="proxy_pass http://%s.2:8080;" % SUBNET)
    stack.callback(proxy.stop)
    local()


@case
def source(stack):
    """HAProxy's "source" keeps the address, and the port is still core-local."""
    nic_wire(stack, "clients", SUBNET)
    run("ip", "addr", "add", SUBNET + ".7/24", "dev", "nic0")
    nic(stack, "nic0", "auto")
    backend(stack, "clients")
    haproxy(stack, backend="source %s.7" % SUBNET)
    local()
    used = run("ss", "-Htan", "state", "time-wait", "src", SUBNET + ".7")
    used += run("ip", "netns", "exec", "clients", "ss", "-Htan", "dst", SUBNET + ".7")
    assert ":8080" in used, used


@case
def stock(stack):
    """Without fastsocket, about one packet in as many as there are CPUs is."""
    if not witness:
        raise Skip("nothing sees packets on a kernel with instruments")
    nic_wire(stack, "clients", SUBNET)
    nic(stack, "nic0", "off")
    backend(stack, "clients")
    haproxy(stack, fastsocket=False,
            main="cpu-map auto:1/1-%d 0-%d" % (CPUS, CPUS - 1))
    here, packets, failed, n = measure()
    assert failed == 0 and n["connect_local"] == 0
    assert here < 0.6 * packets, (here, packets)


@case
def switched_under_load(stack):
    """Both sysctls switched under load, and the module unloaded: no request fails."""
    nic_wire(stack, "clients", SUBNET)
    nic(stack, "nic0", "auto")
    backend(stack, "clients")
    haproxy(stack)
    warm()

    def switch():
        for n in range(12):
            for name in "established", "receive_flow_deliver":
                sysctl("net.fastsocket." + name, n >> (name == "established") & 1)
            time.sleep(0.3)
        for name in "established", "receive_flow_deliver":
            sysctl("net.fastsocket." + name, 1)

    failed = measure(during=switch)[2]
    assert failed == 0
    load_ = Load(PORT, 16, SUBNET + ".1", netns="clients")
    time.sleep(1)
    run("rmmod", "fastsocket")
    time.sleep(1)
    load(patient=False)
    time.sleep(1)
    assert load_.result()[1] == 0


@case
def churn(stack):
    """Many connections, many of them reset: no error, and no memory is lost."""
    nic_wire(stack, "clients", SUBNET)
    nic(stack, "nic0", "auto")
    backend(stack, "clients")
    haproxy(stack)

    def memory():
        """Sockets and their like that are in use."""
        wait_for(lambda: filed() == 0 and not run("ss", "-Htn", "state", "connected",
                                                  "exclude", "time-wait"), 30)
        rows = {name: objects(name) for name in ("TCP", "request_sock_TCP", "fs_conn", PEERS)}
        with open("/proc/net/sockstat") as f:
            text = f.read()
        return rows, int(text.split()[2])

    def work(seconds):
        """Requests, and connections that are reset in the middle of one."""
        end = time.monotonic() + seconds
        load_ = Load(PORT, 12, SUBNET + ".1", netns="clients")
        while time.monotonic() < end:
            with in_netns("clients"):
                socks = [socket.socket() for _ in range(8)]
            for n, sock in enumerate(socks):
                sock.settimeout(10)
                sock.connect((SUBNET + ".1", PORT))
                if n & 1:
                    sock.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[:9 * n])
            for sock in socks:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
        requests, failed = load_.result()
        assert failed == 0
        return requests

    work(4)
    before = memory()
    requests = work(15)
    after = memory()
    print("# %d requests; %s -> %s" % (requests, before, after))
    assert requests > 100 / SLOW and after[1] <= before[1] + 5
    # The rest of the machine has some, too.
    for name, count in after[0].items():
        assert count <= before[0][name] + 200, (name, before, after)


load(patient=False)
# Not on kernels with instruments: their kprobes are breakpoints, in which lockdep
# takes the locks of bpftrace's maps for a fault, and then ends its own work.
witness = None if SLOW > 1 else PacketWitness()
try:
    main()
finally:
    if witness:
        witness.stop()
