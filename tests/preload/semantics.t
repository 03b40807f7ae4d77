#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What a program sees of its listeners under the library: what it would see
without. This program is its own subject: it runs itself with the library.

A process is a worker when it is bound to one CPU, so the cases bind this one to
CPU 0: clients from there come core-locally, others the slow way."""

import os
import sys

if os.environ.get("LD_PRELOAD") != os.environ["FASTSOCKET_LIB"]:
    os.environ["LD_PRELOAD"] = os.environ["FASTSOCKET_LIB"]
    os.execv(sys.argv[0], sys.argv)
del os.environ["LD_PRELOAD"]    # what the cases start is plain

import array  # noqa: E402
import pty  # noqa: E402
import re  # noqa: E402
import resource  # noqa: E402
import select  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import termios  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

ADDR = "127.0.0.1"
IN, ET = select.EPOLLIN, select.EPOLLET


def fill(stack, parent, *cpus):
    """Clients that have connected from @cpus, in this order, and wait to be accepted."""
    socks = [connect(stack, ADDR, port_of(parent), cpu) for cpu in cpus]
    wait_for(lambda: not handshakes(parent))
    return socks


def handshakes(parent):
    """Peers whose connect() may have returned, but the last of the
    handshake is still on its way to @parent."""
    name = "/proc/net/tcp6" if parent.family == socket.AF_INET6 else "/proc/net/tcp"
    with open(name) as f:
        rows = [line.split()[1:4] for line in f][1:]
    return [there for here, there, state in rows
            if state == "03" and int(here.split(":")[1], 16) == port_of(parent)]


def worker(stack, events=IN, **args):
    """A listener of this process, and its epoll set."""
    stack.enter_context(on_cpu(0))
    parent = listener(stack, **args)
    ep = stack.enter_context(select.epoll())
    ep.register(parent.fileno(), events)
    return parent, ep


def is_local(parent, count=1):
    return len([r for r in listeners_of(port_of(parent))
                if r["state"] == "live"]) == count


def ready(ep, timeout=1.0):
    return ep.poll(timeout)


def take_all(stack, parent):
    """How many connections accept() gives until EAGAIN."""
    n = 0
    try:
        while True:
            stack.enter_context(parent.accept()[0])
            n += 1
    except BlockingIOError:
        return n


def silent(ep):
    """One wake-up in vain is allowed to a set, as when workers compete; a
    second means that it spins."""
    ready(ep, 0.05)
    return not ready(ep, 0.05)


def is_refused(stack, name, cpu):
    try:
        connect(stack, *name, cpu=cpu)
    except ConnectionRefusedError:
        return True
    return False


@case
def level(stack):
    """epoll, level-triggered: both kinds of connection are reported, with the program's event data, until they are taken."""
    parent, ep = worker(stack)
    assert is_local(parent)
    for cpus in ((0,), (1,), (0, 1, 0)):
        clients = fill(stack, parent, *cpus)
        for left in range(len(cpus), 0, -1):
            assert ready(ep) and {fd for fd, _ in ready(ep)} == {parent.fileno()}
            conn, peer = parent.accept()
            with conn:
                assert peer in [c.getsockname() for c in clients]
                talk(next(c for c in clients if c.getsockname() == peer), conn)
        assert take_all(stack, parent) == 0 and silent(ep)


@case
def edge(stack):
    """epoll, edge-triggered: each arrival is reported, and accept() until EAGAIN leaves nothing behind."""
    parent, ep = worker(stack, IN | ET)
    assert is_local(parent)
    for cpus in ((0,), (1,), (0, 0, 1), (1, 0), (0, 0)):
        fill(stack, parent, *cpus)
        assert ready(ep)
        assert take_all(stack, parent) == len(cpus)
        assert silent(ep)


@case
def edge_by_two_numbers(stack):
    """The same where one set has the listener by two numbers."""
    parent, ep = worker(stack, IN | ET)
    with parent.dup() as second:
        ep.register(second.fileno(), IN | ET)
        assert is_local(parent, 2)
        for cpus in ((0, 0, 0, 0), (0, 1, 0)):
            fill(stack, parent, *cpus)
            assert ready(ep)
            assert take_all(stack, parent) == len(cpus)
            assert silent(ep)


@case
def edge_one_by_one(stack):
    """epoll, edge-triggered, one accept() an event: what stays is not reported again, as without the library."""
    parent, ep = worker(stack, IN | ET)
    fill(stack, parent, 0, 0)
    assert ready(ep)
    stack.enter_context(parent.accept()[0])
    assert silent(ep)
    fill(stack, parent, 0)
    assert ready(ep)
    assert take_all(stack, parent) == 2


@case
def oneshot(stack):
    """EPOLLONESHOT: one event, then none until it is armed again; no connection is missed."""
    parent, ep = worker(stack, IN | select.EPOLLONESHOT)
    assert is_local(parent, 0)
    for _ in range(3):
        fill(stack, parent, 0, 1)
        assert len(ready(ep)) == 1
        assert not ready(ep, 0.05)
        assert take_all(stack, parent) == 2
        ep.modify(parent.fileno(), IN | select.EPOLLONESHOT)
    ep.modify(parent.fileno(), IN)
    assert is_local(parent)
    fill(stack, parent, 0, 1)
    assert ready(ep) and take_all(stack, parent) == 2


@case
def exclusive(stack):
    """EPOLLEXCLUSIVE set by the program works as it does without the library, core-locally."""
    parent, ep = worker(stack, IN | select.EPOLLEXCLUSIVE)
    assert is_local(parent)
    fill(stack, parent, 0, 1)
    assert ready(ep) and take_all(stack, parent) == 2
    try:
        ep.modify(parent.fileno(), IN)
        assert False, "the kernel does not modify an exclusive one"
    except OSError as err:
        assert err.errno == errno.EINVAL, err
    fill(stack, parent, 0, 1)
    assert ready(ep) and take_all(stack, parent) == 2


@case
def modify(stack):
    """epoll_ctl MOD and DEL and ADD again: quiet while unwanted, everything is there after."""
    parent, ep = worker(stack)
    fd = parent.fileno()
    for quiet, back in ((lambda: ep.modify(fd, 0), lambda: ep.modify(fd, IN | ET)),
                        (lambda: ep.unregister(fd), lambda: ep.register(fd, IN))):
        quiet()
        fill(stack, parent, 0, 1)
        assert not ready(ep, 0.1)
        back()
        fill(stack, parent, 0)
        assert ready(ep) and take_all(stack, parent) == 3
        assert is_local(parent)


@case
def readded(stack):
    """A listener that a worker takes out and puts back before it waits keeps its local listener."""
    parent, ep = worker(stack)
    inode = listeners_of(port_of(parent))[0]["inode"]
    assert not ready(ep, 0)
    for _ in range(20):
        fill(stack, parent, 0)
        ep.unregister(parent.fileno())
        ep.register(parent.fileno(), IN)
        assert ready(ep) and take_all(stack, parent) == 1
    assert [r["inode"] for r in listeners_of(port_of(parent))] == [inode]


@case
def taken_out(stack):
    """A listener that a thread takes out of a set for which it has not waited has no local listener there."""
    parent, ep = worker(stack)
    ep.unregister(parent.fileno())
    assert is_local(parent, 0)


@case
def out_while_spawning(stack):
    """A listener that is taken out of a set is out of it, also while a child that another thread starts has all descriptors."""
    parent, ep = worker(stack)
    fifo = os.path.join(tempfile.mkdtemp(), "fifo")
    os.mkfifo(fifo)
    actions, pid = ctypes.create_string_buffer(1024), ctypes.c_int()
    libc.posix_spawn_file_actions_init(actions)
    libc.posix_spawn_file_actions_addopen(actions, 0, fifo.encode(), os.O_RDONLY, 0)
    argv = (ctypes.c_char_p * 2)(b"true", None)
    thread = threading.Thread(target=libc.posix_spawn, args=(
        ctypes.byref(pid), b"/bin/true", actions, None, argv, None))
    thread.start()
    time.sleep(0.3)
    try:
        ep.unregister(parent.fileno())
        fill(stack, parent, 0)
        assert not ready(ep, 0.3)
    finally:
        os.close(os.open(fifo, os.O_WRONLY))
        thread.join()
        os.waitpid(pid.value, 0)
    assert take(parent)


@case
def own_numbers(stack):
    """A local listener does not have the number of one that has just been closed: another thread may be about to use it."""
    parent, ep = worker(stack)
    before = set(os.listdir("/proc/self/fd"))
    ep.modify(parent.fileno(), 0)
    gone = before - set(os.listdir("/proc/self/fd"))
    ep.modify(parent.fileno(), IN)
    assert len(gone) == 1 and not gone & set(os.listdir("/proc/self/fd"))


@case
def new_listener(stack):
    """A listener with the number that another has had accepts its own connections only."""
    parent, _ = worker(stack)
    fill(stack, parent, 0)
    assert take_all(stack, parent) == 1
    name, number = parent.getsockname(), parent.fileno()
    second = stack.enter_context(socket.socket(fileno=os.dup(number)))
    parent.close()
    other = listener(stack)
    assert other.fileno() == number
    connect(stack, *name, cpu=0)
    assert take_all(stack, other) == 0 and take(second)


@case
def another_number(stack):
    """A listener with a number that another has had, which had no local one, accepts what its own has."""
    parent, ep = worker(stack)
    other = listener(stack)
    assert not ready(ep, 0) and take_all(stack, other) == 0
    os.dup2(parent.fileno(), other.fileno())
    parent.close()
    connect(stack, *other.getsockname(), cpu=0)
    assert ready(ep)
    assert take_all(stack, other) == 1


def told_first(stack, parent, cpus):
    """Two threads with sets of their own wait for one listener. A client on CPU 2; the sets:
    first that of who is told, then the other."""
    sets, told = [], []

    def waits(cpu, ep):
        os.sched_setaffinity(0, {cpu})
        ep.register(parent.fileno(), IN)
        sets.append(ep)
        if ready(ep, 10):
            told.append(ep)
    for cpu in cpus:
        ep = stack.enter_context(select.epoll())
        thread = threading.Thread(target=waits, args=(cpu, ep))
        thread.start()
        stack.callback(thread.join)
        wait_for(lambda ep=ep: ep in sets)
        time.sleep(0.3)
    connect(stack, *parent.getsockname(), cpu=2)
    wait_for(lambda: told)
    time.sleep(0.3)
    return told, sets


@case
def all_told(stack):
    """Without local listeners, each set is told of a connection, as the program has it."""
    sysctl_for(stack, "net.fastsocket.listen_spawn", 0)
    told, sets = told_first(stack, listener(stack), (0, 1))
    assert len(told) == len(sets) == 2


@case
def passed_on(stack):
    """A thread that has been told of another core's connection, and ends: another one is told."""
    told, sets = told_first(stack, listener(stack), (0, 1))
    wait_for(lambda: len(told) == len(sets) == 2)


@case
def two_sets(stack):
    """One listener in two epoll sets: both report, closing one leaves the other whole."""
    parent, ep = worker(stack)
    other = select.epoll()
    other.register(parent.fileno(), IN)
    # Each set has a local listener of CPU 0, and they take turns.
    for _ in range(2):
        fill(stack, parent, 0, 1)
        got = 0
        while got < 2:
            assert ready(ep) or ready(other)
            got += take_all(stack, parent)
        assert got == 2
    other.close()
    fill(stack, parent, 0, 1)
    assert ready(ep) and take_all(stack, parent) == 2


@case
def set_closed(stack):
    """When the epoll set is closed, the connections that it would have reported are still accepted."""
    parent, ep = worker(stack)
    fill(stack, parent, 0, 0, 1)
    ep.close()
    assert is_local(parent, 0)
    got = [take(parent) for _ in range(3)]
    assert None not in got
    for conn in got:
        conn.close()


@case
def polled(stack):
    """poll() beside an epoll set reports local connections too."""
    parent, _ = worker(stack)
    poller = select.poll()
    poller.register(parent.fileno(), select.POLLIN)
    assert poller.poll(0) == []
    for cpus in ((0,), (1,), (0, 1)):
        fill(stack, parent, *cpus)
        assert poller.poll(1000) == [(parent.fileno(), select.POLLIN)]
        assert take_all(stack, parent) == len(cpus)
    assert poller.poll(20) == []


@case
def polled_unseen(stack):
    """poll() of a listener whose local one has been closed past libc waits, and reports what comes."""
    parent, _ = worker(stack)

    def child():
        signal.alarm(20)
        with select.epoll() as own, contextlib.ExitStack() as more:
            own.register(parent.fileno(), IN)
            assert is_local(parent, 2)
            libc.syscall(436, 1024, 0x7fffffff, 0)      # close_range()
            poller = select.poll()
            poller.register(parent.fileno(), select.POLLIN)
            before = time.process_time()
            assert poller.poll(500) == [] and time.process_time() - before < 0.3
            os.sched_setaffinity(0, {1})
            fill(more, parent, 1)
            return bool(poller.poll(1000)) and take_all(more, parent) == 1
    assert ended(in_child(child))


@case
def selected(stack):
    """select() beside an epoll set misses nothing: what waits locally moves to the listener."""
    parent, _ = worker(stack)
    fill(stack, parent, 0, 0)
    for _ in range(2):
        got = 0
        while got < 2:
            assert select.select([parent], [], [], 1)[0] == [parent]
            got += take_all(stack, parent)
        fill(stack, parent, 0, 1)


@case
def poll_and_select_alone(stack):
    """A program that only polls, selects or blocks is served from its own listener."""
    stack.enter_context(on_cpu(0))
    parent = listener(stack)
    assert select.select([parent], [], [], 0)[0] == []
    fill(stack, parent, 0)
    assert select.select([parent], [], [], 1)[0] == [parent]
    assert take_all(stack, parent) == 1
    fill(stack, parent, 0, 1)
    poller = select.poll()
    poller.register(parent.fileno(), select.POLLIN)
    assert poller.poll(1000) and take_all(stack, parent) == 2
    parent.setblocking(True)
    fill(stack, parent, 0)
    parent.accept()[0].close()


@case
def blocking(stack):
    """A blocking accept() returns for either kind of connection, heeds SO_RCVTIMEO and gives EINTR to a handler."""
    parent, _ = worker(stack)
    parent.setblocking(True)
    for cpu in (0, 1):
        late = threading.Timer(0.2, fill, (stack, parent, cpu))
        late.start()
        stack.enter_context(parent.accept()[0])
        late.join()
    parent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200000))
    start = time.monotonic()
    assert accept_errno(parent) == errno.EAGAIN
    assert 0.15 < time.monotonic() - start < 2
    parent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
    libc.siginterrupt(signal.SIGALRM, 1)
    old = signal.signal(signal.SIGALRM, lambda *_: None)
    libc.siginterrupt(signal.SIGALRM, 1)
    stack.callback(signal.signal, signal.SIGALRM, old)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    assert accept_errno(parent) == errno.EINTR


@case
def starving(stack):
    """Connections of the program's own queue are accepted within 8 calls while a local queue stays full."""
    parent, _ = worker(stack)
    fill(stack, parent, *[0] * 40)
    waiting = fill(stack, parent, 1)[0].getsockname()
    for call in range(8):
        conn, peer = parent.accept()
        conn.close()
        if peer == waiting:
            return
    assert False, "not among the first 8"


@case
def closed(stack):
    """close() of the listener closes its local one: the port is free, clients are refused."""
    parent, _ = worker(stack)
    name = parent.getsockname()
    parent.close()
    assert is_refused(stack, name, 0)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(name)


@case
def closed_unseen(stack):
    """A listener that is closed past libc, as libuv does it, whether taken out of its set before or not: its port is free at once, and a new one there is served."""
    stack.enter_context(on_cpu(0))
    parent = listener(stack)
    ep = stack.enter_context(select.epoll())
    name = parent.getsockname()
    for taken_out in (True, False):
        ep.register(parent.fileno(), IN)
        assert is_local(parent) and not ready(ep, 0)
        if taken_out:
            ep.unregister(parent.fileno())
        libc.syscall(3, parent.detach())    # close()
        parent = stack.enter_context(socket.socket())
        parent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ctypes.set_errno(77)
        assert not libc.bind(parent.fileno(), sockaddr(*name), 16), ctypes.get_errno()
        assert ctypes.get_errno() == 77
        parent.listen()
        parent.setblocking(False)
    ep.register(parent.fileno(), IN)
    fill(stack, parent, 0, 1)
    assert ready(ep) and take_all(stack, parent) == 2


@case
def stray_close(stack):
    """Closing every number that is not open harms nothing and gives EBADF, as without the library."""
    parent, ep = worker(stack)
    used = {parent.fileno(), ep.fileno()}
    mine = [int(n) for n in os.listdir("/proc/self/fd")]
    for fd in mine:
        if fd > 256 and fd not in used:
            try:
                os.close(fd)
                assert False, fd
            except OSError as err:
                assert err.errno == errno.EBADF
    fill(stack, parent, 0, 1)
    assert ready(ep) and take_all(stack, parent) == 2
    assert is_local(parent)


@case
def low_numbers(stack):
    """Descriptors that the program opens get the numbers they get without the library."""
    stack.enter_context(on_cpu(0))
    low = os.dup(0)
    os.close(low)
    parent, ep = worker(stack)
    assert is_local(parent)
    assert (parent.fileno(), ep.fileno()) == (low, low + 1)
    after = os.dup(0)
    os.close(after)
    assert after == low + 2


@case
def ranges(stack):
    """close_range() over our numbers leaves the listener served; over the listener it closes all."""
    parent, ep = worker(stack)
    fill(stack, parent, 0)
    assert libc.close_range(ctypes.c_uint(1 << 31), ctypes.c_uint(0xffffffff), 0) == 0
    assert is_local(parent)
    assert libc.close_range(512, 0x7fffffff, 0) == 0
    assert is_local(parent, 0)
    fill(stack, parent, 0, 1)
    got = 0
    while got < 3:
        assert ready(ep)
        got += take_all(stack, parent)
    pid = os.fork()
    if not pid:
        os.closerange(3, 65536)
        try:
            os.close(parent.fileno())
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    fill(stack, parent, 0)
    assert ready(ep) and take_all(stack, parent) == 1


@case
def duplicates(stack):
    """dup, dup2, dup3 and fcntl: every duplicate accepts both kinds, and the last one closed ends it."""
    parent, ep = worker(stack)
    fd = parent.fileno()
    spare = os.dup(0)
    copies = [os.dup(fd), os.dup2(fd, spare), os.dup2(fd, os.dup(0), False),
              fcntl.fcntl(fd, fcntl.F_DUPFD, 100), fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)]
    port = port_of(parent)
    for copy in copies:
        fill(stack, parent, 0, 1)
        assert ready(ep)
        for _ in range(2):
            conn = libc.accept4(copy, None, None, 0)
            assert conn >= 0
            os.close(conn)
        assert libc.accept4(copy, None, None, 0) < 0 and ctypes.get_errno() == errno.EAGAIN
    for copy in copies[:-1]:
        os.close(copy)
    name = parent.getsockname()
    parent.close()
    # Its set still has it under the old number, as without the library.
    last = socket.socket(fileno=copies[-1])
    with last:
        clients = [connect(stack, *name, cpu=c) for c in (0, 1)]
        got = [take(last), take(last)]
        assert None not in got and clients
        for conn in got:
            conn.close()
    assert is_refused(stack, name, 0)
    assert not listeners_of(port)


@case
def taken_number(stack):
    """dup2() onto a number that the library uses gets it, and nothing is lost."""
    parent, ep = worker(stack)
    fill(stack, parent, 0)
    ours = max(int(n) for n in os.listdir("/proc/self/fd"))
    os.dup2(0, ours)
    stack.callback(os.close, ours)
    assert os.fstat(ours).st_ino == os.fstat(0).st_ino
    fill(stack, parent, 0)
    got = 0
    while got < 2:
        assert ready(ep)
        got += take_all(stack, parent)


@case
def shutdown(stack):
    """shutdown() of the listener refuses clients; listen() again serves them, core-locally."""
    parent, ep = worker(stack)
    name = parent.getsockname()
    parent.shutdown(socket.SHUT_RDWR)
    assert is_refused(stack, name, 0) and is_refused(stack, name, 1)
    assert accept_errno(parent) == errno.EINVAL
    parent.listen(16)
    ready(ep, 0.05)
    fill(stack, parent, 0, 1, 0)
    assert ready(ep) and take_all(stack, parent) == 3


def in_child(func):
    """Run @func in a fork; its return value is the exit status's truth."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = 0 if func() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def ended(pid):
    return os.waitpid(pid, 0)[1] == 0


@case
def forked(stack):
    """fork() without exec: the child accepts, becomes a worker of its own, and takes nothing along when it ends."""
    parent, ep = worker(stack)
    fill(stack, parent, 1)

    def child():
        ok = take(parent) is not None
        with select.epoll() as own, contextlib.ExitStack() as more:
            os.sched_setaffinity(0, {1})
            own.register(parent.fileno(), IN)
            ok = ok and is_local(parent, 2)
            fill(more, parent, 1, 1)
            while take_all(more, parent) < 2 and ok:
                ok = bool(ready(own))
        return ok
    assert ended(in_child(child))
    wait_for(lambda: is_local(parent))
    fill(stack, parent, 0, 1)
    assert ready(ep) and take_all(stack, parent) == 2


@case
def inherited_set(stack):
    """A child of fork() changes how a listener is in a set that its parent has made."""
    parent, ep = worker(stack)

    def child():
        ep.modify(parent.fileno(), IN | ET)
        ep.modify(parent.fileno(), IN)
        return True
    assert ended(in_child(child)) and is_local(parent)
    fill(stack, parent, 0, 1)
    assert ready(ep) and take_all(stack, parent) == 2


@case
def duplicate_set(stack):
    """A set that the program knows by a second number, too, is one set."""
    parent, ep = worker(stack)
    second = stack.enter_context(select.epoll.fromfd(os.dup(ep.fileno())))
    second.modify(parent.fileno(), IN | ET)
    assert is_local(parent)
    fill(stack, parent, 0, 1)
    assert ready(ep) and take_all(stack, parent) == 2
    second.unregister(parent.fileno())
    fill(stack, parent, 0, 1)
    assert not ready(ep, 0.1)
    second.register(parent.fileno(), IN)
    assert ready(ep) and take_all(stack, parent) == 2
    # It lives on by its second number.
    ep.modify(parent.fileno(), IN)
    ep.close()
    second.modify(parent.fileno(), IN | ET)
    fill(stack, parent, 0, 1)
    assert ready(second) and take_all(stack, parent) == 2


@case
def confined(stack):
    """A worker that loses sight of the device after listen() has its local listener all the same."""
    stack.enter_context(on_cpu(0))
    parent = listener(stack)
    told, tell = os.pipe()

    def child():
        os.chroot(tempfile.gettempdir())
        with select.epoll() as ep:
            ep.register(parent.fileno(), IN)
            os.write(tell, b"x")
            return bool(ready(ep, 30)) and take(parent) is not None
    pid = in_child(child)
    os.read(told, 1)
    found = is_local(parent)
    fill(stack, parent, 0)
    assert ended(pid) and found


# A worker by itself: it is served one connection from its own CPU and one from
# another, and connects. The argument is what to do first.
SERVED = r"""
import os, select, socket, sys
os.sched_setaffinity(0, {0})
exec(sys.argv[1])
parent = socket.socket()
parent.bind(("127.0.0.1", 0))
parent.listen()
parent.setblocking(False)
ep = select.epoll()
ep.register(parent.fileno(), select.EPOLLIN)
rows = [line.split() for line in open("/proc/self/net/fastsocket/listeners")][1:]
local = [r for r in rows if r[3] == str(parent.getsockname()[1])]
for cpu in (0, 1):
    os.sched_setaffinity(0, {cpu})
    client = socket.create_connection(parent.getsockname(), 10)
    os.sched_setaffinity(0, {0})
    ep.poll(10)
    conn = parent.accept()[0]
    client.send(b"x")
    assert conn.recv(1) == b"x"
    client.close()
links = [os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd")
         if os.path.exists("/proc/self/fd/" + n)]
maps = open("/proc/self/maps").read()
# The library's own: none but these, and not for programs that it starts.
high = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd >= 1024]
assert len(high) == len(local) + links.count("/proc/fastsocket")
assert not any(os.get_inheritable(fd) for fd in high)
print(len(local), links.count("/proc/fastsocket"), links.count("/dev/fastsocket"),
      int("libfsocket" in maps), os.geteuid(), flush=True)
"""


def served(program="/usr/bin/python3", first="", **env):
    """Run SERVED as nobody; returns its local listeners, its descriptors of
    /proc/fastsocket and of the device, whether it has the library, its user; and stderr."""
    done = subprocess.run([*NOBODY, "env", *("%s=%s" % item for item in env.items()), program,
                           "-IBSc", SERVED, first], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done
    return (*map(int, done.stdout.split()), done.stderr)


PRELOADED = {"LD_PRELOAD": os.environ["FASTSOCKET_LIB"]}


@case
def private_device(stack):
    """Where the device is root's only, or not there, /proc/fastsocket does all, also for a listener that is inherited; where neither can be opened, one line says so."""
    assert served(**PRELOADED) == (1, 1, 0, 1, 65534, "")
    stack.callback(os.chmod, "/dev/fastsocket", 0o666)
    os.chmod("/dev/fastsocket", 0o600)
    assert served(**PRELOADED) == (1, 1, 0, 1, 65534, "")
    with without_device():
        assert served(**PRELOADED) == (1, 1, 0, 1, 65534, "")
    # Inherited: it has not called listen(), nor connect().
    parent = listener(stack)
    code = """
import os, select
os.sched_setaffinity(0, {0})
ep = select.epoll()
ep.register(%d, select.EPOLLIN)
print(open("/proc/self/net/fastsocket/listeners").read())
""" % parent.fileno()
    said = subprocess.run([*NOBODY, "env", "LD_PRELOAD=" + PRELOADED["LD_PRELOAD"],
                           "/usr/bin/python3", "-c", code], pass_fds=[parent.fileno()],
                          text=True, capture_output=True, check=True)
    assert " %d " % port_of(parent) in said.stdout and said.stderr == "", said
    stack.callback(os.chmod, "/proc/fastsocket", 0o444)
    os.chmod("/proc/fastsocket", 0o400)
    local, proc, dev, has, _, text = served(**PRELOADED)
    assert (local, proc, dev, has) == (0, 0, 0, 1)
    assert text.count("\n") == 1 and "not permitted" in text, text


@case
def set_uid(stack):
    """In a set-uid program the library is there only by /etc/ld.so.preload, and obeys no variable."""
    everywhere = "/etc/ld.so.preload"
    mine, lib = "/tmp/set-uid-python", "/tmp/libfsocket.so"
    for source, copy in (("/usr/bin/python3", mine), (PRELOADED["LD_PRELOAD"], lib)):
        shutil.copy(source, copy)
        stack.callback(os.unlink, copy)
    os.chmod(mine, 0o4755)

    # A path of LD_PRELOAD is the user's choice: none here.
    assert served(mine, LD_PRELOAD=lib, FASTSOCKET_LOG="debug") == (0, 0, 0, 0, 0, "")
    assert not os.path.exists(everywhere)
    stack.callback(os.unlink, everywhere)
    with open(everywhere, "w") as f:
        f.write(lib + "\n")
    loud = {"FASTSOCKET_LOG": "debug", "FASTSOCKET_BUSY_POLL": "x"}
    for variables in (loud, {"FASTSOCKET": "off"}):
        # Without privilege, all of them are obeyed.
        local, _, _, has, user, text = served(**variables)
        assert (has, user) == (1, 65534)
        if variables == loud:
            assert local == 1 and "has local listener" in text and "is not 1 to" in text, text
        else:
            assert local == 0 and text == "", text
        assert served(mine, **variables) == (1, 1, 0, 1, 0, "")


def traced(*envs):
    """For each of @envs the files that SERVED opens, from its start on, and the
    descriptors that it writes to."""
    with contextlib.ExitStack() as inner:
        # struct filename begins with the name, in the kernel's memory.
        for name, what in (("fst_open", "do_filp_open name=+0(+0($arg2)):string"),
                           ("fst_write", "ksys_write fd=$arg1:u32")):
            tracing("kprobe_events", "p:%s %s\n" % (name, what))
            inner.callback(tracing, "kprobe_events", "-:" + name)
            tracing("events/kprobes/%s/enable" % name, "1")
            inner.callback(tracing, "events/kprobes/%s/enable" % name, "0")
        with open(TRACING + "trace", "w"):      # empties it
            pass
        for n, env in enumerate(envs):
            served(first="open('/proc/self/comm', 'w').write('fst-%d')" % n, **env)
        with open(TRACING + "trace") as f:
            text = f.readlines()
    for n in range(len(envs)):
        mine = [line for line in text if line.lstrip().startswith("fst-%d-" % n)]
        # setpriv has been in the process, too, and looks at it by its number.
        yield ({re.sub(r"^/proc/\d+/", "/proc/self/", line.split('name="')[1].rsplit('"', 1)[0])
                for line in mine if "fst_open:" in line},
               {int(line.split("fd=")[1]) for line in mine if "fst_write:" in line})


@case
def opens(stack):
    """A worker that serves and connects opens the module's two files more than without the library, with busy polling a sysctl, and writes to standard error only."""
    if not os.path.exists(TRACING + "kprobe_events"):
        raise Skip("no kprobes")
    (plain_files, plain_writes), (files, writes), (polling, _) = traced(
        {}, {**PRELOADED, "FASTSOCKET_LOG": "debug"}, {**PRELOADED, "FASTSOCKET_BUSY_POLL": "20"})
    assert "/proc/self/net/fastsocket/listeners" in plain_files and 1 in plain_writes
    ours = {PRELOADED["LD_PRELOAD"], "/dev/fastsocket", "/proc/fastsocket"}
    assert files - plain_files == ours, files - plain_files
    assert writes - plain_writes == {2}, writes
    polling -= plain_files | {"/proc/sys/net/core/busy_poll"}   # before 6.9
    assert polling == ours, polling


@case
def cancelled(stack):
    """A thread that is to be cancelled is not, while it makes a set, also with busy polling, and adds a listener to it."""
    alone(stderr=None)
    alone("20")


def alone(poll="", **args):
    """A program that has a worker."""
    env = dict(os.environ, LD_PRELOAD=os.environ["FASTSOCKET_LIB"], FASTSOCKET_LOG="debug",
               FASTSOCKET_BUSY_POLL=poll)
    subprocess.run(["taskset", "-c", "0", os.environ["FASTSOCKET_CANCEL"]], check=True,
                   env=env, **args)


@case
def broken_stderr(stack):
    """What the library has to say ends no program whose standard error is gone, and goes into no other file."""
    out, broken = os.pipe()
    os.close(out)
    alone(stderr=broken)
    os.close(broken)
    # The program's first socket is descriptor 2.
    alone(preexec_fn=lambda: os.close(2))
    with tempfile.TemporaryFile() as full:
        full.write(b"x")
        full.flush()
        alone(stderr=full, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1)))
        assert os.fstat(full.fileno()).st_size == 1


@case
def in_background(stack):
    """Nor does it stop a program in the background, whose terminal stops those that write."""
    pid, terminal = pty.fork()
    if not pid:
        code = 1
        try:
            mode = termios.tcgetattr(2)
            mode[3] |= termios.TOSTOP
            termios.tcsetattr(2, termios.TCSANOW, mode)
            subprocess.run(["true"], timeout=20, check=True, preexec_fn=os.setpgrp, env=dict(
                os.environ, LD_PRELOAD=os.environ["FASTSOCKET_LIB"], FASTSOCKET_BUSY_POLL="x"))
            code = 0
        finally:
            os._exit(code)
    stack.callback(os.close, terminal)
    said = b""
    with contextlib.suppress(OSError):      # EIO: all have closed it
        while part := os.read(terminal, 4096):
            said += part
    assert ended(pid) and b"is not 1 to" in said, said


@case
def killed(stack):
    """A worker that is killed leaves what waited in its local listener to the others."""
    parent, ep = worker(stack)

    def child():
        os.sched_setaffinity(0, {1})
        own = select.epoll()
        own.register(parent.fileno(), IN)
        time.sleep(60)
        return own
    pid = in_child(child)
    wait_for(lambda: is_local(parent, 2))
    d = Delta()
    fill(stack, parent, 1, 1, 1)
    assert d.syn_local == 3
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    got = 0
    while got < 3:
        assert ready(ep), got
        got += take_all(stack, parent)


@case
def vforked(stack):
    """vfork() and exec of another program that closes all descriptors disturbs nothing."""
    parent, ep = worker(stack)
    inode = listeners_of(port_of(parent))[0]["inode"]
    for _ in range(5):
        subprocess.run(["true"], check=True, close_fds=True, stdin=parent.fileno())
        fill(stack, parent, 0, 1)
        assert ready(ep) and take_all(stack, parent) == 2
    assert listeners_of(port_of(parent))[0]["inode"] == inode
    port = port_of(parent)
    parent.close()      # the child's duplicate counts for nothing here
    wait_for(lambda: not listeners_of(port))


@case
def daemon(stack):
    """A program that listens and then becomes a daemon is served."""
    stack.enter_context(on_cpu(0))
    parent = listener(stack)

    def child():
        os.setsid()

        def grandchild():
            with select.epoll() as own, contextlib.ExitStack() as more:
                own.register(parent.fileno(), IN)
                n = 0
                while n < 2:
                    if not ready(own, 10):
                        return False
                    n += take_all(more, parent)
                return is_local(parent)
        return ended(in_child(grandchild))
    pid = in_child(child)
    wait_for(lambda: is_local(parent))
    fill(stack, parent, 0, 1)
    assert ended(pid)


SERVER = r"""
import select, socket, struct, sys, array
mode = sys.argv[1]
if mode == "exec":
    s = socket.socket(fileno=int(sys.argv[2]))
else:
    u = socket.socket(socket.AF_UNIX, fileno=int(sys.argv[2]))
    _, cmsgs, _, _ = u.recvmsg(1, socket.CMSG_SPACE(4))
    s = socket.socket(fileno=array.array("i", cmsgs[0][2][:4])[0])
s.setblocking(False)
ep = select.epoll()
ep.register(s.fileno(), select.EPOLLIN)
n = 0
while n < 3:
    ep.poll()
    try:
        while True:
            c, _ = s.accept()
            c.sendall(b"served")
            c.close()
            n += 1
    except BlockingIOError:
        pass
"""


def serve_in(stack, mode, parent, pass_fd):
    env = dict(os.environ, LD_PRELOAD=os.environ["FASTSOCKET_LIB"])
    server = subprocess.Popen(["/usr/bin/python3", "-c", SERVER, mode, str(pass_fd)],
                              env=env, pass_fds=[pass_fd])
    stack.callback(lambda: (server.kill(), server.wait()))
    wait_for(lambda: is_local(parent), 20)
    own = int(listeners_of(port_of(parent))[0]["cpu"])
    d = Delta()
    clients = fill(stack, parent, own, own, (own + 1) % 4)
    for client in clients:
        assert client.recv(10) == b"served"
    assert server.wait(10) == 0
    assert d.accept_local == 2 and d.accept_slow == 1, stats()


@case
def executed(stack):
    """A listener inherited over exec (socket activation) is served core-locally."""
    parent = listener(stack)
    serve_in(stack, "exec", parent, parent.fileno())


@case
def passed(stack):
    """A listener received as a message (SCM_RIGHTS) is served core-locally."""
    parent = listener(stack)
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                           array.array("i", [parent.fileno()]))])
    serve_in(stack, "pass", parent, theirs.fileno())


@case
def threads(stack):
    """Threads with an epoll set each: every one has its CPU, and closing what it accepts needs no care."""
    parent = listener(stack)
    stop, served = threading.Event(), []

    def serve():
        ep = select.epoll()
        ep.register(parent.fileno(), IN)
        while not stop.is_set():
            ep.poll(0.1)
            try:
                while True:
                    conn, _ = parent.accept()
                    served.append(os.sched_getaffinity(0))
                    conn.close()
            except BlockingIOError:
                pass
        ep.close()
    workers = [threading.Thread(target=serve) for _ in range(4)]
    for thread in workers:
        thread.start()
    try:
        wait_for(lambda: is_local(parent, 4))
        d = Delta()
        fill(stack, parent, *list(range(4)) * 10)
        wait_for(lambda: len(served) == 40)
        assert d.accept_local == 40, (d.accept_local, d.accept_remote, d.accept_slow)
    finally:
        stop.set()
        for thread in workers:
            thread.join()
    assert {tuple(s) for s in served} == {(n,) for n in range(4)}
    assert is_local(parent, 0)


@case
def handed_over(stack):
    """One thread waits and another accepts: nothing stays behind, whoever put the listener into the set."""
    parent, ep = worker(stack)
    got = []

    def accept():
        os.sched_setaffinity(0, {2})
        got.append(take_all(stack, parent))
    for cpus in ((0,), (1,), (0, 1, 0)):
        fill(stack, parent, *cpus)
        assert ready(ep)
        thread = threading.Thread(target=accept)
        thread.start()
        thread.join()
        assert got.pop() == len(cpus) and silent(ep)
    # A thread that waits for a set of its own, and is sent to accept for ours.
    own = stack.enter_context(select.epoll())
    wake, waker = socket.socketpair()
    stack.enter_context(wake)
    stack.enter_context(waker)

    def wait_and_accept():
        os.sched_setaffinity(0, {2})
        own.register(parent.fileno(), IN)
        own.register(wake.fileno(), IN)
        while parent.fileno() not in dict(own.poll(5)):
            wake.recv(1)
            got.append(take_all(stack, parent))
        got.append(take_all(stack, parent))
    thread = threading.Thread(target=wait_and_accept)
    thread.start()
    wait_for(lambda: is_local(parent, 2))
    fill(stack, parent, 0, 0)
    taken = 0
    while taken < 2:
        assert ready(ep)
        waker.send(b"x")
        wait_for(lambda: got)
        taken += got.pop()
    fill(stack, parent, 2)
    thread.join()
    assert got == [1]


@case
def handed_over_at_edge(stack):
    """The same where the set is edge-triggered: who accepts for it until EAGAIN leaves nothing."""
    parent, ep = worker(stack, IN | ET)
    wake, waker = socket.socketpair()
    stack.enter_context(wake)
    stack.enter_context(waker)
    got = []

    def wait_and_accept():
        os.sched_setaffinity(0, {2})
        with select.epoll() as own:
            own.register(parent.fileno(), IN | ET)
            own.register(wake.fileno(), IN)
            own.poll(10)
            got.append(take_all(stack, parent))
    thread = threading.Thread(target=wait_and_accept)
    thread.start()
    stack.callback(thread.join)
    wait_for(lambda: is_local(parent, 2))
    fill(stack, parent, 0, 0, 0)
    assert ready(ep)
    waker.send(b"x")
    thread.join()
    assert got == [3]


@case
def ended_thread(stack):
    """A thread that has ended has no local listener, though its set is open."""
    parent = listener(stack)
    sets = []

    def thread_of():
        os.sched_setaffinity(0, {0})
        sets.append(stack.enter_context(select.epoll()))
        sets[0].register(parent.fileno(), IN)
        sets.append(is_local(parent))
    thread = threading.Thread(target=thread_of)
    thread.start()
    thread.join()
    assert sets[1]
    wait_for(lambda: is_local(parent, 0))
    fill(stack, parent, 0)
    assert ready(sets[0]) and take_all(stack, parent) == 1


@case
def set_of_ended_thread(stack):
    """A set that one thread has filled, and has ended, and for which another waits: that one is served core-locally."""
    parent = listener(stack)
    ep = stack.enter_context(select.epoll())
    got = []

    def fills():
        os.sched_setaffinity(0, {1})
        ep.register(parent.fileno(), IN)

    def waits():
        os.sched_setaffinity(0, {0})
        while len(got) < 3:
            if ready(ep, 10):
                got.extend([None] * take_all(stack, parent))
    filling, waiting = threading.Thread(target=fills), threading.Thread(target=waits)
    filling.start()
    filling.join()
    wait_for(lambda: is_local(parent, 0))
    waiting.start()
    stack.callback(waiting.join)
    fill(stack, parent, 0)
    wait_for(lambda: got)
    try:
        wait_for(lambda: is_local(parent))
        assert listeners_of(port_of(parent))[-1]["cpu"] == "0"
        d = Delta()
        fill(stack, parent, 0)
        wait_for(lambda: len(got) == 2)
        assert d.accept_local == 1
    finally:
        fill(stack, parent, *[0] * (3 - len(got)))
    waiting.join()
    wait_for(lambda: is_local(parent, 0))


@case
def high_set(stack):
    """A set whose number is beyond what the library looks at has no local listener."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (70000, max(70000, before[1])))
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
    stack.enter_context(on_cpu(0))
    parent = listener(stack)
    with select.epoll() as low:
        ep = stack.enter_context(select.epoll.fromfd(fcntl.fcntl(low, fcntl.F_DUPFD, 66000)))
    ep.register(parent.fileno(), IN)
    assert is_local(parent, 0)
    fill(stack, parent, 0)
    assert ready(ep) and take_all(stack, parent) == 1


@case
def bound_children(stack):
    """The CPU that the library chose for a worker is not passed on to its children and threads, nor to programs that it starts."""
    def child():
        before = os.sched_getaffinity(0)
        ep = select.epoll()
        ep.register(parent.fileno(), IN)
        bound = os.sched_getaffinity(0)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
        seen.append(before if ended(in_child(lambda: os.sched_getaffinity(0) == before)) else None)
        count = ["/bin/sh", "-c", "exit $(nproc)"]
        started = [subprocess.run(count, check=False).returncode,   # by vfork() and execve()
                   os.waitstatus_to_exitcode(os.system("exit $(nproc)"))]
        for spawn in os.posix_spawn, os.posix_spawnp:
            pid = spawn(count[0], count, os.environ)
            started.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return len(bound) == 1 and seen == [before, before] and len(before) > 1 and \
            started == [len(before)] * 4 and os.sched_getaffinity(0) == bound
    parent = listener(stack)
    assert ended(in_child(child))


@case
def looks(stack):
    """getsockname, SO_ACCEPTCONN, SO_REUSEPORT, SO_REUSEADDR and FIONBIO are those of a plain program."""
    parent, _ = worker(stack)
    conn_flags = []
    for block in (False, True):
        parent.setblocking(block)
        assert os.get_blocking(parent.fileno()) == block
        fill(stack, parent, 0)
        for flags in (0, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC):
            fill(stack, parent, 0)
            fd = libc.accept4(parent.fileno(), None, None, flags)
            conn_flags.append((os.get_blocking(fd), os.get_inheritable(fd)))
            os.close(fd)
    assert conn_flags == [(True, True), (False, False)] * 2, conn_flags
    assert parent.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    assert parent.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
    assert parent.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    with socket.socket() as other:
        try:
            other.bind(parent.getsockname())
            assert False, "bound twice"
        except OSError as err:
            assert err.errno == errno.EADDRINUSE


@case
def later_options(stack):
    """Options and the backlog that the program changes later reach its local listener."""
    parent, _ = worker(stack)
    parent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 123456)
    parent.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    parent.listen(77)
    assert listeners_of(port_of(parent))[0]["backlog"] == "77"
    fill(stack, parent, 0)
    with parent.accept()[0] as conn:
        assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 246912
        assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@case
def signals(stack):
    """Handlers that close and accept at any moment deadlock nothing."""
    parent, ep = worker(stack)

    def handler(*_):
        with contextlib.suppress(OSError):
            parent.accept()[0].close()
        os.close(os.dup(parent.fileno()))
        # Not one inside the other, where a handler takes long.
        signal.setitimer(signal.ITIMER_REAL, 0 if done else 0.001)
    done = False
    old = signal.signal(signal.SIGALRM, handler)
    stack.callback(signal.signal, signal.SIGALRM, old)
    stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    for _ in range(300):
        ep.modify(parent.fileno(), IN | ET)
        os.close(os.dup(parent.fileno()))
        ep.modify(parent.fileno(), IN)
    done = True
    signal.setitimer(signal.ITIMER_REAL, 0)
    fill(stack, parent, 0)
    assert ready(ep)


def handlers(what):
    subprocess.run([os.environ["FASTSOCKET_HANDLERS"], what], timeout=60 * SLOW, check=True,
                   env=dict(os.environ, **PRELOADED))


@case
def handlers_listen(stack):
    """Handlers that make listeners may interrupt malloc()."""
    handlers("listen")


@case
def handlers_fork(stack):
    """Handlers that dup() and close() listeners may interrupt malloc(), for which another thread's fork() waits."""
    handlers("fork")


@case
def unloaded(stack):
    """rmmod under an open local listener: what waited is accepted, new connections come the stock way; after modprobe they come core-locally again."""
    parent, ep = worker(stack)
    fill(stack, parent, 0, 1, 0)
    run("rmmod", "fastsocket")
    stack.callback(load)
    fill(stack, parent, 0)
    got = 0
    while got < 4:
        assert ready(ep)
        got += take_all(stack, parent)
    assert silent(ep)
    load()
    fill(stack, parent, 0)
    assert ready(ep) and take_all(stack, parent) == 1
    ep.unregister(parent.fileno())
    ep.register(parent.fileno(), IN)
    d = Delta()
    fill(stack, parent, 0)
    assert ready(ep) and take_all(stack, parent) == 1
    assert d.accept_local == 1


def comes_back(stack, private):
    parent, ep = worker(stack)

    def served():
        # Not by this process: its connect() would find the module.
        run("taskset", "-c", "0", "bash", "-c", ": </dev/tcp/%s/%d" % (ADDR, port_of(parent)))
        assert ready(ep) and take_all(stack, parent) == 1
    run("rmmod", "fastsocket")
    stack.callback(load)
    served()
    load()
    with without_device() if private else contextlib.nullcontext():
        for _ in range(3):
            time.sleep(1.1)
            served()
        d = Delta()
        served()
        assert d.accept_local == 1


@case
def returned(stack):
    """After rmmod and modprobe a listener that stays in its set has a local one again within seconds of the next connections."""
    comes_back(stack, False)


@case
def returned_private(stack):
    """So it has where the library finds /proc/fastsocket only."""
    comes_back(stack, True)


@case
def errnos(stack):
    """Every intercepted call with every wrong argument gives the errno that it gives without the library."""
    answers = []
    for lib in ("", os.environ["FASTSOCKET_LIB"]):
        out = subprocess.run(["taskset", "-c", "0", os.environ["FASTSOCKET_ERRNOS"]],
                             env=dict(os.environ, LD_PRELOAD=lib), text=True,
                             capture_output=True, check=False)
        assert not out.returncode and not out.stderr, out
        answers.append(out.stdout.splitlines())
    assert len(answers[0]) > 100
    for plain, ours in zip(*answers):
        assert plain == ours, (plain, ours)


@case
def busy_poll(stack):
    """FASTSOCKET_BUSY_POLL: each epoll set polls for so long; a kernel whose sets cannot is named once, unless all poll by sysctl; what is no number of microseconds is named, too."""
    program = """if True:
        import fcntl, select, struct
        for flags in 0, select.EPOLL_CLOEXEC, 0:
            ep = select.epoll(-1, flags)
            try:
                print(*struct.unpack("IHBB", fcntl.ioctl(ep, 0x80088A02, bytes(8))))
            except OSError as err:
                print(err.errno)
    """

    def outcome(value):
        out = subprocess.run(["/usr/bin/python3", "-c", program], text=True, check=True,
                             capture_output=True, env=dict(
                                 os.environ, FASTSOCKET_BUSY_POLL=value,
                                 LD_PRELOAD=os.environ["FASTSOCKET_LIB"]))
        return out.stdout.split("\n")[:3], out.stderr

    plain = outcome("")
    assert plain[1] == "", plain
    for value in "x", "-1", "1000001", "5s":
        shown, said = outcome(value)
        assert shown == plain[0] and "FASTSOCKET_BUSY_POLL=%s is not 1 to" % value in said, said
    shown, said = outcome("70")
    if plain[0][0] != "0 0 0 0":    # before Linux 6.9
        assert shown == plain[0] and said.count("net.core.busy_poll") == 1, said
        sysctl_for(stack, "net.core.busy_poll", 1)
        assert outcome("70") == plain
    else:
        assert shown == ["70 0 0 0"] * 3 and not said, (shown, said)


load()
main()
