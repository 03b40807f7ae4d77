#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Every allocation of the module fails in its turn: what follows is the slow
path or a clean errno. Needs a kernel that injects faults (make check-debug)."""

import errno
import os
import sys
import threading
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

DEBUG = "/sys/kernel/debug/"
NTH = "/proc/thread-self/fail-nth"
# What a refused allocation may look like to the caller.
CLEAN = {0, errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE}


def setting(what, name, value):
    with open(DEBUG + what + "/" + name, "w") as f:
        f.write(str(value))


def prepare():
    if not os.path.exists(NTH):
        raise Skip("this kernel cannot inject faults")
    for what in ("failslab", "fail_page_alloc"):
        # A report of each is a stack trace, which the suite would take for trouble.
        setting(what, "verbose", 0)
        setting(what, "ignore-gfp-wait", "N")
    setting("fail_page_alloc", "min-order", 0)


def fail(nth, call):
    """The errno of @call when its @nth allocation fails, and how many were left to go."""
    fd = os.open(NTH, os.O_RDWR | os.O_CLOEXEC)
    try:
        ctypes.set_errno(0)
        os.write(fd, b"%d" % nth)
        failed = call() < 0
        left = int(os.pread(fd, 16, 0))
        err = ctypes.get_errno() if failed else 0
        os.pwrite(fd, b"0", 0)
    finally:
        os.close(fd)
    return err, left


def allocations(call):
    """How many @call makes."""
    return 100000 - fail(100000, call)[1]


def each_failure(call, check):
    """Have the allocations of @call fail one by one, and @check(errno) each time."""
    errors = {}
    for nth in range(1, 5001):
        err, left = fail(nth, call)
        assert err in CLEAN, (nth, os.strerror(err))
        errors[err] = errors.get(err, 0) + 1
        check(err)
        if left:
            break
    print("# %d allocations, then %s" % (nth - 1, {
        errno.errorcode.get(err, "success"): n for err, n in errors.items()}), flush=True)
    assert nth > 1 and errors.get(0)


def call_ioctl(fd, cmd, data):
    """An ioctl by libc, with nothing of Python's between it and the kernel."""
    buffer = ctypes.create_string_buffer(data, len(data))
    return lambda: libc.ioctl(fd, ctypes.c_ulong(cmd), buffer), buffer


def device(stack):
    fd = os.open("/dev/fastsocket", os.O_RDWR | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


@case
def spawns(stack):
    """A spawn that lacks memory fails, and the listener serves as before; the next one succeeds."""
    prepare()
    for v6 in (False, True):
        addr = "::1" if v6 else "127.0.0.1"
        with contextlib.ExitStack() as inner:
            unshare_net(inner)
            parent = listener(inner, addr)
            call, out = call_ioctl(device(inner), IOC_SPAWN,
                                   struct.pack("iiiI", parent.fileno(), 0, -1, 0))

            def check(err):
                # The one of the call before may still drain.
                rows = [row for row in listeners_of(port_of(parent))
                        if row["state"] != "draining"]
                assert len(rows) == (not err), (err, rows)
                with contextlib.ExitStack() as now:
                    sock = connect(now, addr, port_of(parent), 0)
                    if err:
                        talk(sock, now.enter_context(take(parent)))
                    else:
                        _, _, fd, _ = struct.unpack("iiiI", out.raw)
                        local = now.enter_context(socket.socket(fileno=fd))
                        talk(sock, now.enter_context(take(local)))
            each_failure(call, check)


@case
def first_spawn(stack):
    """Nor does the first of a namespace leave anything half done, when its hooks are registered."""
    prepare()
    with contextlib.ExitStack() as inner:
        unshare_net(inner)
        parent = listener(inner)
        call, _ = call_ioctl(device(inner), IOC_SPAWN,
                             struct.pack("iiiI", parent.fileno(), 0, -1, 0))
        count = allocations(call)
    for nth in range(1, count + 2):
        with contextlib.ExitStack() as inner:
            unshare_net(inner)
            parent = listener(inner)
            call, _ = call_ioctl(device(inner), IOC_SPAWN,
                                 struct.pack("iiiI", parent.fileno(), 0, -1, 0))
            err, _ = fail(nth, call)
            assert err in CLEAN, (nth, err)
            local = spawn(inner, parent, 1)
            sock = connect(inner, "127.0.0.1", port_of(parent), 1)
            talk(sock, inner.enter_context(local.take()))


@case
def syncs(stack):
    """Options that cannot be repeated for lack of memory are said to be so, and nobody is refused."""
    prepare()
    unshare_net(stack)
    parent = listener(stack)
    locals_ = [spawn(stack, parent, cpu) for cpu in range(2)]
    parent.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    parent.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
    call, _ = call_ioctl(device(stack), IOC_SYNC, struct.pack("iI", parent.fileno(), 0))
    errs = set()
    # It may have nothing to allocate, as here.
    for nth in range(1, 20):
        errs.add(fail(nth, call)[0])
        with contextlib.ExitStack() as now:
            sock = connect(now, "127.0.0.1", port_of(parent), 0)
            assert take(locals_[0], 0.1) or take(parent)
            sock.close()
    assert errs <= CLEAN, errs


@case
def steers(stack):
    """A device whose tables there is no memory for is steered as before."""
    prepare()
    unshare_net(stack)
    nic_add(stack)
    run("ip", "link", "set", "nic0", "up")
    index = socket.if_nametoindex("nic0")
    fd = device(stack)
    cpus = (ctypes.c_int32 * 4)(0, 1, 2, 3)
    steer(index, STEER_PORT, (0, 1))
    before = table("nics")
    for mode in (STEER_PORT, STEER_RSS):
        call, _ = call_ioctl(fd, IOC_STEER, struct.pack(
            "IIIIQ", index, mode, 4, 0, ctypes.addressof(cpus)))

        def check(err):
            nonlocal before
            # Large memory may come from elsewhere, and the call succeed all the same.
            assert not err or table("nics") == before
            before = table("nics")
        each_failure(call, check)
        assert [row["mode"] for row in before] == [{STEER_PORT: "port", STEER_RSS: "rss"}[mode]]


@case
def connects(stack):
    """A port that cannot be chosen for lack of memory is the kernel's to choose: connect() succeeds."""
    prepare()
    unshare_net(stack)
    parent = listener(stack)
    steer(socket.if_nametoindex("lo"), STEER_PORT, range(4))
    fd = device(stack)
    stack.enter_context(on_cpu(1))
    name = ctypes.create_string_buffer(sockaddr("127.0.0.1", port_of(parent)))
    for nth in range(1, 1000):
        with socket.socket() as sock:
            call, _ = call_ioctl(fd, IOC_PORT, struct.pack(
                "iIQII", sock.fileno(), 0, ctypes.addressof(name), len(name) - 1, 0))
            err, left = fail(nth, call)
            assert err in CLEAN, (nth, err)
            sock.connect(("127.0.0.1", port_of(parent)))
            assert err or port_of(sock) % 4 == 1
            with take(parent) as conn:
                talk(sock, conn)
        if left:
            break
    print("# %d allocations" % (nth - 1))
    assert nth > 1 and left and not err


@case
def sysctls(stack):
    """A sysctl is set, or write() fails and it is not."""
    prepare()
    for name in sorted(os.listdir("/proc/sys/net/fastsocket")):
        path = "/proc/sys/net/fastsocket/" + name
        with contextlib.ExitStack() as inner:
            unshare_net(inner)
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            inner.callback(os.close, fd)
            for value in (b"0", b"1"):
                def check(err):
                    assert err or os.pread(fd, 8, 0).strip() == value
                each_failure(lambda: libc.pwrite(fd, value, 1, ctypes.c_long(0)), check)


@case
def namespaces(stack):
    """A namespace that lacks memory for the module's share is not made, and no other is touched."""
    prepare()
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, here)
    stack.callback(libc.setns, here, CLONE_NEWNET)

    def unshare():
        return libc.unshare(CLONE_NEWNET)
    total = allocations(unshare)
    libc.setns(here, CLONE_NEWNET)
    # The module's operations are the last that were registered.
    failures = 0
    for nth in range(max(1, total - 60), total + 1):
        err, _ = fail(nth, unshare)
        assert err in CLEAN, (nth, err)
        failures += err != 0
        libc.setns(here, CLONE_NEWNET)
    print("# %d allocations, %d of the last 60 failed" % (total, failures))
    assert failures
    unshare_net(stack)
    parent = listener(stack)
    spawn(stack, parent, 0)


@case
def insmods(stack):
    """A module that lacks memory when it is loaded is not loaded, and leaves nothing behind."""
    prepare()
    run("rmmod", "fastsocket")
    stack.callback(load)
    fd = os.open(module_path(), os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)

    def insmod():
        return libc.syscall(313, fd, b"", 0)    # finit_module
    total = allocations(insmod)
    run("rmmod", "fastsocket")
    failures = 0
    # The first are the loader's own, and a thousand; the last are the module's.
    for nth in sorted({*range(1, total, 20), *range(max(1, total - 200), total + 1)}):
        err, left = fail(nth, insmod)
        assert err in CLEAN, (nth, os.strerror(err))
        failures += err != 0
        assert loaded() == (not err) == os.path.exists("/proc/fastsocket") == \
            os.path.exists("/proc/sys/net/fastsocket"), (nth, err)
        if not err:
            run("rmmod", "fastsocket")
        if left:
            break
    print("# %d allocations, %d failures" % (total, failures))
    assert failures > 10


@case
def packets(stack):
    """One in ten allocations in the packet path fails: every connection that is made is accepted, and served."""
    prepare()
    unshare_net(stack)
    parent = listener(stack, backlog=512)
    locals_ = [spawn(stack, parent, cpu) for cpu in range(4)]
    steer(socket.if_nametoindex("lo"), STEER_PORT, range(4))
    stop = threading.Event()
    served = [0]

    def serve():
        while not stop.is_set():
            for sock in (parent, *locals_):
                conn = take(sock, 0)
                if conn:
                    with conn:
                        conn.settimeout(60)
                        conn.sendall(conn.recv(4))
                        served[0] += 1
            time.sleep(0.001)
    server = threading.Thread(target=serve)
    server.start()
    for name in ("failslab", "fail_page_alloc"):
        # Of those that cannot wait.
        setting(name, "ignore-gfp-wait", "Y")
        setting(name, "times", -1)
        setting(name, "interval", 1)
        setting(name, "probability", 10)
    try:
        end = time.monotonic() + 20
        made = 0
        while time.monotonic() < end:
            with contextlib.ExitStack() as now:
                sock = now.enter_context(socket.socket())
                sock.settimeout(60)
                with on_cpu(made % 4):
                    try:
                        core_port(sock, "127.0.0.1", port_of(parent))
                    except OSError as err:
                        assert err.errno in CLEAN, err
                    try:
                        sock.connect(("127.0.0.1", port_of(parent)))
                    except OSError as err:
                        assert err.errno in CLEAN, err  # before anything has been sent
                        continue
                    sock.sendall(b"ping")
                    assert sock.recv(4) == b"ping"
                made += 1
    finally:
        for name in ("failslab", "fail_page_alloc"):
            setting(name, "probability", 0)
        stop.set()
        server.join()
    print("# %d connections" % made)
    assert served[0] == made and made > 20


load()
main()
