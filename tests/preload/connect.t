#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""connect() under the library: what it asks of the module, and that a program
sees what it would see without. This program is its own subject, with a shim
below the library that counts, and answers for the module where told to."""

import array
import os
import select
import signal
import sys
import threading

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from shimmed import LIBS, shim  # noqa: E402
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

REPLACE, RELEASE = PORT_REPLACE, PORT_RELEASE
GIVEN, REAL = 0, -1     # the shim's answers beside errnos
KEEPS = (errno.EINPROGRESS, errno.EINTR, errno.EALREADY, errno.EISCONN)


def server(stack, addr="127.0.0.1"):
    sock = listener(stack, addr)
    shim.reset(GIVEN)
    return sock.getsockname()[:2]


def client(stack, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    return stack.enter_context(socket.socket(family, kind))


def raw(sock, addr, length=None):
    """What connect() returns, 0 or errno; a success leaves errno alone."""
    ctypes.set_errno(77)
    if libc.connect(sock.fileno(), addr, len(addr) if length is None else length):
        return ctypes.get_errno()
    assert ctypes.get_errno() == 77, ctypes.get_errno()
    return 0


# Nobody listens there; and as it is below the ports that connect() chooses,
# none of them can meet itself.
CLOSED = ("127.0.0.1", 9)


def steered(stack, device="lo", cpus=(0, 1, 2, 3), **ports):
    """A namespace whose ports that are n modulo 4 come to the nth of @cpus."""
    unshare_net(stack)
    blackhole(**ports)
    steer(socket.if_nametoindex(device), STEER_PORT, cpus)


@case
def asks(stack):
    """A TCP connect() asks for a port once and is made once, IPv4 and IPv6, blocking and not."""
    for addr, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        name = server(stack, addr)
        for kind in (socket.SOCK_STREAM, socket.SOCK_STREAM | socket.SOCK_NONBLOCK):
            shim.reset(GIVEN)
            sock = client(stack, family, kind)
            want = errno.EINPROGRESS if kind & socket.SOCK_NONBLOCK else 0
            assert raw(sock, sockaddr(*name)) == want
            assert (shim.flags(), shim.connects) == ([0], 1)
            sock.settimeout(5)
            assert sock.getpeername()[:2] == name


@case
def answers(stack):
    """Whatever the module answers, the connection is made the stock way, and errno stays."""
    name = server(stack)
    for err in (errno.EBADF, errno.ENOTSOCK, errno.EPROTONOSUPPORT, errno.EINVAL,
                errno.EOPNOTSUPP, errno.EAGAIN, errno.ENXIO, errno.EADDRNOTAVAIL,
                errno.EFAULT, errno.ENOMEM, errno.ENETUNREACH, errno.EACCES, errno.EPERM):
        shim.reset(err)
        assert raw(client(stack), sockaddr(*name)) == 0
        assert (shim.flags(), shim.connects) == ([0], 1), err


@case
def failures(stack):
    """A connect() that fails keeps its errno and gives the port back."""
    addr = sockaddr(*CLOSED)
    shim.reset(GIVEN)
    assert raw(client(stack), addr) == errno.ECONNREFUSED
    assert (shim.flags(), shim.connects) == ([0, RELEASE], 1)
    shim.reset(GIVEN)
    assert raw(client(stack), sockaddr("192.0.2.1", 80)) == errno.ENETUNREACH
    assert (shim.flags(), shim.connects) == ([0, RELEASE], 1)
    for err in (errno.EPERM, errno.EACCES, errno.ETIMEDOUT, errno.EINVAL):
        shim.reset(GIVEN)
        shim.fail, shim.fail_errno = 1, err
        assert raw(client(stack), addr) == err
        assert (shim.flags(), shim.connects) == ([0, RELEASE], 1), err


def denied(stack, addr, deny, asked=(0, RELEASE)):
    """connect() to @addr once @deny() has forbidden it, in a child: its errno,
    and that nothing has come of it."""
    pid = os.fork()
    if not pid:
        code = 255
        try:
            shim.reset(REAL)
            deny()
            sock = client(stack)    # belongs to the control group that it is made in
            code = raw(sock, addr)
            # By default asked for, and given back.
            assert shim.flags() == list(asked) and shim.connects == 1
            assert sock.getsockname() == ("0.0.0.0", 0)
        except BaseException as err:
            print("# %r" % err, flush=True)
            code = 255
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert filed() == 0
    return code


def seccomp(err):
    """From now on the kernel's connect() gives @err."""
    code = [(0x20, 0, 0, 0),                    # the call's number
            (0x15, 0, 1, 42),                   # connect()
            (0x06, 0, 0, 0x50000 | err),        # SECCOMP_RET_ERRNO
            (0x06, 0, 0, 0x7FFF0000)]           # SECCOMP_RET_ALLOW
    insns = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in code))
    prog = ctypes.create_string_buffer(struct.pack("=H6xQ", len(code), ctypes.addressof(insns)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0      # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, prog) == 0         # PR_SET_SECCOMP


@case
def seccomp_denies(stack):
    """A seccomp filter sees connect(): what it denies has its errno, and leaves no port and no entry."""
    parent = listener(stack)
    addr = sockaddr(*parent.getsockname())
    for err in (errno.EACCES, errno.EPERM, errno.ENOSYS):
        assert denied(stack, addr, lambda err=err: seccomp(err)) == err
    assert take(parent, 0.1) is None


@case
def cgroup_denies(stack):
    """So does a program of the control group: with one, no port is given."""
    group = connect_group(stack, (CGROUP_CONNECT4, [(0xB7, 0, 0, 0), (0x95, 0, 0, 0)]))  # return 0
    parent = listener(stack)
    addr = sockaddr(*parent.getsockname())
    assert denied(stack, addr, lambda: enter_group(group), [0]) == errno.EPERM
    assert take(parent, 0.1) is None


@case
def under_way(stack):
    """A connection that is under way keeps its port."""
    addr = sockaddr(*CLOSED)
    for err in KEEPS:
        shim.reset(GIVEN)
        shim.fail, shim.fail_errno = 1, err
        assert raw(client(stack), addr) == err
        assert (shim.flags(), shim.connects) == ([0], 1), err


@case
def taken(stack):
    """A port that has been taken meanwhile: three more, then the stock allocator, then its errno."""
    name = server(stack)
    for fails in range(6):
        shim.reset(GIVEN)
        shim.fail, shim.fail_errno = fails, errno.EADDRNOTAVAIL
        got = raw(client(stack), sockaddr(*name))
        assert got == (errno.EADDRNOTAVAIL if fails > 4 else 0)
        want = [0, RELEASE] * fails + [0]
        assert shim.flags() == want[:8], (fails, shim.flags())
        assert shim.connects == min(fails + 1, 5)


@case
def bound(stack):
    """The port of bind(addr, 0) is replaced if nobody has seen it, once; one chosen by the program is not."""
    for addr in ("127.0.0.1", "::1"):
        name = server(stack, addr)
        family = socket.AF_INET6 if ":" in addr else socket.AF_INET
        for port, want in ((0, REPLACE), (20001, 0)):
            shim.reset(GIVEN)
            sock = client(stack, family)
            sock.bind((addr, port))
            sock.connect(name)
            assert shim.flags() == [want]
            assert not port or sock.getsockname()[1] == port


@case
def bound_failing(stack):
    """A socket that bind(addr, 0) has given a port keeps one when connect() fails."""
    name = server(stack)
    sock = client(stack)
    sock.bind(("127.0.0.1", 0))
    shim.fail, shim.fail_errno = 1, errno.EPERM
    assert raw(sock, sockaddr(*name)) == errno.EPERM
    shim.fail, shim.fail_errno = 1, errno.EADDRNOTAVAIL
    assert raw(sock, sockaddr(*name)) == 0
    assert shim.flags() == [REPLACE, REPLACE, RELEASE, REPLACE]


def pass_on(sock, many):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        data = array.array("i", [sock.fileno()])
        if not many:
            ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, data)])
            return
        control = ctypes.create_string_buffer(
            struct.pack("=QiiI4x", 20, socket.SOL_SOCKET, socket.SCM_RIGHTS, sock.fileno()))
        byte = ctypes.create_string_buffer(b"x", 1)
        iov = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(byte), 1))
        msg = ctypes.create_string_buffer(
            struct.pack("=QI4xQQQQi4xI4x", 0, 0, ctypes.addressof(iov), 1,
                        ctypes.addressof(control), 24, 0, 0))
        assert libc.sendmmsg(ours.fileno(), msg, 1, 0) == 1, ctypes.get_errno()


SEEN = {
    "getsockname": lambda s: s.getsockname(),
    "dup": lambda s: os.close(libc.dup(s.fileno())),
    "dup2": lambda s: os.close(os.dup2(s.fileno(), os.dup(0))),
    "dup3": lambda s: os.close(os.dup2(s.fileno(), os.dup(0), False)),
    "F_DUPFD": lambda s: os.close(fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 100)),
    "F_DUPFD_CLOEXEC": lambda s: os.close(fcntl.fcntl(s.fileno(), fcntl.F_DUPFD_CLOEXEC, 100)),
    "fork": lambda s: os.waitpid(os.fork() or os._exit(0), 0),
    "sendmsg": lambda s: pass_on(s, False),
    "sendmmsg": lambda s: pass_on(s, True),
}


@case
def seen(stack):
    """getsockname(), duplicates, fork() and SCM_RIGHTS: a port that may have been seen is kept."""
    name = server(stack)
    for how, see in SEEN.items():
        shim.reset(GIVEN)
        sock = client(stack)
        sock.bind(("127.0.0.1", 0))
        see(sock)
        sock.connect(name)
        assert shim.flags() == [0], how
        # And not for ever.
        sock = client(stack)
        sock.bind(("127.0.0.1", 0))
        sock.connect(name)
        assert shim.flags() == [0, REPLACE], how


@case
def seen_by_duplicate(stack):
    """getsockname() of a duplicate that is older than the bind() counts."""
    name = server(stack)
    sock = client(stack)
    copy = stack.enter_context(sock.dup())
    sock.bind(("127.0.0.1", 0))
    port = port_of(copy)
    sock.connect(name)
    assert shim.flags() == [0] and port_of(sock) == port


@case
def seen_by_child(stack):
    """After fork(), neither parent nor child replaces a port."""
    name = server(stack)
    sock = client(stack)
    sock.bind(("127.0.0.1", 0))
    pid = os.fork()
    if not pid:
        os._exit(0 if raw(sock, sockaddr(*name)) == 0 and shim.flags() == [0] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert raw(sock, sockaddr(*name)) == errno.EISCONN and shim.flags() == [0]


@case
def number_reused(stack):
    """A number that comes back as another socket has no mark, however the first was closed."""
    name = server(stack)
    for close in (os.close, lambda fd: libc.syscall(3, fd)):
        shim.reset(GIVEN)
        sock = client(stack)
        sock.bind(("127.0.0.1", 0))
        number = sock.detach()
        close(number)
        sock = client(stack)
        assert sock.fileno() == number
        sock.connect(name)
        assert shim.flags() == [0]


@case
def untouched(stack):
    """UDP, Unix and MPTCP sockets, AF_UNSPEC and short addresses go through with one question at most."""
    name = server(stack)
    shim.reset(REAL)
    sock = client(stack, kind=socket.SOCK_DGRAM)
    for _ in range(2):
        sock.connect(name)
        assert sock.getpeername() == name
        assert raw(sock, struct.pack("=H14x", socket.AF_UNSPEC)) == 0
    assert shim.asked <= 4 and shim.connects == 4
    path = "\0fastsocket-connect"
    unix = client(stack, socket.AF_UNIX)
    unix.bind(path)
    unix.listen()
    shim.reset(REAL)
    client(stack, socket.AF_UNIX).connect(path)
    assert shim.asked <= 1 and shim.connects == 1
    with contextlib.suppress(OSError):
        mptcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
        mptcp.connect(name)
    shim.reset(GIVEN)
    assert raw(client(stack), sockaddr(*name), 15) == errno.EINVAL
    assert raw(client(stack), sockaddr(*name), 129) == errno.EINVAL
    assert (shim.asked, shim.connects) == (0, 2)


@case
def unspec(stack):
    """connect(AF_UNSPEC) of a TCP socket disconnects it, and it connects again."""
    name = server(stack)
    shim.reset(REAL)
    sock = client(stack)
    for _ in range(3):
        assert raw(sock, sockaddr(*name)) == 0
        assert raw(sock, struct.pack("=H14x", socket.AF_UNSPEC)) == 0
    sock.connect(name)
    assert raw(sock, sockaddr(*name)) == errno.EISCONN


@case
def addresses(stack):
    """A bad address gives EFAULT."""
    for addr in (None, ctypes.c_void_p(8)):
        shim.reset(REAL)
        sock = client(stack)
        assert libc.connect(sock.fileno(), addr, 16) == -1
        assert ctypes.get_errno() == errno.EFAULT
        assert shim.connects == 1


# What a fresh program asks: opens of the device and questions after each of
# three connects; the address is the first argument, statements before them the
# second. Then what it has printed.
FRESH = r"""
import ctypes, socket, sys
libc = ctypes.CDLL(None)
def var(name):
    return ctypes.c_int.in_dll(libc, "shim_" + name)
exec(sys.argv[2])
for _ in range(3):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))):
        print(var("opens").value, var("asked").value, var("connects").value)
"""


def fresh(stack, before="", **env):
    port = port_of(listener(stack))
    done = subprocess.run(["/usr/bin/python3", "-c", FRESH, str(port), before],
                          env=dict(os.environ, LD_PRELOAD=LIBS, **env), text=True,
                          capture_output=True, check=True)
    return [tuple(map(int, line.split())) for line in done.stdout.splitlines()], done.stderr


def unasked(asked):
    """Nothing was asked, and after the first connect() nothing opened but once a second."""
    return [rest for _, *rest in asked] == [[0, 1], [0, 2], [0, 3]] and \
        all(2 <= opens <= 4 for opens, *_ in asked)


@case
def absent(stack):
    """Without the module, a program is told once, and later connects cost nothing, but a look each second."""
    run("rmmod", "fastsocket")
    stack.callback(load)
    asked, text = fresh(stack)
    assert unasked(asked), asked
    assert text.count("\n") == 1 and "is not loaded" in text, text


@case
def once_open(stack):
    """With the module, each connect() costs one question, and opens nothing after the first."""
    asked, text = fresh(stack)
    assert asked == [(1, 1, 1), (1, 2, 2), (1, 3, 3)], asked
    assert text == "", text


@case
def older(stack):
    """A module that does not know the question is not asked, and nothing is printed."""
    asked, text = fresh(stack, "var('no_proc').value = 1")
    assert unasked(asked), asked
    assert text == "", text


@case
def version(stack):
    """A module whose interface has another meaning is not asked, and the program is told once."""
    asked, text = fresh(stack, "var('version').value = 99")
    assert unasked(asked), asked
    assert text.count("\n") == 1 and "has version 99" in text, text


def ours():
    """The number of the descriptor that the library asks by."""
    return [int(n) for n in os.listdir("/proc/self/fd")
            if os.path.exists("/proc/self/fd/" + n) and
            os.readlink("/proc/self/fd/" + n) == "/proc/fastsocket"]


@case
def descriptor(stack):
    """The library's descriptor: the program does not see it close, takes its number if it wants it, and it comes back."""
    name = server(stack)
    shim.reset(REAL)    # that of a module unloaded by another case shows now
    client(stack).connect(name)
    fd, = ours()
    assert fd >= 1024 and not os.get_inheritable(fd)
    try:
        os.close(fd)
        assert False, "closed"
    except OSError as err:
        assert err.errno == errno.EBADF
    # Under another file, by a call that the library sees and one that it does not.
    for take_it in (lambda: os.dup2(0, fd), lambda: libc.syscall(33, 0, fd)):
        take_it()
        shim.reset(GIVEN)
        client(stack).connect(name)
        assert shim.flags() == [0] and shim.opens == 1
        assert os.fstat(fd).st_ino == os.fstat(0).st_ino and fd not in ours()
        os.close(fd)
        fd, = ours()
    for close_it in (lambda: os.closerange(fd, fd + 1), lambda: libc.closefrom(1000),
                     lambda: libc.syscall(3, fd)):
        close_it()
        shim.reset(GIVEN)
        client(stack).connect(name)
        assert shim.flags() == [0] and shim.opens <= 1
        fd, = ours()


@case
def confined(stack):
    """A server that listens before it loses sight of /proc connects core-locally after that."""
    name = server(stack)
    pid = os.fork()
    if not pid:
        libc.closefrom(1000)
        listener(stack)
        os.chroot("/var/empty" if os.path.isdir("/var/empty") else "/tmp")
        shim.reset(GIVEN)
        os._exit(0 if raw(client(stack), sockaddr(*name)) == 0 and shim.flags() == [0] else 1)
    assert os.waitpid(pid, 0)[1] == 0


@case
def off(stack):
    """FASTSOCKET=off: nothing is asked and nothing printed."""
    asked, text = fresh(stack, FASTSOCKET="off")
    assert asked == [(0, 0, 1), (0, 0, 2), (0, 0, 3)] and text == ""


def become_worker(stack):
    with on_cpu(0), select.epoll() as ep:
        ep.register(listener(stack).fileno(), select.EPOLLIN)


@case
def unloaded(stack):
    """rmmod under a program that has connected; a second after modprobe it is served again."""
    name = server(stack)
    shim.reset(REAL)
    client(stack).connect(name)
    run("rmmod", "fastsocket")
    stack.callback(load)
    shim.reset(REAL)
    for _ in range(3):
        client(stack).connect(name)
    assert (shim.asked, shim.connects) == (1, 3) and shim.opens <= 3
    load()
    time.sleep(1.1)
    shim.reset(GIVEN)
    client(stack).connect(name)
    assert shim.flags() == [0]


@case
def unloaded_busy(stack):
    """rmmod while threads connect waits for none of them and fails none."""
    steered(stack, "blackhole")
    addr = sockaddr("10.99.0.2", 80)
    shim.reset(REAL)
    stop, wrong, made = threading.Event(), [], []
    stack.callback(load)

    def connects(cpu):
        os.sched_setaffinity(0, {cpu})
        while not stop.is_set():
            with socket.socket() as sock:
                sock.setblocking(False)
                err = raw(sock, addr)
                if err != errno.EINPROGRESS:
                    wrong.append(err)
                made.append(cpu)
    each = [threading.Thread(target=connects, args=(cpu,)) for cpu in range(4)]
    d = Delta()
    for thread in each:
        thread.start()
    try:
        wait_for(lambda: d.connect_local > 20, 30)
        for _ in range(5):
            run("rmmod", "fastsocket")
            n = len(made)
            wait_for(lambda: len(made) > n + 20, 30)
            load()
            steer(socket.if_nametoindex("blackhole"), STEER_PORT, range(4))
            with contextlib.ExitStack() as more:
                become_worker(more)
            d = Delta()
            wait_for(lambda: d.connect_local > 20, 30)
    finally:
        stop.set()
        for thread in each:
            thread.join()
    assert not wrong, wrong


@case
def signals(stack):
    """connect() in a signal handler, at any moment of another: each has its own errno."""
    addr = sockaddr(*CLOSED)
    shim.reset(GIVEN)
    assert libc.shim_storm(addr, len(addr), 200) == 0


@case
def local(stack):
    """On each CPU, connections have ports that come to it, IPv4 and IPv6, blocking and not; nothing else is different."""
    steered(stack)
    for addr in ("127.0.0.1", "::1"):
        parent = listener(stack, addr)
        name = parent.getsockname()[:2]
        shim.reset(REAL)
        d = Delta()
        for n in range(16):
            family = socket.AF_INET6 if ":" in addr else socket.AF_INET
            with on_cpu(n % 4):
                sock = client(stack, family)
                if n & 4:
                    sock.setblocking(False)
                    assert raw(sock, sockaddr(*name)) == errno.EINPROGRESS
                else:
                    assert raw(sock, sockaddr(*name)) == 0
            assert port_of(sock) % 4 == n % 4 and port_of(sock) >= 32768
            conn = stack.enter_context(take(parent))
            assert conn.getpeername() == sock.getsockname()
            talk(sock, conn)
        assert (d.connect_local, d.connect_stock) == (16, 0)
        assert shim.flags() == [0] * 16


@case
def threads(stack):
    """Threads have the ports of their own CPUs."""
    steered(stack, "blackhole")
    shim.reset(REAL)
    ports = {}

    def connects(cpu):
        os.sched_setaffinity(0, {cpu})
        for _ in range(20):
            with socket.socket() as sock:
                sock.setblocking(False)
                assert raw(sock, sockaddr("10.99.0.2", 80)) == errno.EINPROGRESS
                ports.setdefault(cpu, set()).add(port_of(sock) % 4)
    each = [threading.Thread(target=connects, args=(cpu,)) for cpu in range(4)]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    assert ports == {cpu: {cpu} for cpu in range(4)}


@case
def bound_local(stack):
    """bind(addr, 0) leads to a core-local port; one that has been seen or chosen stays."""
    steered(stack)
    parent = listener(stack)
    stack.enter_context(on_cpu(2))
    for port in (0, 50001):
        for look in (False, True):
            shim.reset(REAL)
            sock = client(stack)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            seen_port = sock.getsockname()[1] if look else port
            sock.connect(parent.getsockname())
            if seen_port:
                assert port_of(sock) == seen_port
            else:
                assert port_of(sock) % 4 == 2
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()


@case
def given_back(stack):
    """After a connect() that fails, the port is free and the socket as new."""
    steered(stack)
    stack.enter_context(on_cpu(1))
    for err in (errno.ECONNREFUSED, errno.EPERM):
        shim.reset(REAL)
        d = Delta()
        sock = client(stack)
        if err == errno.EPERM:
            shim.fail, shim.fail_errno = 1, err
        assert raw(sock, sockaddr(*CLOSED)) == err
        assert d.connect_local == 1 and shim.flags() == [0, RELEASE]
        run("rmmod", "fastsocket")      # with nothing left to hold it
        load()
        assert port_of(sock) == 0 or err == errno.ECONNREFUSED
        sock.bind(("127.0.0.1", 0))
        sock.connect(listener(stack).getsockname())
        steer(1, STEER_PORT, range(4))


@case
def none_left(stack):
    """When none of the core's ports is left, the stock allocator gives one of the others; EADDRNOTAVAIL comes when it says so."""
    steered(stack, "blackhole", low=40000, high=40015)
    addr = sockaddr("10.99.0.2", 80)
    shim.reset(REAL)
    with on_cpu(3):
        d = Delta()
        ports = []
        for _ in range(16):
            sock = client(stack, kind=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            assert raw(sock, addr) == errno.EINPROGRESS
            ports.append(port_of(sock))
        assert [port % 4 for port in ports[:4]] == [3] * 4, ports
        assert sorted(ports) == list(range(40000, 40016))
        assert (d.connect_local, d.connect_stock) == (4, 12)
        assert raw(client(stack), addr) == errno.EADDRNOTAVAIL
        # Another destination has them all again.
        sock = client(stack, kind=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        assert raw(sock, sockaddr("10.99.0.3", 80)) == errno.EINPROGRESS
        assert port_of(sock) % 4 == 3


@case
def switched_off(stack):
    """net.fastsocket.receive_flow_deliver=0, or no port for the CPU: the stock allocator's, one question."""
    steered(stack, "blackhole", cpus=(0, 1, 2, -1))
    addr = sockaddr("10.99.0.2", 80)
    for cpu, deliver, counts in ((0, 1, (1, 0)), (3, 1, (0, 1)), (0, 0, (0, 0))):
        shim.reset(REAL)
        sysctl_for(stack, "net.fastsocket.receive_flow_deliver", deliver)
        d = Delta()
        with on_cpu(cpu):
            sock = client(stack, kind=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            assert raw(sock, addr) == errno.EINPROGRESS
        assert (d.connect_local, d.connect_stock) == counts, (cpu, deliver)
        assert shim.flags() == [0]


load()
main()
