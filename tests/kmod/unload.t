#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""rmmod at any time: it succeeds, and no connection is lost by it."""

import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C


@case
def rmmod_idle(stack):
    """rmmod with local listeners open: their descriptors go silent, the application's listener serves."""
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    run("rmmod", "fastsocket")
    stack.callback(load)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    poll = select.poll()
    poll.register(local, select.POLLIN)
    assert poll.poll(100) == []
    assert accept_errno(local) == errno.EAGAIN
    assert take(parent)


def rmmod_meanwhile(stack, late, admit):
    """rmmod, while the handshakes of half_open() end 2.5 s from now."""
    timer = threading.Timer(2.5, admit)
    timer.start()
    for client in late:
        client.sendall(b"x")
    run("rmmod", "fastsocket")
    stack.callback(load)
    timer.join()


@case
def rmmod_queued(stack):
    """What waits in local queues at rmmod is served by the application's listener, half-open connections too."""
    unshare_net(stack)
    parent = listener(stack)
    port = port_of(parent)
    local = spawn(stack, parent, 0)
    clients = [connect(stack, "127.0.0.1", port, 0) for _ in range(5)]
    late, admit = half_open(stack, parent, 0, 3)
    rmmod_meanwhile(stack, late, admit)
    for _ in clients + late:
        assert take(parent, 3)
    assert accept_errno(local) == errno.EAGAIN


@case
def rmmod_draining(stack):
    """rmmod while closed listeners still drain: it waits for their half-open connections."""
    unshare_net(stack)
    parent = listener(stack)
    port = port_of(parent)
    local = spawn(stack, parent, 0)
    late, admit = half_open(stack, parent, 0, 3)
    local.close()
    rmmod_meanwhile(stack, late, admit)
    for _ in late:
        assert take(parent, 3)
    parent.close()
    listener(stack, "127.0.0.1", port)


@case
def rmmod_deferred(stack):
    """At rmmod, clients that have sent nothing yet under TCP_DEFER_ACCEPT go to the application's listener, too."""
    parent = listener(stack, setup=deferring(30))
    locals_ = [spawn(stack, parent, 0) for _ in range(2)]
    clients = [connect(stack, "127.0.0.1", port_of(parent), 0) for _ in range(4)]
    locals_[0].close()
    run("rmmod", "fastsocket")
    stack.callback(load)
    all_heard(parent, clients)


@case
def rmmod_regrouped(stack):
    """A local listener that somebody has put into a SO_REUSEPORT group of its own leaves no trace there, for requests to migrate to."""
    unshare_net(stack)
    sysctl("net.ipv4.tcp_migrate_req", 1)
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    local.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # return 0
    local.setsockopt(socket.SOL_SOCKET, 51,     # SO_ATTACH_REUSEPORT_CBPF
                     struct.pack("HxxxxxxQ", 1, ctypes.addressof(program)))
    clients, admit = half_open(stack, parent, 0, 3)
    local.close()
    run("rmmod", "fastsocket")
    stack.callback(load)
    admit()
    for client in clients:
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.sendall(b"x")
    time.sleep(4)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert take(parent)


@case
def rmmod_accepting(stack):
    """rmmod while other tasks are anywhere in accept() on local listeners."""
    parent = listener(stack)
    for _ in range(4):
        with contextlib.ExitStack() as inner:
            fd = spawn(inner, parent, 0).fileno()
            for _ in range(8):
                pid = os.fork()
                if not pid:
                    while True:
                        libc.accept4(fd, None, None, 0)
                inner.callback(os.waitpid, pid, 0)
                inner.callback(os.kill, pid, signal.SIGKILL)
            time.sleep(0.3)
            run("rmmod", "fastsocket")
            time.sleep(0.1)
        load()


def hold(stack, held, parent, count):
    """Local listeners of @parent each of which a call of its user holds."""
    for n in range(count):
        held.call(libc.setsockopt, spawn(stack, parent, n % 4).fileno(), socket.SOL_SOCKET,
                  socket.SO_LINGER, ctypes.c_void_p(held.address - 4), 8)
    time.sleep(0.2 * SLOW)


@case
def rmmod_connecting(stack):
    """rmmod while a local listener tries to connect: it does so as what the stock connect() makes of it."""
    parent, peer = listener(stack, "::", family=socket.AF_INET6), listener(stack)
    held = Held(stack)
    hold(stack, held, parent, 5)
    local = spawn(stack, parent, 0)
    local.shutdown(socket.SHUT_RDWR)
    peer_addr = "::ffff:127.0.0.1", port_of(peer)
    unloading = threading.Thread(target=run, args=("rmmod", "fastsocket"))
    unloading.start()
    deadline = time.monotonic() + 30 * SLOW
    while local.connect_ex(peer_addr) == errno.EOPNOTSUPP and time.monotonic() < deadline:
        pass
    conn = take(peer, 5)
    unloading.join()
    held.release()
    stack.callback(load)
    local.sendall(b"x")
    assert conn.recv(1) == b"x"


@case
def rmmod_emptied(stack):
    """rmmod when tables that were full have just been emptied."""
    parent = listener(stack, backlog=4096)
    local = spawn(stack, parent, 0)
    ends = []
    for _ in range(int(3000 / SLOW)):
        ends.append(connect(stack, "127.0.0.1", port_of(parent), 0))
        ends.append(local.take())
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
    time.sleep(0.1)
    run("rmmod", "fastsocket")
    load()


@case
def rmmod_closing(stack):
    """rmmod while other tasks close local listeners."""
    parents = [listener(stack) for _ in range(4)]
    for _ in range(2):
        locals_ = [[spawn(stack, parent, n % 4) for n in range(100)] for parent in parents]

        def close(those):
            for local in those:
                local.close()
                time.sleep(0.003 * SLOW)

        threads = [threading.Thread(target=close, args=(those,)) for those in locals_]
        for thread in threads:
            thread.start()
        run("rmmod", "fastsocket")
        for thread in threads:
            thread.join()
        load()
    for parent in parents:
        connect(stack, "127.0.0.1", port_of(parent), 0)
        assert take(parent)


@case
def rmmod_held(stack):
    """rmmod while a user makes calls on his local listeners last for ever."""
    hostile, parent = listener(stack), listener(stack)
    mine = spawn(stack, parent, 0)
    held = Held(stack)
    hold(stack, held, hostile, 100)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    unload = threading.Thread(target=run, args=("rmmod", "fastsocket"))
    unload.start()
    time.sleep(1)
    mine.close()
    assert take(parent, 1)
    unload.join(15 * SLOW)
    gone = not unload.is_alive()
    held.release()
    unload.join()
    load()
    assert gone, "rmmod waited for the user"


@case
def rmmod_open(stack):
    """rmmod while somebody has the device open: it is in use, and nothing has changed. An open /proc/fastsocket is no use."""
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    fd = os.open("/proc/fastsocket", os.O_RDONLY)
    stack.callback(os.close, fd)
    with open("/dev/fastsocket", "rb"):
        assert "in use" in run("rmmod", "fastsocket", check=False)
        connect(stack, "127.0.0.1", port_of(parent), 0)
        assert local.take()
    run("rmmod", "fastsocket")
    stack.callback(load)
    refused(errno.ENOTTY, fcntl.ioctl, fd, IOC_INFO, bytes(8))


@case
def rmmod_reading(stack):
    """rmmod while a user reads a file or a sysctl into a page that he serves: it waits for him, and so does who makes a namespace; connections do not."""
    parent = listener(stack)
    for name in ("/proc/net/fastsocket/stats", "/proc/sys/net/fastsocket/listen_spawn"):
        with contextlib.ExitStack() as inner:
            inner.callback(load)
            held = Held(inner)
            fd = os.open(name, os.O_RDONLY)
            inner.callback(os.close, fd)
            held.call(libc.read, fd, ctypes.c_void_p(held.address), 64)
            time.sleep(0.3 * SLOW)
            unload = subprocess.Popen(["rmmod", "fastsocket"])
            inner.callback(unload.wait)
            inner.callback(held.release)

            def waits():
                with open("/proc/%d/stack" % unload.pid) as f:
                    return "unregister_pernet_subsys" in f.read()

            wait_for(waits, 20)
            maker = os.fork() or os._exit(libc.unshare(CLONE_NEWNET))
            connect(stack, "127.0.0.1", port_of(parent), 0)
            assert take(parent)
            time.sleep(0.3 * SLOW)
            assert waits() and os.waitpid(maker, os.WNOHANG)[0] == 0
            held.release()
            assert unload.wait() == 0 and os.waitpid(maker, 0)[1] == 0


@case
def reload_under_load(stack):
    """rmmod and modprobe twenty times under load: every connection is accepted and answered."""
    parent = listener(stack, backlog=512)
    port = port_of(parent)
    stop, done = threading.Event(), threading.Event()
    served, errors = [0], []

    def server():
        locals_ = {}
        with contextlib.ExitStack() as inner:
            while not done.is_set():
                for cpu in range(4):
                    if cpu not in locals_ and loaded():
                        try:
                            locals_[cpu] = spawn(inner, parent, cpu)
                        except OSError:
                            pass
                ready = select.select([parent, *locals_.values()], [], [], 0.01)[0]
                for sock in ready:
                    conn = take(sock, 0)
                    if conn:
                        conn.settimeout(5)
                        conn.sendall(conn.recv(4))
                        conn.close()
                        served[0] += 1
                for cpu, sock in list(locals_.items()):
                    if accept_errno_quiet(sock) == errno.EAGAIN:
                        locals_.pop(cpu).close()

    def accept_errno_quiet(sock):
        """EAGAIN says unloaded; a connection that comes is answered."""
        fd = libc.accept4(sock.fileno(), None, None, 0)
        if fd < 0:
            return ctypes.get_errno()
        with socket.socket(fileno=fd) as conn:
            conn.settimeout(5)
            conn.sendall(conn.recv(4))
        served[0] += 1
        return 0

    def client(cpu):
        os.sched_setaffinity(0, {cpu})
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as sock:
                    sock.sendall(b"ping")
                    if sock.recv(4) != b"ping":
                        raise OSError("short answer")
            except OSError as err:
                errors.append(err)

    serving = threading.Thread(target=server)
    threads = [threading.Thread(target=client, args=(c,)) for c in range(4)]
    for thread in [serving, *threads]:
        thread.start()
    try:
        for _ in range(20):
            time.sleep(0.2)
            unload()
            time.sleep(0.05)
            load()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        done.set()
        serving.join()
    print("# %d connections" % served[0])
    assert not errors, errors[:3]
    assert served[0] > 100


load()
main()
