#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""/dev/fastsocket and /proc/fastsocket: who may call, every wrong argument gets a
precise errno and changes nothing, and what answers and files show."""

import errno
import mmap
import os
import re
import resource
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C


def spawn_arg(fd, cpu=0, flags=0, extra=b""):
    return struct.pack("iiiI", fd, cpu, -1, flags) + extra


def sized(cmd, size):
    """@cmd as a library with another idea of the structure would call it."""
    return cmd & ~(0x3FFF << 16) | size << 16


def fails(want, func, *args):
    files = os.listdir("/proc/self/fd")
    made = stats()["spawned"]
    try:
        func(*args)
    except OSError as err:
        assert err.errno == want, "%s, not %s" % (
            errno.errorcode[err.errno], errno.errorcode[want])
    else:
        raise AssertionError("no error, wanted " + errno.errorcode[want])
    assert os.listdir("/proc/self/fd") == files
    assert stats()["spawned"] == made


@case
def version(stack):
    """INFO gives the version and listen_spawn, and zeroes what the caller has and the module has not."""
    assert info() == (1, 2)
    longer = ioctl(sized(IOC_INFO, 16), b"\xff" * 16)
    assert struct.unpack("II", longer[:8]) == (1, 2) and not any(longer[8:])
    assert struct.unpack("I", ioctl(sized(IOC_INFO, 4), bytes(4))) == (1,)


@case
def no_such_ioctl(stack):
    """An ioctl that the module does not have gives ENOTTY."""
    for cmd in (0, 0x5401, IOC_INFO + 77, IOC_SPAWN ^ 0x100, IOC_SPAWN & 0x3FFFFFFF):
        fails(errno.ENOTTY, ioctl, cmd, bytes(64))


@case
def wrong_descriptors(stack):
    """SPAWN and SYNC tell descriptors that cannot be a parent apart."""
    null = stack.enter_context(open("/dev/null", "rb"))
    udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    unix = stack.enter_context(socket.socket(socket.AF_UNIX))
    tcp = stack.enter_context(socket.socket())
    parent = listener(stack)
    client = connect(stack, "127.0.0.1", port_of(parent))
    local = spawn(stack, parent, 0)
    for sock, want in ((null, errno.ENOTSOCK), (udp, errno.EPROTONOSUPPORT),
                       (unix, errno.EPROTONOSUPPORT), (tcp, errno.EINVAL),
                       (client, errno.EINVAL), (local, errno.EALREADY)):
        fails(want, ioctl, IOC_SPAWN, spawn_arg(sock.fileno()))
        fails(want, ioctl, IOC_SYNC, struct.pack("iI", sock.fileno(), 0))
    for fd in (-1, 9999, 2 ** 31 - 1):
        fails(errno.EBADF, ioctl, IOC_SPAWN, spawn_arg(fd))


@case
def mptcp(stack):
    """An MPTCP listener is refused."""
    try:
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
    except OSError as err:
        raise Skip("no MPTCP: %s" % err) from err
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    fails(errno.EPROTONOSUPPORT, ioctl, IOC_SPAWN, spawn_arg(sock.fileno()))


@case
def wrong_cpu(stack):
    """A CPU that cannot exist gives EINVAL."""
    parent = listener(stack)
    for cpu in (-2, 100000, 2 ** 31 - 1, -2 ** 31):
        fails(errno.EINVAL, ioctl, IOC_SPAWN, spawn_arg(parent.fileno(), cpu))


@case
def unknown_flags(stack):
    """Flags and fields that the module does not know are refused, zeroes in them are not."""
    parent = listener(stack)
    fails(errno.EINVAL, ioctl, IOC_SPAWN, spawn_arg(parent.fileno(), flags=1))
    fails(errno.EINVAL, ioctl, IOC_SYNC, struct.pack("iI", parent.fileno(), 8))
    fails(errno.E2BIG, ioctl, sized(IOC_SPAWN, 20),
          spawn_arg(parent.fileno(), extra=b"\0\0\0\1"))
    fails(errno.EINVAL, ioctl, sized(IOC_SPAWN, 8), bytes(8))
    out = ioctl(sized(IOC_SPAWN, 24), spawn_arg(parent.fileno(), extra=bytes(8)))
    os.close(struct.unpack("iiiI", out[:16])[2])


@case
def bad_memory(stack):
    """An address that the caller does not have gives EFAULT."""
    parent = listener(stack)
    dev = os.open("/dev/fastsocket", os.O_RDWR)
    stack.callback(os.close, dev)
    for cmd in (IOC_INFO, IOC_SPAWN, IOC_SYNC):
        for address in (8, 2 ** 47 - 8, 2 ** 63):
            assert libc.ioctl(dev, ctypes.c_ulong(cmd), ctypes.c_ulong(address)) == -1
            assert ctypes.get_errno() == errno.EFAULT
    # Readable, not writable: found out when all has been made.
    page = libc.mmap
    page.restype = ctypes.c_void_p
    addr = page(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_size_t(0))
    ctypes.memmove(addr, spawn_arg(parent.fileno()), 16)
    libc.mprotect(ctypes.c_void_p(addr), ctypes.c_size_t(4096), 1)
    assert libc.ioctl(dev, ctypes.c_ulong(IOC_SPAWN), ctypes.c_void_p(addr)) == -1
    assert ctypes.get_errno() == errno.EFAULT
    wait_for(lambda: not listeners_of(port_of(parent)))


@case
def file_limit(stack):
    """Local listeners count against the caller's limit of open files."""
    parent = listener(stack)
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = max(map(int, os.listdir("/proc/self/fd"))) + 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, old[1]))
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, old)
    try:
        for _ in range(10):
            spawn(stack, parent, 0)
        raise AssertionError("no limit")
    except OSError as err:
        assert err.errno == errno.EMFILE


ADDRESS = r"ffff[0-9a-f]{12}"
FILES = {"/proc/net/fastsocket/" + name for name in ("established", "listeners", "nics", "stats")} | {
    "/proc/sys/net/fastsocket/" + name
    for name in ("accept_patience", "established", "listen_spawn", "receive_flow_deliver")}


def files_in(*dirs):
    return {os.path.join(top, name) for top in dirs for name in os.listdir(top)}


@case
def no_addresses(stack):
    """No file shows a kernel address; what sums over all namespaces is for root of the first one."""
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    steer(1, STEER_PORT, range(2))
    stack.callback(steer, 1, STEER_OFF)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert local.take()
    assert files_in("/proc/net/fastsocket", "/proc/sys/net/fastsocket") == FILES
    assert os.stat("/proc/net/fastsocket/established").st_mode & 0o777 == 0o400
    for name in FILES:
        with open(name) as f:
            assert not re.search(ADDRESS, f.read()), name
    unshare_net(stack)
    assert sorted(os.listdir("/proc/thread-self/net/fastsocket")) == ["listeners", "nics", "stats"]


@case
def answers(stack):
    """An ioctl writes nothing into its argument but what it answers."""
    parent = listener(stack)
    sock = stack.enter_context(socket.socket())
    name = ctypes.create_string_buffer(sockaddr("127.0.0.1", port_of(parent)))
    before = name.raw
    cpus = (ctypes.c_int32 * 2)(0, 1)
    known = {
        IOC_INFO: (b"\xaa" * 8, struct.pack("II", 1, 2)),
        IOC_SPAWN: (spawn_arg(parent.fileno(), CPU_ANY), None),
        IOC_SYNC: (struct.pack("iI", parent.fileno(), 0), ...),
        IOC_STEER: (struct.pack("IIIIQ", 1, STEER_PORT, 2, 0, ctypes.addressof(cpus)), ...),
        IOC_PORT: (struct.pack("iIQII", sock.fileno(), 0, ctypes.addressof(name), 16, 0), ...),
    }
    stack.callback(steer, 1, STEER_OFF)
    for cmd, (arg, want) in known.items():
        with on_cpu(1):
            out = ioctl(sized(cmd, len(arg) + 64), arg + bytes(64))
        if cmd == IOC_SPAWN:
            fd = struct.unpack_from("iii", out)[2]
            os.close(fd)
            want = struct.pack("iiiI", parent.fileno(), 1, fd, 0)
        assert out == (arg if want is ... else want) + bytes(64), (hex(cmd), out)
    assert (name.raw, list(cpus)) == (before, [0, 1])


@case
def log(stack):
    """What the kernel says when the module comes and goes shows no address."""
    parent = listener(stack)
    spawn(stack, parent, 0)
    kmsg = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
    stack.callback(os.close, kmsg)
    os.lseek(kmsg, 0, os.SEEK_END)
    run("rmmod", "fastsocket")
    load()
    spawn(stack, parent, 0)
    os.write(kmsg, b"fastsocket: a line to be found\n")
    said = []
    with contextlib.suppress(BlockingIOError):
        while True:
            said.append(os.read(kmsg, 8192).decode(errors="replace"))
    assert "to be found" in said[-1]
    assert not [line for line in said if re.search(ADDRESS, line)], said


@case
def proc_file(stack):
    """/proc/fastsocket takes the same calls, of who may only read it, also where there is no device."""
    parent = listener(stack)

    def calls():
        fd = os.open("/proc/fastsocket", os.O_RDONLY)
        assert struct.unpack("II", fcntl.ioctl(fd, IOC_INFO, bytes(8))) == (1, 2)
        out = fcntl.ioctl(fd, IOC_SPAWN, spawn_arg(parent.fileno(), 1))
        local = Local(fileno=struct.unpack("iiiI", out)[2])
        connect(stack, "127.0.0.1", port_of(parent), 1)
        assert local.take()
        fcntl.ioctl(fd, IOC_SYNC, struct.pack("iI", parent.fileno(), 0))
        refused(errno.EPERM, fcntl.ioctl, fd, IOC_STEER,
                struct.pack("IIIIQ", 1, STEER_OFF, 0, 0, 0))
    with without_device():
        assert as_user(65534, calls) == 0


# A function of a call's number and three arguments, of 32 bits each:
INT80 = bytes.fromhex("53"          # push %rbx
                      "89f8"        # mov %edi,%eax
                      "89f3"        # mov %esi,%ebx
                      "87ca"        # xchg %ecx,%edx
                      "cd80"        # int $0x80
                      "5b" "c3")    # pop %rbx; ret


@case
def compat(stack):
    """A 32-bit caller is answered alike."""
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40,
                      mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)    # MAP_32BIT
    base = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    pages[:len(INT80)] = INT80
    call = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint32] * 4)(base)
    at = base + mmap.PAGESIZE
    parent = listener(stack)
    steer(1, STEER_PORT, [0, 1, 2, 3])
    stack.callback(steer, 1, STEER_OFF)

    def asks(fd):
        def ask(cmd, arg, want=0):
            pages[mmap.PAGESIZE:mmap.PAGESIZE + len(arg)] = arg
            assert call(54, fd, cmd, at) == want, hex(cmd)  # ioctl()
            return pages[mmap.PAGESIZE:mmap.PAGESIZE + len(arg)]

        assert struct.unpack("II", ask(IOC_INFO, bytes(8))) == (1, 2)
        local = Local(fileno=struct.unpack("iiiI", ask(IOC_SPAWN, spawn_arg(parent.fileno(), 1)))[2])
        connect(stack, "127.0.0.1", port_of(parent), 1)
        assert local.take()
        ask(IOC_SYNC, struct.pack("iI", parent.fileno(), 0))
        ask(IOC_STEER, struct.pack("IIIIQii", 1, STEER_PORT, 2, 0, at + 24, 3, 2))
        assert [row["cpus"] for row in table("nics")] == ["3,2"]
        ask(IOC_STEER, struct.pack("IIIIQ", 1, STEER_PORT, 2, 0, 8), -errno.EFAULT)
        sock = socket.socket()
        with on_cpu(2):
            ask(IOC_PORT, struct.pack("iIQII", sock.fileno(), 0, at + 24, 16, 0) +
                sockaddr("127.0.0.1", port_of(parent)))
        sock.connect(parent.getsockname())
        assert port_of(sock) % 2 == 1
        ask(0xF5FF, bytes(8), -errno.ENOTTY)

    for name in ("/dev/fastsocket", "/proc/fastsocket"):
        pid = os.fork()
        if not pid:
            try:
                asks(os.open(name, os.O_RDONLY))
                os._exit(0)
            except BaseException:
                traceback.print_exc(file=sys.stdout)
            finally:
                sys.stdout.flush()
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            raise Skip("this kernel has no 32-bit calls")
        assert status == 0


def as_user(uid, func, *caps):
    """What @func() returns, or the errno it fails with, as @uid with these capabilities only."""
    pid = os.fork()
    if not pid:
        code = 255
        try:
            libc.prctl(8, 1, 0, 0, 0)       # PR_SET_KEEPCAPS
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(uid, uid, uid)
            bits = sum(1 << cap for cap in caps)
            header, data = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", bits, bits, 0, 0, 0, 0)
            assert libc.capset(header, data) == 0
            code = func() or 0
        except OSError as err:
            code = err.errno
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@case
def sysctl_writers(stack):
    """The sysctls are written by who has CAP_NET_ADMIN over the namespace, and by the host's root user; read by all."""
    unshare_net(stack)
    names = ["net.fastsocket." + n for n in
             ("accept_patience", "established", "listen_spawn", "receive_flow_deliver")]

    def writes():
        for name in names:
            sysctl(name, 1)

    def reads():
        for name in files_in("/proc/sys/net/fastsocket"):
            with open(name) as f:
                f.read()

    assert as_user(65534, reads) == 0
    assert as_user(65534, writes) == errno.EACCES
    assert as_user(65534, writes, 10) == errno.EACCES       # CAP_NET_BIND_SERVICE
    assert as_user(65534, writes, 12) == 0                  # CAP_NET_ADMIN
    assert as_user(0, writes) == 0

    def elsewhere():
        if libc.unshare(0x10000000):        # CLONE_NEWUSER: all capabilities, but not over this
            raise OSError(ctypes.get_errno(), "unshare")
        writes()

    assert as_user(65534, elsewhere) == errno.EACCES


@case
def sysctl_values(stack):
    """The sysctls take the numbers that they have a meaning for, and nothing else."""
    unshare_net(stack)
    for name, most in (("established", 1), ("listen_spawn", 2), ("receive_flow_deliver", 1),
                       ("accept_patience", 2 ** 31 - 1)):
        for value in (0, 1, most):
            sysctl("net.fastsocket." + name, value)
        for value in (-1, most + 1, 2 ** 31, 2 ** 64, "x"):
            refused(errno.EINVAL, sysctl, "net.fastsocket." + name, value)
        assert sysctl("net.fastsocket." + name, 0) == str(most)


@case
def other_user(stack):
    """A local listener is its listener's user's, whoever makes it: who may listen on the port as well, and who may not, does not change."""
    with contextlib.ExitStack() as mine:
        mine.callback(os.seteuid, 0)
        os.seteuid(1234)
        parent = listener(mine, reuseport=True)
        os.seteuid(0)
        local = spawn(mine, parent, 0)
        assert os.fstat(local.fileno()).st_uid == 1234
        parent.close()          # nothing but the local listener has the port
        port = port_of(local)
        for uid, want in ((1234, 0), (4321, errno.EADDRINUSE), (0, errno.EADDRINUSE)):
            def again():
                listener(mine, "127.0.0.1", port, reuseport=True)
            assert as_user(uid, again) == want, uid


@case
def memory_group(stack):
    """A local listener's memory is charged to its maker's control group, also while it drains."""
    root = "/sys/fs/cgroup/"
    group = root + "fastsocket-memory"
    try:
        with open(root + "cgroup.subtree_control", "w") as f:
            f.write("+memory")
        os.mkdir(group)
    except OSError as err:
        raise Skip("no memory control groups: %s" % err) from err
    stack.callback(os.rmdir, group)
    parents = [listener(stack) for _ in range(4)]

    def slab():
        with open(group + "/memory.stat") as f:
            return int(dict(line.split() for line in f)["slab"])

    def makes():
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        enter_group(group)
        before = slab()
        args = [spawn_arg(parent.fileno(), cpu) for parent in parents for cpu in range(4)]
        for arg in args * 50:
            ioctl(IOC_SPAWN, arg)
        # A socket alone has more than 2 KiB.
        print("# %d bytes each" % ((slab() - before) / 800), flush=True)
        return int(slab() - before < 800 * 3000)

    assert as_user(0, makes) == 0
    wait_for(lambda: not any(listeners_of(port_of(parent)) for parent in parents))


@case
def unprivileged(stack):
    """Anyone may spawn from a listening socket that it holds, and from no other."""
    parent = listener(stack)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            with contextlib.ExitStack() as inner:
                local = spawn(inner, parent, 1)
                connect(inner, "127.0.0.1", port_of(parent), 1)
                assert local.take()
                own = listener(inner)
                spawn(inner, own, 0)
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@case
def spawn_off(stack):
    """With listen_spawn=0 SPAWN gives EAGAIN."""
    parent = listener(stack)
    sysctl_for(stack, "net.fastsocket.listen_spawn", 0)
    fails(errno.EAGAIN, ioctl, IOC_SPAWN, spawn_arg(parent.fileno()))


@case
def random_arguments(stack):
    """Random ioctls from an unprivileged user get an error or a socket, and the kernel stays well."""
    import random
    seed = int(os.environ.get("SEED", "1"))
    print("# SEED=%d" % seed)
    rng = random.Random(seed)
    parent = listener(stack)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setresuid(65534, 65534, 65534)
            dev = os.open("/dev/fastsocket", os.O_RDWR)
            fds = [parent.fileno(), dev, -1, 0, 1, rng.randrange(100)]
            for _ in range(20000):
                cmd = rng.choice((IOC_INFO, IOC_SPAWN, IOC_SYNC, rng.getrandbits(32)))
                if rng.random() < 0.3:
                    cmd = sized(cmd, rng.randrange(64))
                data = struct.pack("<iiiI", rng.choice(fds),
                                   rng.choice((-2, -1, 0, 1, 3, 4, 2 ** 31 - 1)),
                                   rng.randrange(-9, 9),
                                   rng.choice((0, 0, 0, 1, 2 ** 31)))
                data += bytes(48) if rng.random() < 0.8 else rng.randbytes(48)
                try:
                    out = fcntl.ioctl(dev, cmd, data)
                    if cmd & 0xFF == 1:
                        os.close(struct.unpack_from("iii", out)[2])
                except OSError:
                    pass
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    wait_for(lambda: not listeners_of(port_of(parent)), 20)


load()
main()
