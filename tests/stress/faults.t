#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Every allocation of the module fails in its turn: what follows is the slow
path or a clean errno. Needs a kernel that injects faults (make check-debug)."""

import atexit
import errno
import itertools
import os
import stat
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


def tell(what):
    """The kernel's log, for tests/vm/splats."""
    with open("/dev/kmsg", "w") as f:
        f.write("<5>stress/faults: " + what)


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


def keys(sock, md5, fastopen):
    """What a local listener needs memory for: a key for clients from @md5, and one of Fast Open."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key(md5, b"secret"))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_KEY, fastopen)


def connected(port):
    """The connections of @port in this namespace, as ss shows them with their timers."""
    return run("ss", "-Htano", "state", "connected", "exclude", "time-wait",
               "sport = :%d or dport = :%d" % (port, port)).splitlines()


def ends(line):
    """The addresses of one of them."""
    return tuple(line.split()[3:5])


def full(port):
    """Those that have a socket, and nothing smaller before and after."""
    return [line for line in connected(port) if line.split()[0] not in ("SYN-RECV", "FIN-WAIT-2")]


def orphan(line):
    """A closed socket whose FIN found no memory (tcp_send_fin()): nothing is left to send, and
    no timer is set. It never ends, also without the module."""
    state, _, unsent = line.split()[:3]
    return state in ("FIN-WAIT-1", "LAST-ACK") and unsent == "0" and "timer:" not in line


@case
def spawns(stack):
    """A spawn that lacks memory fails, and the listener serves as before; the next one succeeds."""
    prepare()
    for addr, keyed in (("127.0.0.1", False), ("::1", False), ("127.0.0.1", True)):
        with contextlib.ExitStack() as inner:
            unshare_net(inner)
            parent = listener(inner, addr)
            if keyed:
                keys(parent, "127.0.0.2", bytes(range(16)))
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
                        assert not keyed or bytes(range(16)) == local.getsockopt(
                            socket.IPPROTO_TCP, TCP_FASTOPEN_KEY, 16)
                        talk(sock, now.enter_context(take(local)))
            each_failure(call, check)


@case
def first_spawn(stack):
    """Nor does the first of all leave anything half done, when operations are copied and a namespace's hooks registered."""
    prepare()

    def fresh(inner):
        run("rmmod", "fastsocket")
        load()
        unshare_net(inner)
    with contextlib.ExitStack() as inner:
        fresh(inner)
        parent = listener(inner)
        call, _ = call_ioctl(device(inner), IOC_SPAWN,
                             struct.pack("iiiI", parent.fileno(), 0, -1, 0))
        count = allocations(call)
    for nth in range(1, count + 2):
        with contextlib.ExitStack() as inner:
            fresh(inner)
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
    """A local listener that cannot have its parent's new options for lack of memory takes no SYN: the parent serves until it can."""
    prepare()
    unshare_net(stack)
    sysctl("net.ipv4.tcp_fastopen", 3)
    parent = listener(stack)
    port = port_of(parent)
    locals_ = [spawn(stack, parent, cpu) for cpu in range(2)]
    call, _ = call_ioctl(device(stack), IOC_SYNC, struct.pack("iI", parent.fileno(), 0))
    turn = 0
    states = set()

    def change():
        """Other keys: their memory is new, and that of the former is not needed."""
        nonlocal turn
        if turn:
            parent.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key("127.0.1.%d" % turn, b""))
        turn += 1
        keys(parent, "127.0.1.%d" % turn, b"%16d" % turn)
        parent.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60000 + turn)

    def client(now, host, cpu, key):
        def setup(sock):
            sock.bind((host, 0))
            if key:
                sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key("127.0.0.1", b"secret"))
        return connect(now, "127.0.0.1", port, cpu, setup=setup)

    def check(err):
        rows = {int(row["cpu"]): row["state"] for row in listeners_of(port)}
        assert set(rows.values()) <= ({"live", "off"} if err else {"live"}), (err, rows)
        assert not err or "off" in rows.values(), rows
        for cpu, local in enumerate(locals_):
            live = rows[cpu] == "live"
            states.add(live)
            if live:
                assert local.getsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_KEY, 16) == b"%16d" % turn
            # Who takes the SYN of one with the new key has it, of one with the former has not.
            for host, key in (("127.0.1.%d" % turn, True), ("127.0.1.%d" % (turn - 1), False)):
                with contextlib.ExitStack() as now:
                    sock = client(now, host, cpu, key)
                    server = now.enter_context(take(local if live else parent))
                    assert server.getsockopt(socket.IPPROTO_TCP,
                                             socket.TCP_USER_TIMEOUT) == 60000 + turn
                    talk(sock, server)
        change()
    change()
    each_failure(call, check)
    assert states == {True, False}


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
    for addr, flags in itertools.product(("127.0.0.1", "::1"), (0, PORT_REPLACE)):
        with contextlib.ExitStack() as inner:
            unshare_net(inner)
            parent = listener(inner, addr)
            steer(socket.if_nametoindex("lo"), STEER_PORT, range(4))
            fd = device(inner)
            inner.enter_context(on_cpu(1))
            name = ctypes.create_string_buffer(sockaddr(addr, port_of(parent)))
            counts = set()
            # The first call registers the namespace's hooks.
            for _ in ("first", "later"):
                for nth in range(1, 1000):
                    wait_for(lambda: filed() == 0, 20)
                    with socket.socket(parent.family) as sock:
                        if flags:
                            sock.bind((addr, 0))
                        call, _ = call_ioctl(fd, IOC_PORT, struct.pack(
                            "iIQII", sock.fileno(), flags, ctypes.addressof(name), len(name) - 1,
                            0))
                        err, left = fail(nth, call)
                        assert err in CLEAN, (nth, err)
                        counts.add((err, filed()))
                        sock.connect((addr, port_of(parent)))
                        assert err or port_of(sock) % 4 == 1
                        with take(parent) as conn:
                            talk(sock, conn)
                    if left:
                        break
                print("# %d allocations; errno, entries: %s" % (nth - 1, sorted(counts)))
                assert nth > 1 and left and not err
            # A port without an entry, too: the stock lookup has it.
            assert {(0, 0), (0, 1)} <= counts <= {(0, 0), (0, 1), (errno.ENOMEM, 0)}, counts


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
def files(stack):
    """A file that there is no memory to open or read says so, and is whole the next time."""
    prepare()
    unshare_net(stack)
    parent = listener(stack)
    for cpu in range(4):
        spawn(stack, parent, cpu)
    steer(socket.if_nametoindex("lo"), STEER_PORT, range(4))
    here = "/proc/self/net/fastsocket/"
    for path in (*(here + name for name in sorted(os.listdir(here))),
                 "/proc/1/net/fastsocket/established"):
        with open(path, "rb") as f:
            head, *rows = f.read().splitlines()
        assert rows
        name, buffer = path.encode(), ctypes.create_string_buffer(1 << 16)
        file = size = None

        def whole(data):
            lines = data.splitlines()
            assert data.endswith(b"\n") and lines[0] == head and len(lines) == len(rows) + 1, data

        def open_it():
            nonlocal file
            file = libc.open(name, os.O_RDONLY | os.O_CLOEXEC)
            return file

        def opened(err):
            if not err:
                whole(os.read(file, 1 << 16))
                os.close(file)

        def read_it():
            nonlocal size
            size = libc.read(file, buffer, ctypes.c_size_t(1 << 16))
            return size

        def read(err):
            nonlocal file
            if err:
                whole(os.read(file, 1 << 16))
            else:
                whole(buffer.raw[:size])
            os.close(file)
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        each_failure(open_it, opened)
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        each_failure(read_it, read)
        os.close(file)


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


@contextlib.contextmanager
def failing(percent, *what):
    """So many of those allocations fail, of all tasks and interrupts."""
    try:
        for name in what:
            setting(name, "times", -1)
            setting(name, "interval", 1)
            setting(name, "probability", percent)
        yield
    finally:
        for name in what:
            setting(name, "probability", 0)


@case
def entries(stack):
    """A connection that there is no memory to file is served all the same, by the stock lookup."""
    prepare()
    cache = "/sys/kernel/slab/fs_conn/failslab"
    if not os.stat(cache).st_mode & stat.S_IWUSR:
        raise Skip("this kernel cannot be told which cache to fail")

    def only_entries(on):
        with open(cache, "w") as f:
            f.write("%d" % on)
        setting("failslab", "cache-filter", "NY"[on])
    stack.callback(only_entries, False)
    only_entries(True)
    unshare_net(stack)
    wait_for(lambda: filed() == 0, 20)
    parent = listener(stack)
    locals_ = [spawn(stack, parent, cpu) for cpu in range(4)]
    steer(socket.if_nametoindex("lo"), STEER_PORT, range(4))
    for percent in (100, 50):
        with contextlib.ExitStack() as now:
            pairs = []
            with failing(percent, "failslab"):
                for n in range(40):
                    client = core_connect(now, "127.0.0.1", port_of(parent), n % 4)
                    pairs.append((client, now.enter_context(locals_[n % 4].take())))
            count = filed()
            d = Delta()
            for n, pair in enumerate(pairs):
                with on_cpu(n % 4):
                    talk(*pair)
            print("# %d of 80 filed; of their packets, %d found" % (
                count, d.passive_local + d.active_local))
            assert (0 < count < 80) == (percent == 50) == (d.passive_local > 0) == \
                (d.active_local > 0), (count, stats())
        wait_for(lambda: filed() == 0, 20)


@case
def packets(stack):
    """One in ten allocations in the packet path fails: every connection that is made is accepted, and served."""
    prepare()
    unshare_net(stack)
    sysctl("net.ipv4.tcp_fin_timeout", 5)
    parent = listener(stack, backlog=512)
    port = port_of(parent)
    locals_ = [spawn(stack, parent, cpu) for cpu in range(4)]
    steer(socket.if_nametoindex("lo"), STEER_PORT, range(4))
    stop = threading.Event()
    served, made, wrong, kept = [], [], [], []

    def serve(cpu):
        while not stop.is_set():
            # The parent's, too: what it accepts itself has no entry.
            conn = take(locals_[cpu], 0)
            if not conn:
                time.sleep(0.001)
                continue
            conn.settimeout(60)
            word = conn.recv(4)
            conn.sendall(word)
            served.append(word)
            if word == b"keep":
                kept.append(conn)
            else:
                conn.close()

    def request(cpu, word):
        sock = socket.socket()
        sock.settimeout(60)
        try:
            core_port(sock, "127.0.0.1", port)
        except OSError as err:
            assert err.errno in CLEAN, err
        try:
            sock.connect(("127.0.0.1", port))
        except OSError as err:
            assert err.errno in CLEAN, err  # before anything has been sent
            sock.close()
            return
        sock.sendall(word)
        assert sock.recv(4) == word
        made.append(word)
        if word == b"keep":
            kept.append(sock)
        else:
            sock.close()

    def clients(cpu):
        try:
            with on_cpu(cpu):
                while time.monotonic() < end:
                    request(cpu, b"ping")
                    # So that the share of those which have an entry shows at the end.
                    if len(kept) < 500:
                        request(cpu, b"keep")
        except (OSError, AssertionError) as err:
            wrong.append(err)
    for name in ("failslab", "fail_page_alloc"):
        # Of those that cannot wait.
        setting(name, "ignore-gfp-wait", "Y")
    with failing(10, "failslab", "fail_page_alloc"):
        end = time.monotonic() + 20
        work = [threading.Thread(target=clients, args=(cpu,)) for cpu in range(4)]
        servers = [threading.Thread(target=serve, args=(cpu,)) for cpu in range(4)]
        for thread in work + servers:
            thread.start()
        for thread in work:
            thread.join()
    stop.set()
    for thread in servers:
        thread.join()
    print("# %d connections, %d of them open" % (len(made), made.count(b"keep")))
    assert not wrong, wrong
    assert sorted(served) == sorted(made) and len(made) > 20
    # Each has an entry at either end, but for those that found no memory.
    wait_for(lambda: filed() < len(full(port)), 20)
    print("# %d of %d ends filed" % (filed(), len(full(port))))
    assert filed()
    closed = {ends(line) for line in connected(port) if line.split()[0] != "ESTAB"}
    for sock in kept:
        sock.close()

    def ended():
        """But for orphans, of before, which stay filed."""
        lines = connected(port)
        return all(orphan(line) and ends(line) in closed for line in lines) and \
            filed() <= len(lines)
    try:
        wait_for(ended, 60)
    finally:
        print("".join("# left: %s\n" % line for line in connected(port)), end="")


load()
tell("memory is withheld")
atexit.register(tell, "memory is given again")
main()
