#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""/dev/fastsocket: every wrong argument gets a precise errno and changes nothing."""

import errno
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


@case
def no_addresses(stack):
    """No file shows a kernel address; what sums over all namespaces is for root of the first one."""
    parent = listener(stack)
    local = spawn(stack, parent, 0)
    steer(1, STEER_PORT, range(2))
    stack.callback(steer, 1, STEER_OFF)
    connect(stack, "127.0.0.1", port_of(parent), 0)
    assert local.take()
    shown = os.listdir("/proc/net/fastsocket")
    assert "established" in shown and len(shown) == 4
    assert os.stat("/proc/net/fastsocket/established").st_mode & 0o777 == 0o400
    for name in shown:
        with open("/proc/net/fastsocket/" + name) as f:
            assert not re.search(r"ffff[0-9a-f]{12}", f.read()), name
    unshare_net(stack)
    assert sorted(os.listdir("/proc/thread-self/net/fastsocket")) == ["listeners", "nics", "stats"]


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
