#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What one thread does while the library is in the middle of another's call: a
number is free as soon as the kernel has closed it, and fork() comes at any time."""

import os
import select
import signal
import sys
import threading

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from shimmed import shim  # noqa: E402
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

IN, OUT = select.EPOLLIN, select.EPOLLOUT


def meanwhile(stack, what, value, func, *args):
    """@func in a thread, which is returned when it pauses there."""
    thread = threading.Thread(target=func, args=args)
    before = getattr(shim, what)
    setattr(shim, what, value)
    thread.start()
    wait_for(lambda: shim.paused)
    setattr(shim, what, before)
    stack.callback(thread.join)
    return thread


def worker(stack):
    """A listener of this thread's, and its set, where it has a local one."""
    stack.enter_context(on_cpu(0))
    parent = listener(stack)
    ep = stack.enter_context(select.epoll())
    before = numbers()
    ep.register(parent.fileno(), IN)
    local, = numbers() - before
    return parent, ep, local


def numbers():
    with os.scandir("/proc/self/fd") as entries:
        return {int(entry.name) for entry in entries if int(entry.name) > 1000}


@case
def closed_listener(stack):
    """The number of a listener that is being closed, as another socket in the same set: that is as its own program has it."""
    parent, ep, _ = worker(stack)
    number = parent.fileno()
    closing = meanwhile(stack, "pause_close", number, libc.close, parent.detach())
    sock = stack.enter_context(socket.socket())
    assert sock.fileno() == number
    ep.register(number, OUT)
    ep.modify(number, IN)
    closing.join()
    ep.modify(number, IN | OUT)
    ep.unregister(number)


@case
def closed_set(stack):
    """The number of a set that is being closed, as another set: a listener in that is one of it."""
    stack.enter_context(on_cpu(0))
    parent = listener(stack)
    number = libc.epoll_create1(0)
    assert not libc.epoll_ctl(number, 1, parent.fileno(), struct.pack("=IQ", IN, 0))
    closing = meanwhile(stack, "pause_close", number, libc.close, number)
    ep = stack.enter_context(select.epoll())
    assert ep.fileno() == number
    ep.register(parent.fileno(), IN)
    closing.join()
    ep.modify(parent.fileno(), IN)
    assert len(listeners_of(port_of(parent))) == 1


@case
def closed_local(stack):
    """The number of a local listener that is being closed is whoever's who gets it."""
    parent, ep, local = worker(stack)
    sock = stack.enter_context(socket.socket())
    with select.epoll() as other:
        meanwhile(stack, "pause_close", local, ep.modify, parent.fileno(), 0)
        number = fcntl.fcntl(sock, fcntl.F_DUPFD, local)
        assert number == local
        other.register(number, IN)
        os.close(number)


@case
def replaced(stack):
    """A number that dup2() makes another listener's: a set that has it in the meantime has that one."""
    stack.enter_context(on_cpu(0))
    first, second = listener(stack), listener(stack)
    ep = stack.enter_context(select.epoll())
    number = first.fileno()
    replacing = meanwhile(stack, "pause_dup", number, libc.dup2, second.fileno(), number)
    ep.register(number, IN)
    replacing.join()
    ep.modify(number, IN | OUT)
    ep.modify(number, IN)
    assert len(listeners_of(port_of(second))) == 1
    ep.unregister(number)


@case
def replaced_set(stack):
    """A number that dup2() makes another set's: a listener in that is one of it."""
    stack.enter_context(on_cpu(0))
    parent = listener(stack)
    first, second = [stack.enter_context(select.epoll()) for _ in range(2)]
    first.register(parent.fileno(), IN)
    number = first.fileno()
    replacing = meanwhile(stack, "pause_dup", number, libc.dup2, second.fileno(), number)
    first.register(parent.fileno(), IN)
    replacing.join()
    first.modify(parent.fileno(), IN | OUT)
    assert len(listeners_of(port_of(parent))) == 1


def asks_by():
    """The number by which the library asks for ports."""
    number, = [n for n in numbers() if os.readlink("/proc/self/fd/%d" % n) == "/proc/fastsocket"]
    return number


@case
def asking(stack):
    """The number by which another thread asks for a port, as a file of the program's."""
    parent = listener(stack)
    connect(stack, "127.0.0.1", port_of(parent), cpu=0)
    number = asks_by()
    before = os.fstat(0)
    asks = meanwhile(stack, "pause_ask", 1, connect, stack, "127.0.0.1", port_of(parent), 0)
    os.dup2(0, number)
    asks.join()
    assert os.fstat(number) == before
    os.close(number)


@case
def forked(stack):
    """The child of a fork() while another thread asks the module has no descriptor of it."""
    parent, _, _ = worker(stack)
    one = ctypes.c_int(1)
    meanwhile(stack, "pause_open", 1, libc.setsockopt, parent.fileno(), socket.SOL_SOCKET,
              socket.SO_KEEPALIVE, ctypes.byref(one), 4)
    pid = os.fork()
    if not pid:
        links = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd")
                 if os.path.islink(entry.path) and os.path.exists(entry.path)]
        os._exit("/dev/fastsocket" in links)
    assert os.waitpid(pid, 0)[1] == 0


@case
def forked_bare(stack):
    """The child of a _Fork() in such a moment makes every call as without the library."""
    parent, ep, _ = worker(stack)
    addr = sockaddr("127.0.0.1", port_of(parent))
    asked = asks_by()
    poller = select.poll()
    poller.register(parent.fileno(), IN)
    one = ctypes.c_int(1)
    meanwhile(stack, "pause_open", 1, libc.setsockopt, parent.fileno(), socket.SOL_SOCKET,
              socket.SO_KEEPALIVE, ctypes.byref(one), 4)
    pid = ctypes.PyDLL(None)._Fork()
    if not pid:
        libc.setsockopt(parent.fileno(), socket.SOL_SOCKET, socket.SO_KEEPALIVE,
                        ctypes.byref(one), 4)
        libc.listen(parent.fileno(), 16)
        fine = accept_errno(parent) == errno.EAGAIN
        poller.poll(0)
        select.select([parent], [], [], 0)
        ep.poll(0)
        client = socket.socket()
        libc.syscall(3, asked)      # close(): the library would look for it again
        fine = fine and not libc.connect(client.fileno(), addr, len(addr))
        select.epoll().register(parent.fileno(), IN)
        libc.shutdown(client.fileno(), 2)
        os.close(os.dup(parent.fileno()))
        os._exit(not fine)
    # Not by alarm(): a thread that waits for the lock has its signals blocked.
    late = threading.Timer(20, os.kill, (pid, signal.SIGKILL))
    late.start()
    stack.callback(late.cancel)
    assert os.waitpid(pid, 0)[1] == 0


@case
def forbidden(stack):
    """A set that the program knows by a second number, too, where seccomp forbids to compare them."""
    parent, ep, _ = worker(stack)
    second = stack.enter_context(select.epoll.fromfd(os.dup(ep.fileno())))
    shim.no_kcmp = 1
    stack.callback(setattr, shim, "no_kcmp", 0)
    second.modify(parent.fileno(), IN | select.EPOLLET)
    second.unregister(parent.fileno())
    connect(stack, "127.0.0.1", port_of(parent), cpu=0)
    assert not ep.poll(0.3) and take(parent)


load()
main()
