#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A local listener behaves as the application's own: options and limits."""

import errno
import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

TCP = socket.IPPROTO_TCP
SOL = socket.SOL_SOCKET
TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28
MSG_FASTOPEN = 0x20000000

# level, option, value to set, length to read
INHERITED = [
    ("SO_KEEPALIVE", SOL, socket.SO_KEEPALIVE, 1),
    ("SO_LINGER", SOL, socket.SO_LINGER, struct.pack("ii", 1, 7)),
    ("SO_RCVBUF", SOL, socket.SO_RCVBUF, 60000),
    ("SO_SNDBUF", SOL, socket.SO_SNDBUF, 70000),
    ("SO_RCVLOWAT", SOL, socket.SO_RCVLOWAT, 3),
    ("SO_MARK", SOL, socket.SO_MARK, 77),
    ("SO_OOBINLINE", SOL, socket.SO_OOBINLINE, 1),
    ("SO_MAX_PACING_RATE", SOL, 47, 10000000),
    ("SO_TIMESTAMPING_NEW", SOL, 65, 1 << 4 | 1 << 1),  # of what is sent, by software
    ("TCP_NODELAY", TCP, socket.TCP_NODELAY, 1),
    ("TCP_KEEPIDLE", TCP, socket.TCP_KEEPIDLE, 111),
    ("TCP_KEEPINTVL", TCP, socket.TCP_KEEPINTVL, 22),
    ("TCP_KEEPCNT", TCP, socket.TCP_KEEPCNT, 4),
    ("TCP_USER_TIMEOUT", TCP, socket.TCP_USER_TIMEOUT, 12345),
    ("TCP_NOTSENT_LOWAT", TCP, 25, 4000),
    ("TCP_LINGER2", TCP, socket.TCP_LINGER2, 9),
    ("TCP_CONGESTION", TCP, socket.TCP_CONGESTION, b"reno"),
    ("IP_TOS", socket.IPPROTO_IP, socket.IP_TOS, 0x10),
    ("IP_TTL", socket.IPPROTO_IP, socket.IP_TTL, 33),
    ("IP_MTU_DISCOVER", socket.IPPROTO_IP, 10, 2),
    ("IP_TRANSPARENT", socket.IPPROTO_IP, 19, 1),
    ("IP_FREEBIND", socket.IPPROTO_IP, 15, 1),
]
INHERITED6 = [
    ("IPV6_TCLASS", socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x20),
    ("IPV6_UNICAST_HOPS", socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 44),
    ("IPV6_MTU_DISCOVER", socket.IPPROTO_IPV6, 23, 2),
    ("IPV6_RECVTCLASS", socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1),
]


def get(sock, level, opt):
    return sock.getsockopt(level, opt, 16)


def check_inherited(stack, addr, options, later):
    """Children of the parent and of the local listener have equal options,
    and these differ from the defaults."""
    def setup(sock):
        for _, level, opt, value in options:
            sock.setsockopt(level, opt, value)

    parent = listener(stack, addr, setup=None if later else setup)
    local = spawn(stack, parent, 0)
    if later:
        setup(parent)
        sync(parent)
    plain = listener(stack, addr)
    children = []
    for target, cpu in ((parent, 1), (local, 0), (plain, 1)):
        client = connect(stack, addr, port_of(target), cpu)
        children.append((take(target), client))
    for name, level, opt, _ in options:
        of_parent, of_local, default = [get(c, level, opt) for c, _ in children]
        assert of_parent == of_local, (name, of_parent, of_local)
        if name != "IP_FREEBIND" and name != "IP_TRANSPARENT":
            assert of_parent != default, name


@case
def inherited(stack):
    """Accepted connections inherit the options of the application's listener (IPv4)."""
    check_inherited(stack, "127.0.0.1", INHERITED, False)


@case
def inherited6(stack):
    """Accepted connections inherit the options of the application's listener (IPv6)."""
    check_inherited(stack, "::1", INHERITED[:17] + INHERITED6, False)


@case
def inherited_later(stack):
    """Options set later on the application's listener reach its local ones."""
    check_inherited(stack, "127.0.0.1", INHERITED, True)
    check_inherited(stack, "::1", INHERITED[:17] + INHERITED6, True)


@case
def v6only(stack):
    """IPV6_V6ONLY is kept: another program may have the IPv4 port and gets its connections."""
    six = listener(stack, "::", 8080, setup=lambda s: s.setsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1))
    local = spawn(stack, six, 0)
    four = listener(stack, "0.0.0.0", port_of(six))
    connect(stack, "127.0.0.1", port_of(six), 0)
    assert take(four) and accept_errno(local) == errno.ENODATA


@case
def maxseg(stack):
    """TCP_MAXSEG limits the segments of both alike."""
    def setup(sock):
        sock.setsockopt(TCP, socket.TCP_MAXSEG, 777)
    parent = listener(stack, setup=setup)
    local = spawn(stack, parent, 0)
    for target, cpu in ((parent, 1), (local, 0)):
        client = connect(stack, "127.0.0.1", port_of(parent), cpu)
        assert take(target)
        mss = client.getsockopt(TCP, socket.TCP_MAXSEG)
        assert 700 < mss <= 777, mss


@case
def defer_accept(stack):
    """TCP_DEFER_ACCEPT: nothing to accept before the client sends."""
    parent = listener(stack, setup=deferring(30))
    local = spawn(stack, parent, 0)
    client = connect(stack, "127.0.0.1", port_of(parent), 0)
    assert local.take(0.2) is None
    client.sendall(b"x")
    assert local.take()


@case
def defer_lost(stack):
    """TCP_DEFER_ACCEPT for a second: a client whose segments have been lost when its local listener closes still gets its SYN-ACKs."""
    parent = listener(stack, setup=deferring(1))
    local = spawn(stack, parent, 0)
    clients, admit = half_open(stack, parent, 0, 3)
    time.sleep(1.7)             # the timers are at 1 and 3 s
    local.close()
    admit()
    for _ in clients:
        assert take(parent, 10)


@case
def fastopen(stack):
    """TCP_FASTOPEN: data in the SYN is accepted by the local listener, also with a key of the listener's own."""
    sysctl_for(stack, "net.ipv4.tcp_fastopen", 3)

    def setup(sock):
        sock.setsockopt(TCP, TCP_FASTOPEN, 16)
        sock.setsockopt(TCP, TCP_FASTOPEN_KEY, bytes(range(16)))

    parent = listener(stack, setup=setup)
    local = spawn(stack, parent, 0)
    assert local.getsockopt(TCP, TCP_FASTOPEN_KEY, 16) == bytes(range(16))
    to = ("127.0.0.1", port_of(parent))
    with on_cpu(0):
        for n in range(3):      # the first fetches the cookie
            client = stack.enter_context(socket.socket())
            client.sendto(b"early", MSG_FASTOPEN, to)
            server = local.take()
            assert server.recv(5) == b"early"
            synack_data = server.getsockopt(TCP, socket.TCP_INFO, 8)[5] & 32
            assert bool(synack_data) == (n > 0), n
            client.close()
            server.close()


@case
def fastopen_close(stack):
    """A Fast Open connection that waits in a closed local listener is not lost once its handshake is complete."""
    sysctl_for(stack, "net.ipv4.tcp_fastopen", 3)
    parent = listener(stack, setup=lambda s: s.setsockopt(TCP, TCP_FASTOPEN, 16))
    local = spawn(stack, parent, 0)
    to = ("127.0.0.1", port_of(parent))
    clients = []
    with on_cpu(0):
        for _ in range(3):
            clients.append(stack.enter_context(socket.socket()))
            clients[-1].sendto(b"early", MSG_FASTOPEN, to)
            time.sleep(0.05)
    local.close()
    for _ in clients:
        assert take(parent).recv(5) == b"early"


def pending(stack, count):
    """@count Fast Open connections, whose clients never answer, wait in a local listener of CPU 0
    behind one that is whole; with it and its parent."""
    parent = listener(stack, backlog=60000, setup=lambda s: s.setsockopt(TCP, TCP_FASTOPEN, 60000))
    local = spawn(stack, parent, 0)
    queued = [connect(stack, "127.0.0.1", port_of(parent), 0)]
    with on_cpu(0):
        flood(port_of(parent), count, data=b"x")
    return parent, local, queued


@case
def fastopen_pending(stack):
    """Fast Open connections that nobody completes delay no others of a closed local listener, which keep their order."""
    # SYN-ACKs that are sent again drop nobody's packet.
    sysctl_for(stack, "net.core.netdev_max_backlog", 200000)
    floodable(stack)
    sysctl("net.ipv4.tcp_fastopen", 0x203)
    sysctl("net.core.somaxconn", 60000)

    def drained(each, count):
        """How long @count connections take to move, behind @each pending ones and among them."""
        parent, local, queued = pending(stack, each)
        for n in range(count):
            queued.append(socket.socket())
            queued[-1].connect(("127.0.0.1", port_of(parent)))
            if n < 100:
                flood(port_of(parent), bool(each), each + n, data=b"x")
        names = [client.getsockname() for client in queued]
        queue = int(listeners_of(port_of(parent))[0]["queue"])
        assert queue == (each + 100 if each else 0) + count + 1, queue
        d = Delta()
        started = time.monotonic()
        local.close()
        wait_for(lambda: d.moved >= count + 1, 30)
        took = time.monotonic() - started
        for n, name in enumerate(names):
            assert take(parent).getpeername() == name, n
        assert take(parent, 0.1) is None
        parent.close()
        for client in queued:
            client.close()
        return took

    resource.setrlimit(resource.RLIMIT_NOFILE, (30000, 30000))
    with on_cpu(0):
        alone = drained(0, int(4800 / SLOW))
        # SYN-ACKs to be sent again, and whoever else has this CPU, are not there each time.
        for _ in range(3):
            among = drained(int(15000 / SLOW), int(4800 / SLOW))
            print("# %.3f s, %.3f s" % (alone, among))
            if among < 2 * alone + 0.05 * SLOW:
                break
        else:
            raise AssertionError((alone, among))


@case
def fastopen_waits(stack):
    """A closed local listener that waits for Fast Open handshakes alone asks for no RCU grace periods."""
    floodable(stack)
    sysctl("net.ipv4.tcp_fastopen", 0x203)
    parent = listener(stack, setup=lambda s: s.setsockopt(TCP, TCP_FASTOPEN, 16))
    local = spawn(stack, parent, 0)
    with on_cpu(0):
        flood(port_of(parent), 4, data=b"x")
    wait_for(lambda: listeners_of(port_of(parent))[0]["queue"] == "4")
    calls = Calls(stack, "synchronize_rcu_expedited")
    local.close()
    time.sleep(2)
    assert listeners_of(port_of(parent))[0]["queue"] == "4"
    assert calls.hits() < 20, calls.hits()


def with_key(peer):
    """For a socket: it has a key for @peer."""
    return lambda sock: sock.setsockopt(TCP, TCP_MD5SIG, md5_key(peer, b"secret"))


def keyed(stack, addr, peer):
    """A listener that has a key for @peer."""
    try:
        return listener(stack, addr, setup=with_key(peer))
    except OSError as err:
        raise Skip("no TCP MD5 in this kernel: %s" % err) from err


@case
def md5(stack):
    """TCP MD5 keys: a client with the key connects, one without does not; a key that is removed is removed."""
    parent = keyed(stack, "127.0.0.1", "127.0.0.1")
    local = spawn(stack, parent, 0)
    client = connect(stack, "127.0.0.1", port_of(parent), 0, setup=with_key("127.0.0.1"))
    server = local.take()
    talk(client, server)
    try:
        connect(stack, "127.0.0.1", port_of(parent), 0, timeout=1)
        raise AssertionError("connected without the key")
    except TimeoutError:
        pass
    parent.setsockopt(TCP, TCP_MD5SIG, md5_key("127.0.0.1", b""))
    sync(parent)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert local.take()


@case
def md5_mapped(stack):
    """A TCP MD5 key for an IPv4 client of an IPv6 listener."""
    parent = keyed(stack, "::", "::ffff:127.0.0.1")
    local = spawn(stack, parent, 0)
    client = connect(stack, "127.0.0.1", port_of(parent), 0, setup=with_key("127.0.0.1"))
    talk(client, local.take())


@case
def control_group(stack):
    """A connection belongs to the control group of the application's listener, whoever has made the local one."""
    root = tempfile.mkdtemp()
    if subprocess.run(["mount", "-t", "cgroup2", "none", root], check=False).returncode:
        raise Skip("no cgroup2 in this kernel")
    stack.callback(run, "umount", root)
    mine = "fastsocket-test"
    os.mkdir(root + "/" + mine)
    stack.callback(os.rmdir, root + "/" + mine)

    stack.callback(enter_group, root)
    enter_group(root + "/" + mine)
    parent = listener(stack)
    enter_group(root)
    local = spawn(stack, parent, 0)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    stack.enter_context(local.take())
    shown = run("ss", "-Htn", "--cgroup", "sport = :%d" % port_of(parent))
    assert "/" + mine in shown, shown


@case
def save_syn(stack):
    """TCP_SAVE_SYN keeps the SYN's headers."""
    parent = listener(stack, setup=lambda s: s.setsockopt(TCP, TCP_SAVE_SYN, 1))
    local = spawn(stack, parent, 0)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert len(local.take().getsockopt(TCP, TCP_SAVED_SYN, 200)) >= 40


@case
def backlog(stack):
    """The backlog is the application's, also after it calls listen() again."""
    parent = listener(stack, backlog=3)
    spawn(stack, parent, 0)
    assert listeners_of(port_of(parent))[0]["backlog"] == "3"
    parent.listen(9)
    sync(parent)
    assert listeners_of(port_of(parent))[0]["backlog"] == "9"
    sysctl_for(stack, "net.core.somaxconn", 5)
    parent.listen(100)
    sync(parent)
    assert listeners_of(port_of(parent))[0]["backlog"] == "5"


def counted(name):
    """By the kernel, in this namespace."""
    with open("/proc/self/net/netstat") as f:
        lines = [line.split() for line in f if line.startswith("TcpExt")]
    return int(dict(zip(*lines))[name])


@case
def drops_counted(stack):
    """What is dropped because no queue has room is counted where it always was."""
    parent = listener(stack, backlog=1)
    spawn(stack, parent, 0)
    before = counted("ListenOverflows")
    for n in range(4):
        connect(stack, "127.0.0.1", port_of(parent), 0)
        # Not before the last segment has come.
        wait_for(lambda: sum(waiting(parent)) == n + 1)
    assert counted("ListenOverflows") == before
    try:
        connect(stack, "127.0.0.1", port_of(parent), 0, timeout=1)
        raise AssertionError("connected")
    except TimeoutError:
        assert counted("ListenOverflows") > before


@case
def cookies_always(stack):
    """With tcp_syncookies=2 every connection is a cookie's, and all of them work, core-locally."""
    sysctl_for(stack, "net.ipv4.tcp_syncookies", 2)
    parent = listener(stack)
    locals_ = [spawn(stack, parent, cpu) for cpu in range(2)]
    d = Delta()
    for cpu in (0, 1, 0, 1):
        client = connect(stack, "127.0.0.1", port_of(parent), cpu)
        server = locals_[cpu].take()
        assert server, cpu
        talk(client, server)
    assert d.cookies == 4


@case
def cookies_begin(stack):
    """SYN cookies begin at the same SYN of a flood as without a local listener, whatever the backlog."""
    floodable(stack)
    for backlog in (1, 16, 100):
        begin = []
        for local in (False, True):
            parent = listener(stack, backlog=backlog)
            if local:
                spawn(stack, parent, 0)
            sent, n = counted("SyncookiesSent"), 0
            with on_cpu(0):
                while counted("SyncookiesSent") == sent:
                    flood(port_of(parent), 1, n)
                    n += 1
                    assert n < 200
            begin.append(n)
            if local:
                assert int(listeners_of(port_of(parent))[0]["half_open"]) == n - 1
        assert begin[0] == begin[1] > backlog, (backlog, begin)


@case
def syn_flood(stack):
    """While a SYN flood lasts, clients connect by SYN cookies, on the CPU of the flood and elsewhere."""
    floodable(stack)
    sysctl("net.ipv4.tcp_max_syn_backlog", 16)
    parent = listener(stack, backlog=16)
    locals_ = [spawn(stack, parent, cpu) for cpu in range(4)]
    port = port_of(parent)
    for round_ in range(3):
        for cpu in range(2):
            with on_cpu(cpu):
                flood(port, 200)
            # Soon: of a full queue, the kernel lets requests go early.
            queues = {row["cpu"]: int(row["half_open"]) for row in listeners_of(port)}
            assert queues[str(cpu)] >= 16, queues
        for cpu in range(4):
            client = connect(stack, "127.0.0.1", port, cpu, timeout=3)
            server = locals_[cpu].take() or take(parent)
            assert server, (round_, cpu)
            talk(client, server)
            server.close()


@case
def flood_survivor_on_another_cpu(stack):
    """A cookie's ACK that comes to another CPU than its SYN is accepted."""
    unshare_net(stack)
    sysctl("net.ipv4.tcp_syncookies", 2)
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    (client,), admit = half_open(stack, parent, 0, 1)
    admit()
    with on_cpu(1):
        client.sendall(b"x")
        time.sleep(0.5)     # the retransmission timer may be on CPU 0
    assert take(parent) or local.take()


@case
def unsupported(stack):
    """A listener whose options a module cannot share is refused with EOPNOTSUPP; one that gets such an option later takes no more connections locally."""
    import ctypes as c
    insn = (c.c_ubyte * 8)(0x06, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF)   # accept all

    class Prog(c.Structure):
        _fields_ = [("len", c.c_ushort), ("insn", c.c_void_p)]

    prog = bytes(Prog(1, c.addressof(insn)))
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    parent.setsockopt(SOL, socket.SO_ATTACH_FILTER if hasattr(
        socket, "SO_ATTACH_FILTER") else 26, prog)
    for call in (lambda: spawn(stack, parent, 0), lambda: sync(parent)):
        try:
            call()
            raise AssertionError("accepted")
        except OSError as err:
            assert err.errno == errno.EOPNOTSUPP
    assert listeners_of(port_of(parent))[0]["state"] == "off"
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert take(parent)
    parent.setsockopt(SOL, 27, 0)   # SO_DETACH_FILTER
    sync(parent)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert local.take()


load()
main()
