#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Local listeners: which connection goes where, and that none is lost."""

import contextlib
import ctypes
import errno
import os
import random
import resource
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

ADDRESSES = (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"),
             ("::1", "::1"), ("::", "::1"), ("::", "127.0.0.1"))


@case
def local_syn(stack):
    """A connection is accepted from the local listener of the CPU of its SYN (IPv4, IPv6, dual-stack)."""
    for addr, to in ADDRESSES:
        parent = listener(stack, addr)
        locals_ = [spawn(stack, parent, cpu) for cpu in range(4)]
        for cpu in range(4):
            client = connect(stack, to, port_of(parent), cpu)
            others = [l for l in locals_ if l.cpu != cpu] + [parent]
            assert all(accept_errno(l) in (errno.EAGAIN, errno.ENODATA)
                       for l in others), (addr, cpu)
            server = locals_[cpu].take()
            assert server, (addr, to, cpu)
            talk(client, server)
            server.close()


@case
def slow_path(stack):
    """A SYN on a CPU without a local listener goes to the application's own listener, and any local listener's accept() takes it from there."""
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    d = Delta()
    first = connect(stack, "127.0.0.1", port_of(parent), 1)
    server = take(parent)
    talk(first, server)
    second = connect(stack, "127.0.0.1", port_of(parent), 1)
    server = local.take()
    talk(second, server)
    assert d.accept_slow == 1 and d.syn_slow == 2 and d.syn_local == 0


@case
def looks_like_a_listener(stack):
    """A local listener has its parent's name and SO_ACCEPTCONN, is in nobody's ss -l, and accept() on it never blocks."""
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    assert local.getsockname() == parent.getsockname()
    assert local.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    shown = run("ss", "-Hltn", "sport = :%d" % port_of(parent))
    assert len(shown.splitlines()) == 1, shown
    local.setblocking(True)
    assert accept_errno(local) == errno.ENODATA


@case
def children_are_stock(stack):
    """What is accepted holds no part of the module: it can be listened to, shut down and outlives its listener."""
    parent = listener(stack)
    local = spawn(stack, parent, 2)
    client = connect(stack, "127.0.0.1", port_of(parent), 2)
    server = local.take()
    local.close()
    parent.close()
    talk(client, server)


@case
def specific_beats_wildcard(stack):
    """A specific address beats a wildcard, whichever of them has local listeners."""
    for spawned in range(2):
        wild = listener(stack, "0.0.0.0", reuseport=True)
        port = port_of(wild)
        exact = listener(stack, "127.0.0.2", port, reuseport=True)
        local = spawn(stack, (wild, exact)[spawned], 0)
        for addr, owner in (("127.0.0.1", wild), ("127.0.0.2", exact)):
            connect(stack, addr, port, 0)
            want = local if owner is (wild, exact)[spawned] else owner
            got = take(want)
            assert got, (spawned, addr)
            assert got.getsockname()[0] == addr
            got.close()


@case
def same_port_other_address(stack):
    """Two programs with listeners on one port and different addresses keep their own connections."""
    one = listener(stack, "127.0.0.2")
    two = listener(stack, "127.0.0.3", port_of(one))
    locals_ = [spawn(stack, one, 1), spawn(stack, two, 1)]
    for local, addr in zip(locals_, ("127.0.0.2", "127.0.0.3")):
        connect(stack, addr, port_of(one), 1)
        assert local.take().getsockname()[0] == addr


@case
def bind_to_device(stack):
    """SO_BINDTODEVICE is honoured: a SYN from another device does not reach the local listener."""
    unshare_net(stack)
    run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    run("ip", "addr", "add", "10.9.0.1/24", "dev", "v0")
    run("ip", "link", "set", "v0", "up")

    def bind(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v0")

    parent = listener(stack, "0.0.0.0", setup=bind)
    local = spawn(stack, parent, 0)
    try:
        connect(stack, "127.0.0.1", port_of(parent), 0)
        raise AssertionError("connected through lo")
    except ConnectionRefusedError:
        pass
    both = listener(stack, "127.0.0.1", port_of(parent), reuseport=False,
                    setup=lambda s: s.setsockopt(socket.SOL_SOCKET,
                                                 socket.SO_BINDTODEVICE, b"lo"))
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert take(both) and accept_errno(local) == errno.ENODATA


@case
def address_in_use(stack):
    """A second instance still gets EADDRINUSE, and the port is free as soon as the first is gone."""
    parent = listener(stack, "0.0.0.0")
    port = port_of(parent)
    local = spawn(stack, parent, 0)
    for _ in range(2):
        try:
            listener(stack, "0.0.0.0", port)
            raise AssertionError("bound twice")
        except OSError as err:
            assert err.errno == errno.EADDRINUSE
        connect(stack, "127.0.0.1", port, 0)
        local.take().close()
    parent.close()
    local.close()
    listener(stack, "0.0.0.0", port)


@case
def close_moves_queue(stack):
    """What waits in a closed local listener's accept queue moves to the application's listener."""
    for addr, to in ADDRESSES:
        parent = listener(stack, addr)
        local = spawn(stack, parent, 1)
        clients = [connect(stack, to, port_of(parent), 1) for _ in range(5)]
        assert take(parent, 0) is None
        local.close()
        for _ in clients:
            server = take(parent)
            assert server, addr
            client = [c for c in clients
                      if c.getsockname()[1] == server.getpeername()[1]][0]
            talk(client, server)


@case
def close_finishes_half_open(stack):
    """Half-open connections of a closed local listener finish on the application's listener."""
    unshare_net(stack)
    parent = listener(stack)
    local = spawn(stack, parent, 1)
    clients, admit = half_open(stack, parent, 1, 5)
    assert int(listeners_of(port_of(parent))[0]["half_open"]) == 5
    local.close()
    time.sleep(0.1)
    admit()
    for client in clients:
        client.sendall(b"x")
    servers = [take(parent, 5) for _ in clients]
    assert all(servers)
    wait_for(lambda: not listeners_of(port_of(parent)), 15)


def worker(stack, func):
    """Call @func with an ExitStack in a process of its own; returns what tells that to end."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    stack.enter_context(here)
    here.settimeout(5 * SLOW)
    pid = os.fork()
    if not pid:
        here.close()
        try:
            with contextlib.ExitStack() as inner:
                func(inner, there)
                os._exit(0)     # the kernel closes what is open
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    there.close()
    stack.callback(os.waitpid, pid, 0)
    stack.callback(here.close)
    return here


@case
def close_wakes(stack):
    """A process that has been told of a connection in the application's queue, and closes its local listener instead of accepting, leaves it to another that waits."""
    parent = listener(stack)

    def serve(cpu):
        def func(inner, pipe):
            local = spawn(inner, parent, cpu)
            poll = select.epoll()
            poll.register(parent, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            poll.register(local, select.EPOLLIN)
            pipe.send(b"r")
            poll.poll(20 * SLOW)
            pipe.send(b"w")
            if pipe.recv(1) == b"c":
                local.close()
                poll.close()
                pipe.send(b"c")
                pipe.recv(1)
            take(parent)
        pipe = worker(stack, func)
        assert pipe.recv(1) == b"r"
        return pipe

    pipes = [serve(cpu) for cpu in range(2)]
    time.sleep(0.2 * SLOW)
    connect(stack, "127.0.0.1", port_of(parent), 2)
    told = select.select(pipes, [], [], 5 * SLOW)[0]
    assert len(told) == 1
    told[0].recv(1)
    time.sleep(0.2 * SLOW)
    other, = set(pipes) - set(told)
    assert not select.select([other], [], [], 0)[0], "both have been told"
    told[0].send(b"c")
    assert told[0].recv(1) == b"c"
    assert other.recv(1) == b"w"
    other.send(b"t")


@case
def close_many_watched(stack):
    """Those who watch the application's listener, however many, delay nobody when a local listener with a full queue closes."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    parent = listener(stack, backlog=1000)

    def closing():
        """How long it takes with 1000 connections that wait."""
        with contextlib.ExitStack() as inner:
            local = spawn(inner, parent, 0)
            for _ in range(1000):
                connect(inner, "127.0.0.1", port_of(parent), 0)
            wait_for(lambda: waiting(parent) == (1000, 0))
            d = Delta()
            started = time.monotonic()
            local.close()
            took = time.monotonic() - started
            assert d.moved == 1000
            while take(parent, 0):
                pass
            return took

    alone = closing()
    for _ in range(3000):
        stack.enter_context(select.epoll()).register(parent, select.EPOLLIN)
    watched = closing()
    print("# %.3f s, %.3f s" % (alone, watched))
    assert watched < 3 * alone + 0.1 * SLOW, (alone, watched)


@case
def close_bounded(stack):
    """By filling and closing local listeners again and again nobody makes the application's queue longer than 64 times its backlog; what is beyond waits to be accepted."""
    parent = listener(stack, backlog=1)
    made = 0
    for _ in range(80):
        local = spawn(stack, parent, 0)
        for _ in range(2):
            connect(stack, "127.0.0.1", port_of(parent), 0)
            made += 1
        wait_for(lambda: [row["queue"] for row in listeners_of(port_of(parent))
                          if row["state"] == "live"] == ["2"])
        local.close()
    assert waiting(parent)[1] == 64 * 2
    for n in range(made):
        assert take(parent), n


@case
def stalled(stack):
    """What waits in a local queue for which nobody comes goes to the application's after net.fastsocket.accept_patience, in its order; for a second what follows goes there at once, and longer if it happens again."""
    sysctl_for(stack, "net.fastsocket.accept_patience", int(200 * SLOW))
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    poll = stack.enter_context(select.epoll())
    poll.register(parent, select.EPOLLIN | select.EPOLLET)

    def state():
        row, = listeners_of(port_of(parent))
        return row["state"], row["queue"]

    d = Delta()
    started = time.monotonic()
    clients = [connect(stack, "127.0.0.1", port_of(parent), 0) for _ in range(10)]
    assert d.syn_local == 10
    assert poll.poll(5 * SLOW)
    took = time.monotonic() - started
    wait_for(lambda: d.moved == 10)
    assert state() == ("stalled", "0")
    assert took > 0.15 * SLOW, took
    clients.append(connect(stack, "127.0.0.1", port_of(parent), 0))
    assert (d.syn_local, d.syn_slow) == (10, 1)
    for client in clients:
        assert take(parent).getpeername() == client.getsockname()
    wait_for(lambda: state() == ("live", "0"), 2)

    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert d.syn_local == 11
    wait_for(lambda: state() == ("stalled", "0"))
    time.sleep(1.5)
    assert state() == ("stalled", "0")
    assert take(parent)
    wait_for(lambda: state() == ("live", "0"), 2)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert local.accept()[0] and d.syn_local == 12


@case
def not_stalled(stack):
    """Who takes one connection within net.fastsocket.accept_patience keeps the others, however long they wait; with 0 they wait for ever."""
    sysctl_for(stack, "net.fastsocket.accept_patience", int(400 * SLOW))
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    d = Delta()
    for _ in range(12):
        connect(stack, "127.0.0.1", port_of(parent), 0)
    for _ in range(10):
        time.sleep(0.1 * SLOW)
        assert take(local)
    sysctl("net.fastsocket.accept_patience", 0)
    time.sleep(0.8 * SLOW)
    assert (d.moved, d.accept_local + d.accept_remote) == (0, 10)
    assert listeners_of(port_of(parent))[0]["queue"] == "2"


@case
def stalled_busy(stack):
    """Connections that come while nobody does, in whatever number and while local listeners come and go, are all accepted."""
    sysctl_for(stack, "net.fastsocket.accept_patience", 20)
    parent = listener(stack, backlog=4096)
    stop = threading.Event()
    made = [0] * 4

    def client(cpu):
        os.sched_setaffinity(0, {cpu})
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", port_of(parent)), 5 * SLOW):
                made[cpu] += 1

    def comes_and_goes():
        while not stop.is_set():
            with spawn(stack, parent, 3):
                time.sleep(random.uniform(0, 0.15))

    for cpu in range(3):
        spawn(stack, parent, cpu)
    d = Delta()
    threads = [threading.Thread(target=client, args=(cpu,)) for cpu in range(4)]
    threads.append(threading.Thread(target=comes_and_goes))
    for thread in threads:
        thread.start()
    end = time.monotonic() + 4
    taken = 0
    while time.monotonic() < end:
        taken += take(parent, 0.1) is not None
    stop.set()
    for thread in threads:
        thread.join()
    while taken < sum(made):
        assert take(parent, 2), (taken, made)
        taken += 1
    assert d.moved > 50, d.moved


def member_gone(stack, served, ending):
    """Clients of a SO_REUSEPORT listener of another process that ends, which this one's is to
    serve: six that waited in its queue and two whose handshakes end later."""
    mine = listener(stack, reuseport=True)
    port = port_of(mine)

    def func(inner, pipe):
        member = listener(inner, "127.0.0.1", port, reuseport=True)
        local = spawn(inner, member, 1) if served else None
        pipe.send(b"r")
        pipe.recv(1)
        if ending == "parent" and served:
            member.close()
            time.sleep(0.05)
        elif ending == "local" and served:
            local.close()
            time.sleep(0.05)

    pipe = worker(stack, func)
    assert pipe.recv(1) == b"r"
    clients = [connect(stack, "127.0.0.1", port, 1) for _ in range(6)]
    late, admit = half_open(stack, mine, 1, 2)
    if served:
        assert accept_errno(mine) == errno.EAGAIN
    pipe.send(b"x")
    assert pipe.recv(1) == b""
    time.sleep(0.3)
    admit()
    for client in clients + late:
        client.sendall(b"x")
    for n in range(len(clients + late)):
        server = take(mine, 3)
        assert server, (ending, served, n)
        assert server.recv(1) == b"x"
    mine.close()
    wait_for(lambda: not listeners_of(port))


@case
def migrates(stack):
    """With tcp_migrate_req, the connections of a SO_REUSEPORT group's member that ends go to the others, half-open ones too, as without a local listener."""
    unshare_net(stack)
    sysctl("net.ipv4.tcp_migrate_req", 1)
    for served, ending in ((False, "exit"), (True, "exit"), (True, "local"), (True, "parent")):
        with contextlib.ExitStack() as inner:
            member_gone(inner, served, ending)


@case
def parent_gone_frees_port(stack):
    """When the application's listener goes, a draining local listener does not keep its port."""
    unshare_net(stack)
    parent = listener(stack)
    port = port_of(parent)
    local = spawn(stack, parent, 1)
    half_open(stack, parent, 1, 3)
    local.close()
    assert listeners_of(port)
    parent.close()
    wait_for(lambda: not listeners_of(port), 1)
    listener(stack, "127.0.0.1", port)


@case
def full_queue_goes_slow(stack):
    """A worker that does not accept delays only what fills its own queue; the rest goes to the others."""
    parent = listener(stack, backlog=4)
    local = spawn(stack, parent, 0)
    for _ in range(5):
        connect(stack, "127.0.0.1", port_of(parent), 0)
    assert take(parent, 0) is None
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert take(parent)
    for _ in range(5):
        assert local.take()


@case
def global_queue_not_starved(stack):
    """A busy local queue does not starve the application's: what waits there is taken within 8 calls."""
    parent = listener(stack)
    port = port_of(parent)
    local = spawn(stack, parent, 0)
    slow = connect(stack, "127.0.0.1", port, 1)
    for _ in range(40):
        connect(stack, "127.0.0.1", port, 0)
    for n in range(1, 9):
        if local.take(0).getpeername() == slow.getsockname():
            break
    else:
        raise AssertionError("not within 8")


@case
def two_on_one_cpu(stack):
    """Two local listeners of one CPU share its connections."""
    parent = listener(stack)
    one, two = spawn(stack, parent, 0), spawn(stack, parent, 0)
    for _ in range(10):
        connect(stack, "127.0.0.1", port_of(parent), 0)
    for local in (one, two):
        for _ in range(5):
            assert local.take(0)


@case
def reuseport_group(stack):
    """Listeners of one SO_REUSEPORT group are served core-locally whichever of them the stock lookup picks."""
    parents = [listener(stack, reuseport=True)]
    port = port_of(parents[0])
    parents += [listener(stack, "127.0.0.1", port, reuseport=True) for _ in range(3)]
    locals_ = [spawn(stack, p) for p in parents]
    assert sorted(l.cpu for l in locals_) == [0, 1, 2, 3]
    by_cpu = {l.cpu: l for l in locals_}
    for n in range(20):
        connect(stack, "127.0.0.1", port, n % 4)
        assert by_cpu[n % 4].take(), n
    listener(stack, "127.0.0.1", port, reuseport=True)


@case
def reuseport_program(stack):
    """A SO_REUSEPORT group with a selection program of its own is left alone."""
    import ctypes as c
    parents = [listener(stack, reuseport=True)]
    port = port_of(parents[0])
    parents.append(listener(stack, "127.0.0.1", port, reuseport=True))
    locals_ = [spawn(stack, p, 0) for p in parents]
    insn = (c.c_ubyte * 8)(0x06, 0, 0, 0, 1, 0, 0, 0)   # BPF_RET | BPF_K 1

    class Prog(c.Structure):
        _fields_ = [("len", c.c_ushort), ("insn", c.c_void_p)]

    prog = Prog(1, c.addressof(insn))
    parents[0].setsockopt(socket.SOL_SOCKET, 51, bytes(prog))  # SO_ATTACH_REUSEPORT_CBPF
    for _ in range(8):
        connect(stack, "127.0.0.1", port, 0)
        assert take(parents[1]), "the program chose the second"
    assert all(accept_errno(l) == errno.ENODATA for l in locals_)


@case
def reuseport_lookup(stack):
    """A sk_lookup program that picks a member of a SO_REUSEPORT group gets that one, or its local listener."""
    unshare_net(stack)
    parents = [listener(stack, reuseport=True)]
    port = port_of(parents[0])
    parents.append(listener(stack, "127.0.0.1", port, reuseport=True))
    local = spawn(stack, parents[0], 0)
    try:
        picked = bpf(0, struct.pack("=IIIII", 15, 4, 4, 1, 0))      # a sockmap
        stack.callback(os.close, picked)
        prog = bpf_program(stack, 30, 36, [     # BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP
            (0xBF, 0x16, 0, 0),                         # r6 = r1
            (0x62, 10, -4, 0),                          # the key
            (0x18, 0x11, 0, picked), (0, 0, 0, 0),      # r1 = the map
            (0xBF, 0xA2, 0, 0), (0x07, 2, 0, -4),       # r2 = r10 - 4
            (0x85, 0, 0, 1),                            # bpf_map_lookup_elem()
            (0x15, 0, 7, 0),                            # if (r0) {
            (0xBF, 0x07, 0, 0),                         #     r7 = r0
            (0xBF, 0x61, 0, 0), (0xBF, 0x72, 0, 0),     #     r1 = r6; r2 = r7
            (0xB7, 3, 0, 2), (0x85, 0, 0, 124),         #     r3 = NO_REUSEPORT; bpf_sk_assign()
            (0xBF, 0x71, 0, 0), (0x85, 0, 0, 86),       #     r1 = r7; bpf_sk_release() }
            (0xB7, 0, 0, 1), (0x95, 0, 0, 0)])          # return SK_PASS
        with open("/proc/thread-self/ns/net", "rb") as here:
            link = bpf(28, struct.pack("=IIII", prog, here.fileno(), 36, 0))
        closing = stack.enter_context(contextlib.ExitStack())
        closing.callback(os.close, link)
    except OSError as err:
        raise Skip("no programs for sk_lookup: %s" % err) from err

    def pick(sock):
        key, value = ctypes.c_uint32(0), ctypes.c_uint32(sock.fileno())
        bpf(2, struct.pack("=IIQQQ", picked, 0, ctypes.addressof(key),
                           ctypes.addressof(value), 0))

    for chosen, server in (parents[1], parents[1]), (parents[0], local):
        pick(chosen)
        for _ in range(8):
            connect(stack, "127.0.0.1", port, 0)
            assert take(server), "the program chose another"
    closing.close()
    for _ in range(8):
        connect(stack, "127.0.0.1", port, 0)
        assert local.take()


@case
def cpu_any(stack):
    """With no CPU named the module takes the allowed CPU with the fewest local listeners."""
    parent = listener(stack)
    assert sorted(spawn(stack, parent).cpu for _ in range(4)) == [0, 1, 2, 3]
    with on_cpu(2):
        assert spawn(stack, parent).cpu == 2


@case
def sysctl_off(stack):
    """net.fastsocket.listen_spawn=0 sends new connections the slow way at once and loses none that wait."""
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    sysctl_for(stack, "net.fastsocket.listen_spawn", 0)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert take(parent) and local.take()
    sysctl("net.fastsocket.listen_spawn", 2)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert local.take() and take(parent, 0) is None


@case
def sysctl_per_namespace(stack):
    """The sysctl and the statistics belong to one network namespace, and take no other value than 0, 1 and 2."""
    outer = stats()
    unshare_net(stack)
    assert sysctl("net.fastsocket.listen_spawn", 1) == "2"
    assert info() == (1, 1)
    for bad in (3, -1):
        try:
            sysctl("net.fastsocket.listen_spawn", bad)
            raise AssertionError("accepted")
        except OSError as err:
            assert err.errno == errno.EINVAL
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert local.take() and stats()["accept_local"] == 1
    stack.close()
    assert stats()["spawned"] == outer["spawned"] and info() == (1, 2)


@case
def namespace_goes(stack):
    """A namespace can go away with listeners in it: connected, queued and half-open."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            with contextlib.ExitStack() as inner:
                unshare_net(inner)
                parent = listener(inner)
                local = spawn(inner, parent, 0)
                for _ in range(3):
                    connect(inner, "127.0.0.1", port_of(parent), 0)
                local.take(0)
                half_open(inner, parent, 0, 2)
                code = 0
                os._exit(code)
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@case
def timewait_reuse(stack):
    """A SYN that reuses a TIME_WAIT tuple connects at once, core-locally."""
    unshare_net(stack)      # with no other TIME_WAIT to count against the limit
    parent = listener(stack)
    port = port_of(parent)
    local = spawn(stack, parent, 0)
    sport = 0
    for n in range(10):
        client = connect(stack, "127.0.0.1", port, 0, timeout=2, sport=sport)
        sport = client.getsockname()[1]
        server = local.take()
        assert server, n
        talk(client, server)
        server.close()          # first: TIME_WAIT stays on this side
        assert client.recv(1) == b""
        client.close()
        wait_for(lambda: run("ss", "-Htan", "state", "time-wait",
                             "sport = :%d" % port))


CLIENT = """
import errno, socket, time
sport = 0
for n in range(10):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(5)
    s.bind(("10.8.0.2", sport))
    # The socket before may still wait for the answer to its FIN.
    while (err := s.connect_ex(("10.8.0.1", 8080))) == errno.EADDRNOTAVAIL:
        time.sleep(0.01)
    assert not err
    sport = s.getsockname()[1]
    assert s.recv(1) == b""
    s.close()
    # Until its time stamp is a later one.
    time.sleep(0.01)
"""


def wired(stack):
    """Local listeners of a namespace with a wire to another."""
    unshare_net(stack)
    wire(stack, "fst-w", "10.8.0")
    parent = listener(stack, "10.8.0.1", 8080)
    return [spawn(stack, parent, cpu) for cpu in range(4)]


def end_first(stack, locals_, source, **args):
    """The status of a program at the wire's other end, whose connections end at this one."""
    client = subprocess.Popen(["ip", "netns", "exec", "fst-w", "/usr/bin/python3", "-c", source],
                              **args)
    stack.callback(lambda: (client.kill(), client.wait()))
    while client.poll() is None:
        for local in locals_:
            conn = local.take(0)
            if conn:
                conn.close()        # first: TIME_WAIT stays on this side
        time.sleep(0.005)
    return client.returncode


@case
def timewait_reuse_wire(stack):
    """So it is where early demux finds the TIME_WAIT: over a device other than loopback."""
    locals_ = wired(stack)
    d = Delta()
    assert end_first(stack, locals_, CLIENT) == 0
    assert (d.syn_local, d.syn_slow) == (10, 0), (d.syn_local, d.syn_slow)


# Linux chooses the number so, and until 6.10 forgets it again.
PLAIN = """
import os, socket, struct, time
kept = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 10)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw.settimeout(5)
ended = None
for n in range(3):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(5)
    s.bind(("10.8.0.2", 7000))
    s.connect(("10.8.0.1", 8080))
    assert s.recv(1) == b""
    s.close()
    while True:
        packet = raw.recv(2048)
        head = packet[(packet[0] & 15) * 4:]
        seq, flags = struct.unpack(">I", head[4:8])[0], head[13]
        if flags & 0x12 == 0x12:        # SYN and ACK
            assert not kept or ended is None or seq == (ended + 65537) % 2**32, (seq, ended)
        if flags & 0x01:                # FIN
            ended = seq + 1
            break
    time.sleep(0.2)
"""


@case
def timewait_plain(stack):
    """Without time stamps it begins beyond the sequence numbers of the connection before: by the stock way."""
    locals_ = wired(stack)
    sysctl_for(stack, "net.ipv4.tcp_timestamps", 0)
    d = Delta()
    assert end_first(stack, locals_, PLAIN) == 0
    assert (d.syn_local, d.syn_slow) == (1, 2), (d.syn_local, d.syn_slow)


def xfrm_or_skip():
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 6).close()    # NETLINK_XFRM
    except OSError:
        raise Skip("the kernel has no IPsec") from None


@case
def ipsec(stack):
    """Connections that come by IPsec reach local listeners, and again from the port of one in TIME_WAIT."""
    locals_ = wired(stack)
    xfrm_or_skip()
    ways = [("10.8.0.1", "10.8.0.2", "1"), ("10.8.0.2", "10.8.0.1", "2")]
    for netns, own in ((["-n", "fst-w"], "10.8.0.2"), ([], "10.8.0.1")):
        for src, dst, spi in ways:
            run("ip", *netns, "xfrm", "state", "add", "src", src, "dst", dst, "proto", "esp",
                "spi", spi, "mode", "transport", "aead", "rfc4106(gcm(aes))", "0x" + "1f" * 20,
                "128")
            run("ip", *netns, "xfrm", "policy", "add", "src", src, "dst", dst, "dir",
                "out" if src == own else "in", "tmpl", "proto", "esp", "mode", "transport")
    d = Delta()
    assert end_first(stack, locals_, CLIENT) == 0
    assert d.syn_local and d.syn_local + d.syn_slow == 10, (d.syn_local, d.syn_slow)


@case
def timewait_policy(stack):
    """A SYN that IPsec's policy refuses ends no TIME_WAIT."""
    locals_ = wired(stack)
    xfrm_or_skip()
    assert end_first(stack, locals_, CLIENT.replace("range(10)", "range(1)")) == 0

    def waiting():
        return run("ss", "-Htan", "state", "time-wait", "sport = :8080").split()
    port = waiting()[-1].rpartition(":")[2]
    run("ip", "xfrm", "policy", "add", "dir", "in", "src", "10.8.0.2", "dst", "10.8.0.1",
        "action", "block")
    source = CLIENT.replace("sport = 0", "sport = " + port)
    assert end_first(stack, locals_, source.replace("settimeout(5)", "settimeout(1.5)"),
                     stderr=subprocess.DEVNULL) != 0
    assert waiting()


@case
def many(stack):
    """A list of several pages has each local listener once, and the same at any offset."""
    parents = [listener(stack) for _ in range(50)]
    locals_ = [spawn(stack, parent, cpu) for parent in parents for cpu in range(4)]
    inodes = [str(os.fstat(local.fileno()).st_ino) for local in locals_]
    with open("/proc/thread-self/net/fastsocket/listeners", "rb", 0) as f:
        whole = b"".join(iter(lambda: f.read(1000), b""))
        assert len(whole) > 8192
        assert sorted(row.split()[4] for row in whole.decode().splitlines()[1:]) == sorted(inodes)
        for at in (0, 1, 4095, 4096, 9000, len(whole) - 1):
            assert os.pread(f.fileno(), 200, at) == whole[at:at + 200], at


@case
def firewall_drop(stack):
    """An INPUT rule that drops is honoured."""
    unshare_net(stack)
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    d = Delta()
    nft(stack, ["chain inet fstest in { type filter hook input priority 0 ; }",
                "rule inet fstest in tcp dport %d drop" % port_of(parent)])
    try:
        connect(stack, "127.0.0.1", port_of(parent), 0, timeout=1)
        raise AssertionError("connected")
    except TimeoutError:
        pass
    assert d.syn_local == 0
    run("nft", "flush", "table", "inet", "fstest")
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert local.take()


@case
def redirected(stack):
    """A SYN that a rule redirects reaches the local listener of the rewritten port."""
    unshare_net(stack)
    parent = listener(stack)
    other = listener(stack)
    local = spawn(stack, parent, 0)
    wrong = spawn(stack, other, 0)
    nft(stack, ["chain inet fstest out { type nat hook output priority -100 ; }",
                "rule inet fstest out tcp dport %d redirect to :%d"
                % (port_of(other), port_of(parent))])
    client = connect(stack, "127.0.0.1", port_of(other), 0)
    server = local.take()
    talk(client, server)
    assert accept_errno(wrong) == errno.ENODATA


@case
def forwarded(stack):
    """A SYN that is forwarded or DNATed past a wildcard listener with a local one goes on to its destination."""
    unshare_net(stack)
    wire(stack, "fst-c", "10.8.0", "r0")
    wire(stack, "fst-s", "10.8.1", "r1")
    sysctl("net.ipv4.ip_forward", 1)
    parent = listener(stack, "0.0.0.0", 8080)
    locals_ = [spawn(stack, parent, cpu) for cpu in range(4)]
    server = stack.enter_context(subprocess.Popen(
        ["ip", "netns", "exec", "fst-s", sys.executable, "-c",
         "import socket\ns=socket.create_server(('',8080))\n"
         "print(flush=True)\n"
         "while 1: c,_=s.accept(); c.sendall(b'far'); c.close()"],
        stdout=subprocess.PIPE))
    stack.callback(server.kill)
    server.stdout.readline()

    def get(addr):
        return run("ip", "netns", "exec", "fst-c", sys.executable, "-c",
                   "import socket\ns=socket.create_connection(('%s',8080),5)\n"
                   "print(s.recv(3))" % addr)

    assert "far" in get("10.8.1.2")
    nft(stack, ["chain inet fstest pre { type nat hook prerouting priority -100 ; }",
                "rule inet fstest pre ip daddr 10.8.0.1 tcp dport 8080 dnat ip to 10.8.1.2"])
    assert "far" in get("10.8.0.1")
    assert all(accept_errno(l) == errno.ENODATA for l in locals_)


@case
def vrf(stack):
    """In a VRF the local listener takes what the stock lookup would give its parent."""
    unshare_net(stack)
    if subprocess.run(["ip", "link", "add", "red", "type", "vrf", "table", "10"],
                      check=False, capture_output=True).returncode:
        raise Skip("this kernel has no VRF device")
    run("ip", "link", "set", "red", "up")
    run("ip", "addr", "add", "10.7.0.1/24", "dev", "red")

    def red(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"red")

    inside = listener(stack, "10.7.0.1", setup=red)
    outside = listener(stack, "0.0.0.0", port_of(inside))
    locals_ = [spawn(stack, inside, 0), spawn(stack, outside, 0)]
    connect(stack, "10.7.0.1", port_of(inside), 0, setup=red)
    assert locals_[0].take() and accept_errno(locals_[1]) == errno.ENODATA
    connect(stack, "127.0.0.1", port_of(inside), 0)
    assert locals_[1].take() and accept_errno(locals_[0]) == errno.ENODATA


@case
def cpu_offline(stack):
    """A core that goes offline sends its connections the slow way."""
    parent = listener(stack)
    local = spawn(stack, parent, 3)
    connect(stack, "127.0.0.1", port_of(parent), 3)
    path = "/sys/devices/system/cpu/cpu3/online"

    def online(value):
        with open(path, "w") as f:
            f.write(value)

    stack.callback(online, "1")
    online("0")
    try:
        spawn(stack, parent, 3)
        raise AssertionError("spawned on an offline CPU")
    except OSError as err:
        assert err.errno == errno.ENXIO
    connect(stack, "127.0.0.1", port_of(parent), 2)
    assert take(parent) and local.take()


@case
def shutdown_parent(stack):
    """After shutdown() of the application's listener nobody connects, and it can listen again."""
    parent = listener(stack, port=8081)
    port = port_of(parent)
    local = spawn(stack, parent, 0)
    parent.shutdown(socket.SHUT_RD)
    try:
        connect(stack, "127.0.0.1", port, 0)
        raise AssertionError("connected")
    except ConnectionRefusedError:
        pass
    assert accept_errno(local) == errno.EINVAL
    local.close()
    parent.listen(16)
    local = spawn(stack, parent, 0)
    connect(stack, "127.0.0.1", port, 0)
    assert local.take()


@case
def nothing_else(stack):
    """A local listener stays one: after shutdown() it cannot connect, and it takes no ULP, nor any other option of TCP or IP."""
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    local.shutdown(socket.SHUT_RDWR)
    for option in ((socket.IPPROTO_TCP, 31, b"tls"),    # TCP_ULP
                   (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                   (socket.IPPROTO_IP, socket.IP_TOS, 8)):
        try:
            local.setsockopt(*option)
            raise AssertionError("has option %d" % option[1])
        except OSError as err:
            assert err.errno == errno.EOPNOTSUPP, err
    assert local.connect_ex(parent.getsockname()) == errno.EOPNOTSUPP
    assert local.connect_ex(parent.getsockname()) == errno.EOPNOTSUPP


@case
def crowded(stack):
    """A CPU takes no more than 64 local listeners of one: ENOSPC. Another CPU does, and this one when one has gone."""
    parent = listener(stack)
    locals_ = [spawn(stack, parent, 0) for _ in range(64)]
    refused(errno.ENOSPC, spawn, stack, parent, 0)
    spawn(stack, parent, 1)
    locals_.pop().close()
    spawn(stack, parent, 0)


@case
def large_group(stack):
    """A SO_REUSEPORT group that grows beyond the 128 members that its table has at first keeps its local listeners, and so does one that is made anew."""
    def member():
        return listener(stack, "127.0.0.1", port_of(first), reuseport=True)

    first = listener(stack, reuseport=True)
    local = spawn(stack, first, 0)
    others = [member() for _ in range(140)]
    for _ in range(4):
        connect(stack, "127.0.0.1", port_of(first), 0)
        assert local.take()
    for sock in [first, *others]:
        sock.shutdown(socket.SHUT_RDWR)
    first.listen(16)
    others[0].listen(16)
    sync(first)
    for _ in range(4):
        connect(stack, "127.0.0.1", port_of(first), 0)
        assert local.take()


@case
def held_lock(stack):
    """A user who makes a call on his listener last for ever holds up nobody else's local listeners, and his own no longer than that."""
    hostile, parent = listener(stack), listener(stack)
    spawn(stack, hostile, 0)
    mine, closing = spawn(stack, parent, 0), spawn(stack, parent, 1)
    held = Held(stack)
    held.call(libc.setsockopt, hostile.fileno(), socket.IPPROTO_TCP, TCP_MD5SIG,
              ctypes.c_void_p(held.address - 4), 216)
    time.sleep(0.2)
    held.call(sync, hostile)
    held.call(spawn, stack, hostile, 1)
    time.sleep(0.2)
    started = time.monotonic()
    closing.close()
    spawn(stack, parent, 2)
    sync(parent)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert mine.take()
    stats()
    assert time.monotonic() - started < 3 * SLOW
    assert all(caller.is_alive() for caller in held.callers)
    held.release()
    assert len(listeners_of(port_of(hostile))) == 2


IPV6_ADDRFORM = 1


def turned(sock, other):
    """Make an IPv6 listener an IPv4 connection, step by step."""
    sock.setblocking(True)
    yield lambda: sock.shutdown(socket.SHUT_RDWR)
    yield lambda: sock.connect(("::ffff:127.0.0.1", port_of(other)))
    # Python's own lets no other thread run meanwhile.
    inet = struct.pack("i", socket.AF_INET)
    yield lambda: libc.setsockopt(sock.fileno(), socket.IPPROTO_IPV6, IPV6_ADDRFORM, inet, 4)


@case
def other_family(stack):
    """A listener that has become an IPv4 one has no local listeners of IPv6 any more: accept() on them gives EINVAL, and no connection."""
    other = listener(stack)
    parent = listener(stack, "::", reuseport=True)
    local = spawn(stack, parent, 0)
    connect(stack, "::1", port_of(parent), 0)
    assert local.take()
    for step in turned(parent, other):
        step()
    nowhere = struct.pack("HHQQ", socket.AF_UNSPEC, 0, 0, 0)
    assert not libc.connect(parent.fileno(), nowhere, len(nowhere))
    parent.listen()
    client = connect(stack, "127.0.0.1", port_of(parent), 0)
    wait_for(lambda: select.select([parent], [], [], 0)[0])
    assert accept_errno(local) == errno.EINVAL
    try:
        sync(parent)
    except OSError as err:
        assert err.errno == errno.EINVAL, err
    talk(client, stack.enter_context(parent.accept()[0]))


@case
def turning(stack):
    """A listener that becomes something else while a local one is made of it: EINVAL, and others are made as before."""
    run("rmmod", "fastsocket")
    load()      # has seen no listener yet
    other, parent = listener(stack), listener(stack, "::")
    held = Held(stack)
    held.call(libc.setsockopt, parent.fileno(), socket.IPPROTO_TCP, TCP_MD5SIG,
              ctypes.c_void_p(held.address - 4), 216)
    # Who waits for a socket's lock gets it in turn.
    for step in turned(parent, other):
        time.sleep(0.2 * SLOW)
        held.call(step)
    time.sleep(0.2 * SLOW)
    errs = []

    def make():
        try:
            spawn(stack, parent, 0)
        except OSError as err:
            errs.append(err.errno)
    held.call(make)
    time.sleep(0.2 * SLOW)
    held.release()
    assert errs == [errno.EINVAL], errs
    assert parent.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET
    for addr in ("127.0.0.1", "::1"):
        server = listener(stack, addr)
        local = spawn(stack, server, 0)
        connect(stack, addr, port_of(server), 0)
        assert local.take()


load()
main()
