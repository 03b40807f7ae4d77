#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Core-local ports: which ones a CPU gets, what is respected in choosing, and
that connect() and bind() go on as if the kernel had chosen them."""

import contextlib
import errno
import fcntl
import mmap
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fstest  # noqa: E402
from fstest import (CGROUP_CONNECT4, CGROUP_CONNECT6, Delta, STEER_OFF,  # noqa: E402
                    STEER_PORT, STEER_RSS, PORT_REPLACE, case, connect, connect_group,
                    core_connect, core_port, enter_group, ethtool, filed, listener, load,
                    main, nft, nic_wire, on_cpu, port_of, refused, release_port, run,
                    sockaddr, stats, steer, subnet6, sysctl_for, table, take, talk,
                    unshare_net, wait_for)

CPUS = os.cpu_count()
RANGE = "net.ipv4.ip_local_port_range"
IP_BIND_ADDRESS_NO_PORT = 24
IP_LOCAL_PORT_RANGE = 51
TCP_REPAIR = 19
IPPROTO_MPTCP = 262


def tcp(stack, family=socket.AF_INET, proto=0):
    return stack.enter_context(socket.socket(family, socket.SOCK_STREAM, proto))


def ports_range(stack, low, high):
    sysctl_for(stack, RANGE, "%d %d" % (low, high))


def dummy(stack, mode=None, cpus=(), name="far"):
    """A device behind which nobody answers; sockets stay in SYN_SENT."""
    run("ip", "link", "add", name, "type", "dummy")
    stack.callback(run, "ip", "link", "del", name)
    run("ip", "addr", "add", "198.51.100.1/24", "dev", name)
    run("ip", "-6", "addr", "add", "fd00:51::1/64", "dev", name, "nodad")
    run("ip", "link", "set", name, "up")
    if mode is not None:
        steer(socket.if_nametoindex(name), mode, cpus)


def start(stack, addr, port, cpu, setup=None, flags=0):
    """A connect() that stays half done; returns the socket, or None: no port."""
    sock = tcp(stack, socket.AF_INET6 if ":" in addr else socket.AF_INET)
    sock.setblocking(False)
    if setup:
        setup(sock)
    with on_cpu(cpu):
        try:
            core_port(sock, addr, port, flags)
        except OSError as err:
            if err.errno != errno.EADDRNOTAVAIL:
                raise
            return None
        assert sock.connect_ex((addr, port)) == errno.EINPROGRESS
    return sock


@case
def classes(stack):
    """On a device that steers by port, each CPU's connections have its classes."""
    unshare_net(stack)
    cpus = [3, 2, 1, 0, 0, -1, 2, 2]
    dummy(stack, STEER_PORT, cpus)
    for addr in "198.51.100.9", "fd00:51::9":
        for cpu in range(4):
            seen = set()
            for _ in range(30):
                port = port_of(start(stack, addr, 80, cpu))
                assert port >= 0x8000 and cpus[port % 8] == cpu, (port, cpu)
                seen.add(port % 8)
            assert len(seen) == cpus.count(cpu), seen


@case
def unprepared(stack):
    """Where nothing is known of the device, each CPU has ports of its own."""
    lst = listener(stack)
    for cpu in range(CPUS):
        sock = core_connect(stack, "127.0.0.1", port_of(lst), cpu)
        talk(sock, take(lst))
        assert port_of(sock) % (1 << (CPUS - 1).bit_length()) == cpu


@case
def no_class(stack):
    """A CPU to which no class or queue comes is told so, and counted."""
    unshare_net(stack)
    dummy(stack, STEER_PORT, [0, 1])
    d = Delta()
    with on_cpu(2):
        refused(errno.ENXIO, core_port, tcp(stack), "198.51.100.9", 80)
    assert d.connect_stock == 1 and d.connect_local == 0


def toeplitz(key, data):
    """As Microsoft's RSS specification writes it down."""
    window = int.from_bytes(key, "big")
    bits = len(key) * 8
    result = 0
    for i in range(len(data) * 8):
        if data[i // 8] >> (7 - i % 8) & 1:
            result ^= window >> (bits - 32 - i) & 0xffffffff
    return result


def queue_of(dev, remote, rport, local, lport):
    """The queue that a reply comes to, from what ethtool says of the card."""
    lines = ethtool("-x", dev).splitlines()
    table_, key = [], b""
    for n, line in enumerate(lines):
        head, _, rest = line.partition(":")
        if line.startswith("RSS hash key"):
            key = bytes.fromhex(lines[n + 1].strip().replace(":", ""))
            break
        if head.strip().isdigit():
            table_ += [int(w) for w in rest.split()]
    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    data = (socket.inet_pton(family, remote) + socket.inet_pton(family, local) +
            struct.pack("!HH", rport, lport))
    return table_[toeplitz(key, data) % len(table_)]


@case
def rss(stack):
    """On a device that hashes, replies come to the CPU's queue, by its key and table."""
    nic_wire(stack, "peer", "198.51.100", queues=4)
    steer(socket.if_nametoindex("nic0"), STEER_RSS, [1, 0, 3, 2])
    pairs = ("198.51.100.2", "198.51.100.1"), (subnet6("198.51.100") + "2", subnet6("198.51.100") + "1")

    def check():
        for remote, local in pairs:
            for cpu in range(4):
                for _ in range(4):
                    sock = tcp(stack, socket.AF_INET6 if ":" in remote else socket.AF_INET)
                    sock.setblocking(False)
                    with on_cpu(cpu):
                        core_port(sock, remote, 80)
                        sock.connect_ex((remote, 80))
                    queue = queue_of("nic0", remote, 80, local, port_of(sock))
                    assert queue == cpu ^ 1, (cpu, queue)
                    sock.close()

    check()
    # The module looks once a second.
    ethtool("-X", "nic0", "hkey", ":".join("%02x" % (i * 37 % 251) for i in range(40)))
    time.sleep(2.5)
    check()
    ethtool("-X", "nic0", "weight", "1", "5", "2", "3")
    time.sleep(2.5)
    check()


@case
def rss_unfit(stack):
    """A device whose hash leaves out the ports, or that shows no key, is refused for RSS."""
    nic_wire(stack, "peer", "198.51.100", queues=4)
    index = socket.if_nametoindex("nic0")
    ethtool("-N", "nic0", "rx-flow-hash", "tcp4", "sd")
    refused(errno.EOPNOTSUPP, steer, index, STEER_RSS, [0, 1, 2, 3])
    ethtool("-N", "nic0", "rx-flow-hash", "tcp4", "sdfn")
    steer(index, STEER_RSS, [0, 1, 2, 3])
    refused(errno.EOPNOTSUPP, steer, socket.if_nametoindex("lo"), STEER_RSS, [0])


@case
def range_respected(stack):
    """ip_local_port_range, ip_local_reserved_ports and IP_LOCAL_PORT_RANGE are respected."""
    unshare_net(stack)
    dummy(stack, STEER_PORT, [0, 1, 2, 3])
    ports_range(stack, 40000, 40031)
    sysctl_for(stack, "net.ipv4.ip_local_reserved_ports", "40000-40003,40008")
    got = []
    while True:
        sock = start(stack, "198.51.100.9", 80, 0)
        if not sock:
            break
        got.append(port_of(sock))
    assert sorted(got) == [40004, 40012, 40016, 40020, 40024, 40028], sorted(got)

    def narrow(sock):
        sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE,
                        struct.pack("I", 40015 << 16 | 40014))

    try:
        narrow(tcp(stack))
    except OSError:
        return  # this kernel has no such option
    sock = start(stack, "198.51.100.10", 80, 2, narrow)
    assert port_of(sock) == 40014
    assert start(stack, "198.51.100.10", 80, 1, narrow) is None


@case
def below_the_classes(stack):
    """Ports below 32768 have no class: none is given, though the range has them."""
    unshare_net(stack)
    dummy(stack, STEER_PORT, [0, 1, 2, 3])
    ports_range(stack, 32000, 32775)
    got = sorted(port_of(start(stack, "198.51.100.9", 80, 0)) for _ in range(2))
    assert got == [32768, 32772], got
    assert start(stack, "198.51.100.9", 80, 0) is None


@case
def exhausted(stack):
    """When none is left towards a destination, the stock allocator still finds others'."""
    unshare_net(stack)
    dummy(stack)
    ports_range(stack, 40000, 40015)
    mine = [start(stack, "198.51.100.9", 80, 1) for _ in range(16 // 4)]
    assert len({port_of(s) for s in mine}) == 4
    assert start(stack, "198.51.100.9", 80, 1) is None
    others = set()
    for _ in range(12):
        sock = tcp(stack)
        sock.setblocking(False)
        assert sock.connect_ex(("198.51.100.9", 80)) == errno.EINPROGRESS
        others.add(port_of(sock))
    assert len(others) == 12 and all(p % 4 != 1 for p in others), others
    sock = tcp(stack)
    sock.setblocking(False)
    assert sock.connect_ex(("198.51.100.9", 80)) == errno.EADDRNOTAVAIL
    # Another destination, the same ports.
    assert port_of(start(stack, "198.51.100.10", 80, 1)) % 4 == 1
    assert port_of(start(stack, "198.51.100.9", 81, 1)) % 4 == 1


@case
def shared_with_stock(stack):
    """A port may go to other destinations by either allocator, in either order."""
    unshare_net(stack)
    dummy(stack)
    ports_range(stack, 40001, 40001)

    def stock(addr):
        sock = tcp(stack)
        sock.setblocking(False)
        err = sock.connect_ex((addr, 80))
        return errno.errorcode[err]

    assert port_of(start(stack, "198.51.100.9", 80, 1)) == 40001
    assert stock("198.51.100.9") == "EADDRNOTAVAIL"
    assert stock("198.51.100.10") == "EINPROGRESS"
    assert port_of(start(stack, "198.51.100.11", 80, 1)) == 40001
    assert start(stack, "198.51.100.10", 80, 1) is None
    assert stock("198.51.100.11") == "EADDRNOTAVAIL"
    assert stock("198.51.100.12") == "EINPROGRESS"


@case
def bound_elsewhere(stack):
    """A port that somebody has bound is not given; one given is in use for bind()."""
    unshare_net(stack)
    dummy(stack)
    ports_range(stack, 40001, 40001)
    for reuse in 0, 1:
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        holder.bind(("198.51.100.1", 40001))
        assert start(stack, "198.51.100.9", 80, 1) is None
        holder.close()
    sock = start(stack, "198.51.100.9", 80, 1)
    refused(errno.EADDRINUSE, tcp(stack).bind, ("198.51.100.1", 40001))
    sock.close()
    tcp(stack).bind(("198.51.100.1", 40001))


@case
def bound_meanwhile(stack):
    """Who has bound a port just when it was to be given, beside others' connections, can listen."""
    unshare_net(stack)
    dummy(stack)
    ports_range(stack, 40001, 40001)
    # How far the two of us are, and whether the child has been given the port.
    mine, childs, given = range(3)
    state = mmap.mmap(-1, mmap.PAGESIZE)
    device = os.open("/dev/fastsocket", os.O_RDWR | os.O_CLOEXEC)
    stack.callback(os.close, device)
    name = fstest.ctypes.create_string_buffer(sockaddr("198.51.100.10", 80))
    end = time.monotonic() + 15

    def meet(here, there):
        state[here] = (state[here] + 1) % 256
        while (state[there] - state[here]) % 256 > 1:
            assert time.monotonic() < end + 10

    def child():
        os.sched_setaffinity(0, {1})
        while True:
            with socket.socket() as sock:
                ask = struct.pack("iIQII", sock.fileno(), 0,
                                  fstest.ctypes.addressof(name), len(name) - 1, 0)
                meet(childs, mine)
                try:
                    fcntl.ioctl(device, fstest.IOC_PORT, ask)
                    state[given] = 1
                except OSError:
                    state[given] = 0
                meet(childs, mine)
                meet(childs, mine)

    pid = os.fork()
    if not pid:
        try:
            child()
        finally:
            os._exit(1)
    stack.callback(os.waitpid, pid, 0)
    stack.callback(os.kill, pid, signal.SIGKILL)

    stack.enter_context(on_cpu(2))
    delay = 100
    first = {"bind": 0, "port": 0}
    while time.monotonic() < end and sum(first.values()) < 3000:
        with socket.socket() as other, socket.socket() as sock:
            other.setblocking(False)
            assert other.connect_ex(("198.51.100.9", 80)) == errno.EINPROGRESS
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            spins = range(int(delay * random.uniform(0.8, 1.25)))
            meet(mine, childs)
            for _ in spins:
                pass
            try:
                sock.bind(("127.0.0.1", 40001))
                bound = True
            except OSError:
                bound = False
            # Towards where either may be the first.
            delay = delay * 1.05 + 1 if bound else delay * 0.95
            first["bind" if bound else "port"] += 1
            meet(mine, childs)
            assert bound or state[given]
            if bound:
                sock.listen()
            meet(mine, childs)
    print("# %r" % first)
    assert min(first.values()) > 10, first


@case
def other_user(stack):
    """A port that another user has bound is not given, not even where both would share it, nor can he bind one that is given."""
    unshare_net(stack)
    lst = listener(stack)
    ports_range(stack, 40000, 40000)
    stack.enter_context(on_cpu(0))

    def owned(uid, option):
        os.seteuid(uid)
        try:
            sock = tcp(stack)
        finally:
            os.seteuid(0)
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        return sock

    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        theirs, mine = owned(1234, option), owned(4321, option)
        theirs.bind(("127.0.0.1", 40000))
        refused(errno.EADDRNOTAVAIL, core_port, mine, "127.0.0.1", port_of(lst))
        assert port_of(mine) == 0
        theirs.close()
    core_port(mine, "127.0.0.1", port_of(lst))
    assert port_of(mine) == 40000
    refused(errno.EADDRINUSE, owned(1234, option).bind, ("127.0.0.1", 40000))


@case
def applications_own(stack):
    """A port that the application has bound stays; NO_PORT and source addresses work."""
    unshare_net(stack)
    dummy(stack)
    run("ip", "addr", "add", "198.51.100.7/24", "dev", "far")
    sock = tcp(stack)
    sock.bind(("198.51.100.7", 45001))
    refused(errno.EOPNOTSUPP, core_port, sock, "198.51.100.9", 80)
    refused(errno.EOPNOTSUPP, core_port, sock, "198.51.100.9", 80, PORT_REPLACE)
    assert port_of(sock) == 45001

    def no_port(sock):
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind(("198.51.100.7", 0))

    for cpu in range(4):
        sock = start(stack, "198.51.100.9", 80, cpu, no_port)
        addr, port = sock.getsockname()
        assert addr == "198.51.100.7" and port % 4 == cpu % 4

    def chosen(sock):
        sock.bind(("198.51.100.7", 0))

    seen = tcp(stack)
    chosen(seen)
    refused(errno.EOPNOTSUPP, core_port, seen, "198.51.100.9", 80)
    for cpu in range(4):
        addr, port = start(stack, "198.51.100.9", 80, cpu, chosen,
                           PORT_REPLACE).getsockname()
        assert addr == "198.51.100.7" and port % 4 == cpu % 4


@case
def replaced_when_none_left(stack):
    """A socket whose port was to be replaced has one even when none is left."""
    unshare_net(stack)
    dummy(stack)
    ports_range(stack, 40000, 40002)
    assert port_of(start(stack, "198.51.100.9", 80, 1)) == 40001
    sock = tcp(stack)
    sock.bind(("198.51.100.1", 0))
    with on_cpu(1):
        refused(errno.EADDRNOTAVAIL, core_port, sock, "198.51.100.9", 80, PORT_REPLACE)
    assert port_of(sock) in (40000, 40002)
    sock.setblocking(False)
    assert sock.connect_ex(("198.51.100.9", 80)) == errno.EINPROGRESS


@case
def given_back(stack):
    """After a connect() that fails, the port is free and the socket usable again."""
    unshare_net(stack)
    ports_range(stack, 40001, 40001)
    lst = listener(stack, port=39999)
    for _ in range(3):
        sock = tcp(stack)
        with on_cpu(1):
            core_port(sock, "127.0.0.1", 1)
            refused(errno.ECONNREFUSED, sock.connect, ("127.0.0.1", 1))
            core_port(sock, "127.0.0.1", port_of(lst))
            sock.connect(("127.0.0.1", port_of(lst)))
        conn = take(lst)
        talk(sock, conn)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    # Never used: the first of the two has it until it is released.
    first = tcp(stack)
    with on_cpu(1):
        core_port(first, "127.0.0.1", port_of(lst))
    refused(errno.EADDRINUSE, tcp(stack).bind, ("", 40001))
    release_port(first)
    release_port(first)
    tcp(stack).bind(("", 40001))
    wait_for(lambda: filed() == 0)


@case
def never_twice(stack):
    """Two sockets with the same port and destination: the second connect() fails."""
    unshare_net(stack)
    dummy(stack)
    ports_range(stack, 40001, 40001)
    socks = [tcp(stack) for _ in range(2)]
    for sock in socks:
        sock.setblocking(False)
        with on_cpu(1):
            core_port(sock, "198.51.100.9", 80)
    assert socks[0].connect_ex(("198.51.100.9", 80)) == errno.EINPROGRESS
    assert socks[1].connect_ex(("198.51.100.9", 80)) == errno.EADDRNOTAVAIL
    with on_cpu(1):
        core_port(socks[1], "198.51.100.10", 80)
    assert socks[1].connect_ex(("198.51.100.10", 80)) == errno.EINPROGRESS


@case
def time_wait(stack):
    """A port in TIME_WAIT is given as tcp_tw_reuse says: not in the same second, not at 0."""
    unshare_net(stack)
    ports_range(stack, 40001, 40001)
    for addr in "127.0.0.1", "::1":
        lst = listener(stack, addr, port=39999)
        family = socket.AF_INET6 if ":" in addr else socket.AF_INET

        def again():
            sock = tcp(stack, family)
            sock.settimeout(5)
            with on_cpu(1):
                core_port(sock, addr, 39999)
                sock.connect((addr, 39999))
            conn = take(lst)
            talk(sock, conn)
            closed = time.monotonic()
            sock.close()
            wait_for(lambda: conn.recv(1) == b"")
            conn.close()
            return closed

        def given():
            with contextlib.ExitStack() as inner, on_cpu(1):
                try:
                    core_port(tcp(inner, family), addr, 39999)
                except OSError as err:
                    assert err.errno == errno.EADDRNOTAVAIL, err
                    return False
            return True

        for _ in range(5):
            closed = again()
            early = not given()
            asked = time.monotonic()
            time.sleep(2.1)
            if early:
                break
            # Unless the next second of the kernel's clock had begun by then.
            assert int(asked) > int(closed), (closed, asked)
        assert early
        sysctl_for(stack, "net.ipv4.tcp_tw_reuse", 0)
        assert not given()
        for reuse in 1, 2:
            sysctl_for(stack, "net.ipv4.tcp_tw_reuse", reuse)
            again()
            time.sleep(2.1)
        lst.close()


@case
def own_core(stack):
    """Replies processed on the connecting CPU are found in its table; others count remote."""
    lst = listener(stack)
    for setup in None, lambda s: s.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1):
        sock = core_connect(stack, "127.0.0.1", port_of(lst), 1, setup)
        conn = take(lst)
        d = Delta()
        with on_cpu(1):
            talk(sock, conn)
        assert d.active_local >= 2 and not d.active_remote and not d.active_missed
        with on_cpu(2):
            talk(sock, conn)
        assert d.active_remote >= 1


@case
def mapped(stack):
    """An IPv6 socket connects to an IPv4-mapped address core-locally."""
    lst = listener(stack)
    sock = tcp(stack, socket.AF_INET6)
    sock.settimeout(5)
    d = Delta()
    with on_cpu(2):
        core_port(sock, "::ffff:127.0.0.1", port_of(lst))
        sock.connect(("::ffff:127.0.0.1", port_of(lst)))
        conn = take(lst)
        talk(sock, conn)
    assert port_of(sock) % 4 == 2 and d.active_local >= 3 and not d.active_missed


@case
def left_alone(stack):
    """What is not a plain unconnected TCP socket, or no plain destination, is refused."""
    lst = listener(stack)
    port = port_of(lst)
    to = "127.0.0.1", port
    refused(errno.EOPNOTSUPP, core_port, lst, *to)
    refused(errno.EOPNOTSUPP, core_port, connect(stack, *to), *to)
    refused(errno.EOPNOTSUPP, core_port, tcp(stack, socket.AF_INET6), *to)
    refused(errno.ENETUNREACH, core_port, tcp(stack), "224.0.0.1", 80)
    refused(errno.ENETUNREACH, core_port, tcp(stack), "255.255.255.255", 80)
    refused(errno.EOPNOTSUPP, core_port, tcp(stack, socket.AF_INET6), "fe80::1", 80)
    refused(errno.EOPNOTSUPP, core_port, tcp(stack, socket.AF_INET6), "ff02::1", 80)
    udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    refused(errno.EPROTONOSUPPORT, core_port, udp, *to)
    unix = stack.enter_context(socket.socket(socket.AF_UNIX))
    refused(errno.EPROTONOSUPPORT, core_port, unix, *to)
    refused(errno.EPROTONOSUPPORT, core_port, tcp(stack, proto=IPPROTO_MPTCP), *to)
    repair = tcp(stack)
    repair.setsockopt(socket.SOL_TCP, TCP_REPAIR, 1)
    refused(errno.EOPNOTSUPP, core_port, repair, *to)
    with open("/dev/null") as null:
        refused(errno.ENOTSOCK, core_port, null, *to)

    class Gone:
        def fileno(self):
            return 9999

    refused(errno.EBADF, core_port, Gone(), *to)
    refused(errno.EINVAL, core_port, tcp(stack), *to, 4)
    unspec = bytes(16)
    name = fstest.ctypes.create_string_buffer(unspec)
    for length, code in ((16, errno.EOPNOTSUPP), (0, errno.EOPNOTSUPP), (1, errno.EOPNOTSUPP),
                         (129, errno.EINVAL), (1 << 31, errno.EINVAL)):
        refused(code, fstest.ioctl, fstest.IOC_PORT,
                struct.pack("iIQII", tcp(stack).fileno(), 0,
                            fstest.ctypes.addressof(name), length, 0))
    refused(errno.EINVAL, fstest.ioctl, fstest.IOC_PORT,
            struct.pack("iIQII", tcp(stack).fileno(), 0, 0, 16, 1))
    refused(errno.EFAULT, fstest.ioctl, fstest.IOC_PORT,
            struct.pack("iIQII", tcp(stack).fileno(), 0, 8, 16, 0))


def binds_to(addr):
    """A program for connect() that chooses the source @addr, and forbids what it cannot."""
    name = sockaddr(addr, 0)
    words = struct.unpack("=%di" % (len(name) // 4), name)
    return ([(0x62, 10, 4 * n - 32, word) for n, word in enumerate(words)] +
            [(0xBF, 0xA2, 0, 0), (0x07, 2, 0, -32),     # r2 = r10 - 32
             (0xB7, 3, 0, len(name)), (0x85, 0, 0, 64),  # r3 = its length; bpf_bind()
             (0xBF, 0x01, 0, 0), (0xB7, 0, 0, 1),       # r1 = r0; r0 = 1
             (0x15, 1, 1, 0), (0xB7, 0, 0, 0),          # r0 = 0 if r1
             (0x95, 0, 0, 0)])


@case
def cgroup_binds(stack):
    """A program of the control group that chooses the source address at connect() finds no port in its way."""
    unshare_net(stack)
    run("ip", "addr", "add", "fd00::5/128", "dev", "lo", "nodad")
    group = connect_group(stack, (CGROUP_CONNECT4, binds_to("127.0.0.5")),
                          (CGROUP_CONNECT6, binds_to("fd00::5")))

    def made_in(group, family):
        enter_group(group)
        try:
            return tcp(stack, family)
        finally:
            enter_group(os.path.dirname(group))

    for addr, source in ("127.0.0.1", "127.0.0.5"), ("::1", "fd00::5"):
        family = socket.AF_INET6 if ":" in addr else socket.AF_INET
        lst = listener(stack, addr)
        to = addr, port_of(lst)
        inside = made_in(group, family)
        with contextlib.suppress(OSError):
            core_port(inside, *to)
        inside.connect(to)
        assert inside.getsockname()[0] == source
        talk(inside, take(lst))
        # Not even where the program has no wish.
        inside = made_in(group, family)
        refused(errno.EOPNOTSUPP, core_port, inside, *to)
        # Other groups are none of its business.
        talk(core_connect(stack, *to, 1), take(lst))


@case
def switched_off(stack):
    """With receive_flow_deliver 0 no port is given, in that namespace only."""
    lst = listener(stack)
    sysctl_for(stack, "net.fastsocket.receive_flow_deliver", 0)
    refused(errno.EAGAIN, core_port, tcp(stack), "127.0.0.1", port_of(lst))
    unshare_net(stack)
    lst = listener(stack)
    talk(core_connect(stack, "127.0.0.1", port_of(lst), 0), take(lst))


@case
def steer_errors(stack):
    """Bad or unprivileged steering is refused, and leaves what was there."""
    unshare_net(stack)
    dummy(stack, STEER_PORT, [0, 1, 2, 3])
    index = socket.if_nametoindex("far")
    before = table("nics")
    assert [(r["name"], r["mode"], r["cpus"]) for r in before] == [("far", "port", "0,1,2,3")]
    for mode, cpus in ((STEER_PORT, [0, 1, 2]), (STEER_PORT, []), (STEER_RSS, []),
                       (STEER_OFF, [0]), (7, [0]), (STEER_PORT, [-2]),
                       (STEER_PORT, [1 << 20]), (STEER_PORT, [0] * 8192)):
        refused(errno.EINVAL, steer, index, mode, cpus)
    refused(errno.ENODEV, steer, 99999, STEER_PORT, [0])
    refused(errno.EFAULT, fstest.ioctl, fstest.IOC_STEER,
            struct.pack("IIIIQ", index, STEER_PORT, 4, 0, 8))
    refused(errno.EINVAL, fstest.ioctl, fstest.IOC_STEER,
            struct.pack("IIIIQ", index, STEER_OFF, 0, 1, 0))
    pid = os.fork()
    if not pid:
        os.setresuid(65534, 65534, 65534)
        try:
            steer(index, STEER_OFF)
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert table("nics") == before
    steer(index, STEER_OFF)
    assert table("nics") == []


@case
def steer_most(stack):
    """A device has 4096 classes at most."""
    unshare_net(stack)
    dummy(stack, STEER_PORT, [0] * 4096)
    assert table("nics")[0]["count"] == "4096"
    refused(errno.EINVAL, steer, socket.if_nametoindex("far"), STEER_PORT, [1] * 8192)
    assert table("nics")[0]["count"] == "4096"


@case
def steer_namespace(stack):
    """What a namespace has said of its devices is nothing to another that has devices with the same numbers."""
    unshare_net(stack)
    steer(1, STEER_PORT, [0, 1, 2, 3])
    with contextlib.ExitStack() as inner:
        unshare_net(inner)
        assert table("nics", "thread-self") == []
        steer(1, STEER_PORT, [3, 2, 1, 0])
        lst = listener(inner)
        for cpu in range(4):
            assert port_of(core_connect(inner, "127.0.0.1", port_of(lst), cpu)) % 4 == 3 - cpu
        steer(1, STEER_OFF)
    lst = listener(stack)
    for cpu in range(4):
        assert port_of(core_connect(stack, "127.0.0.1", port_of(lst), cpu)) % 4 == cpu
    assert [row["cpus"] for row in table("nics", "thread-self")] == ["0,1,2,3"]


@case
def device_gone(stack):
    """A device's steering goes with it, also to another namespace."""
    unshare_net(stack)
    dummy(stack, STEER_PORT, [0])
    run("ip", "netns", "add", "other")
    stack.callback(run, "ip", "netns", "del", "other")
    run("ip", "link", "set", "far", "netns", "other")
    assert table("nics") == []
    run("ip", "-n", "other", "link", "set", "far", "netns", str(os.getpid()))
    assert table("nics") == []
    steer(socket.if_nametoindex("far"), STEER_PORT, [0])


@case
def churn(stack):
    """Many threads connecting on all CPUs at once: no error, no pair with one port."""
    lst = listener(stack, backlog=1024)
    end = time.monotonic() + 8
    errors, done = [], []

    def serve():
        while time.monotonic() < end + 1:
            conn = take(lst, 0.2)
            if conn:
                conn.close()

    def client(cpu):
        n = retries = 0
        os.sched_setaffinity(0, {cpu})
        while time.monotonic() < end:
            with socket.socket() as sock:
                sock.settimeout(5)
                try:
                    core_port(sock, "127.0.0.1", port_of(lst))
                    sock.connect(("127.0.0.1", port_of(lst)))
                    sock.recv(1)
                    n += 1
                except OSError as err:
                    if err.errno == errno.EADDRNOTAVAIL:
                        retries += 1
                    else:
                        errors.append(err)
        done.append((n, retries))

    threads = [threading.Thread(target=serve) for _ in range(2)]
    threads += [threading.Thread(target=client, args=(cpu % CPUS,)) for cpu in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[:3]
    total, retries = (sum(column) for column in zip(*done))
    assert total > 100 and retries * 20 < total, done
    wait_for(lambda: filed() == 0, 10)


@case
def abuse(stack):
    """Random arguments and races on one socket do no harm."""
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print("# SEED=%d" % seed)
    lst = listener(stack)
    to = "127.0.0.1", port_of(lst)
    end = time.monotonic() + 4
    shared = [tcp(stack) for _ in range(3)]

    def worker(seed):
        rand = random.Random(seed)
        while time.monotonic() < end:
            n = rand.randrange(len(shared))
            sock = shared[n]
            try:
                what = rand.randrange(8)
                if what < 2:
                    core_port(sock, *to, rand.choice((0, 0, 1)))
                elif what == 2:
                    release_port(sock)
                elif what == 3:
                    sock.setblocking(False)
                    sock.connect_ex(to)
                elif what == 4:
                    fstest.libc.connect(sock.fileno(), bytes(16), 16)
                elif what == 5:
                    sock.bind(("", 0))
                elif what == 6:
                    fstest.ioctl(fstest.IOC_PORT, rand.randbytes(24))
                else:
                    shared[n] = socket.socket()
                    sock.close()
            except OSError:
                pass

    threads = [threading.Thread(target=worker, args=(seed + i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sock in shared:
        sock.close()
    while take(lst, 0.1):
        pass
    talk(core_connect(stack, *to, 0), take(lst))


load()
main()
