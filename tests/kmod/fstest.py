# SPDX-License-Identifier: GPL-2.0
"""What the module's tests share: KTAP output, the ioctls, the statistics, and
clients that connect from a chosen CPU (over loopback a SYN is processed on
the CPU of the task that sends it), or over a virtual multi-queue card."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

IOC_INFO = 0x8008F500
IOC_SPAWN = 0xC010F501
IOC_SYNC = 0x4008F502
IOC_STEER = 0x4018F503
IOC_PORT = 0x4018F504
STEER_OFF, STEER_PORT, STEER_RSS = range(3)
PORT_REPLACE, PORT_RELEASE = 1, 2
CPU_ANY = -1
CLONE_NEWNET = 0x40000000
TCP_MD5SIG, TCP_FASTOPEN, TCP_FASTOPEN_KEY = 14, 23, 33

# What tests/vm/suite names; others take what the build leaves.
tree = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
for name_, path_ in (("KO", "build/kmod-%s/fastsocket.ko" % os.uname().release),
                     ("NIC_KO", "build/nic-%s/rssnic.ko" % os.uname().release),
                     ("LOAD", "build/load"), ("LIB", "preload/libfsocket.so")):
    os.environ.setdefault("FASTSOCKET_" + name_, os.path.join(tree, path_))

# How many times as long as usual things may take.
SLOW = float(os.environ.get("FASTSOCKET_SLOW", 1))

# KASAN keeps what has been freed: memory as a whole says nothing there, objects() of one kind
# do, and so does kmemleak, which tests/vm/suite asks after each test.
QUARANTINE = os.uname().release.endswith("-kasan")

libc = ctypes.CDLL(None, use_errno=True)
cases = []


class Skip(Exception):
    """Raised by a case that cannot run here; says why."""


def case(func):
    """Register a test; its docstring is the sentence that it proves."""
    cases.append(func)
    return func


def main():
    """Run the cases, or those named on the command line, as KTAP."""
    chosen = [c for c in cases if not sys.argv[1:] or c.__name__ in sys.argv[1:]]
    print("KTAP version 1\n1..%d" % len(chosen), flush=True)
    failed = 0
    for n, func in enumerate(chosen, 1):
        name = " ".join((func.__doc__ or func.__name__).split()).rstrip(".")
        name = name.replace("#", "")
        started = time.monotonic()
        try:
            with contextlib.ExitStack() as stack:
                func(stack)
            print("ok %d - %s" % (n, name), flush=True)
        except Skip as why:
            print("ok %d - %s # SKIP %s" % (n, name, why), flush=True)
        except BaseException:
            failed += 1
            for line in traceback.format_exc().splitlines():
                print("# " + line)
            print("not ok %d - %s" % (n, name), flush=True)
        took = time.monotonic() - started
        if took > 3:
            print("# %.0f s" % took, flush=True)
    sys.exit(1 if failed else 0)


def run(*cmd, check=True, text=None):
    done = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          input=text, text=True, check=False)
    if check and done.returncode:
        raise AssertionError("%s: %s" % (" ".join(cmd), done.stdout))
    return done.stdout


def module_path():
    return os.environ["FASTSOCKET_KO"]


def loaded():
    return os.path.exists("/proc/net/fastsocket")


def load(patient=True):
    """Load the module if it is not; connections then wait for as long as a test takes, if @patient."""
    if not loaded():
        run("insmod", module_path())
    be_patient(patient)
    # The first namespace, too: tests that follow are in it, and do not load it again.
    with in_netns("/proc/1/ns/net"):
        be_patient(patient)


def be_patient(patient=True):
    """Whether no connection of this namespace leaves a queue because nobody comes for it."""
    sysctl("net.fastsocket.accept_patience", 0 if patient else 500)


def sysctl(name, value):
    """Set a sysctl of this namespace; returns what it was."""
    path = "/proc/sys/" + name.replace(".", "/")
    with open(path) as f:
        old = f.read().strip()
    with open(path, "w") as f:
        f.write(str(value))
    return old


# A command's prefix: it has no privilege.
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def enter_group(path):
    """Go into a control group."""
    with open(path + "/cgroup.procs", "w") as f:
        f.write(str(os.getpid()))


def bpf(cmd, attr):
    """The system call; returns a descriptor, or 0."""
    attr = attr.ljust(128, b"\0")
    ret = libc.syscall(321, cmd, ctypes.create_string_buffer(attr, len(attr)), len(attr))
    if ret < 0:
        raise OSError(ctypes.get_errno(), "bpf() %d" % cmd)
    return ret


def bpf_program(stack, kind, attach, insns):
    """Load (code, registers, offset, immediate) of each of @insns; returns a descriptor."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=BBhi", *i) for i in insns))
    name = ctypes.create_string_buffer(b"GPL")
    prog = bpf(5, struct.pack("=IIQQIIQII16sII", kind, len(insns), ctypes.addressof(code),
                              ctypes.addressof(name), 0, 0, 0, 0, 0, b"", 0, attach))
    stack.callback(os.close, prog)
    return prog


CGROUP_CONNECT4, CGROUP_CONNECT6 = 10, 11


def connect_group(stack, *progs):
    """A control group with programs for connect(), as pairs of what they attach to and
    their instructions; returns its path."""
    group = "/sys/fs/cgroup/fastsocket-connect"
    try:
        os.mkdir(group)
        stack.callback(os.rmdir, group)
        at = os.open(group, os.O_RDONLY)
        stack.callback(os.close, at)
        for attach, insns in progs:
            # BPF_PROG_TYPE_CGROUP_SOCK_ADDR
            bpf(8, struct.pack("=IIII", at, bpf_program(stack, 18, attach, insns), attach, 0))
    except OSError as err:
        raise Skip("no control groups with programs: %s" % err) from err
    return group


def refused(code, func, *args):
    """@func fails with @code."""
    try:
        func(*args)
    except OSError as err:
        assert err.errno == code, "%s, not %s" % (errno.errorcode[err.errno],
                                                  errno.errorcode[code])
        return
    raise AssertionError("%s did not fail with %s" % (func.__name__, errno.errorcode[code]))


def sysctl_for(stack, name, value):
    stack.callback(sysctl, name, sysctl(name, value))


def ioctl(cmd, data):
    fd = os.open("/dev/fastsocket", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(fd, cmd, data)
    finally:
        os.close(fd)


@contextlib.contextmanager
def without_device():
    """As in a container: there is /proc/fastsocket only."""
    os.rename("/dev/fastsocket", "/dev/fastsocket.away")
    try:
        yield
    finally:
        os.rename("/dev/fastsocket.away", "/dev/fastsocket")


def info():
    return struct.unpack("II", ioctl(IOC_INFO, bytes(8)))


def spawn(stack, parent, cpu=CPU_ANY):
    """A local listener of @parent, as a socket; its .cpu says where."""
    out = ioctl(IOC_SPAWN, struct.pack("iiiI", parent.fileno(), cpu, -1, 0))
    _, cpu, fd, _ = struct.unpack("iiiI", out)
    sock = Local(fileno=fd)
    sock.cpu = cpu
    return stack.enter_context(sock)


def sync(parent):
    ioctl(IOC_SYNC, struct.pack("iI", parent.fileno(), 0))


def steer(ifindex, mode, cpus=()):
    """Tell the module how a device has been set up."""
    array = (ctypes.c_int32 * max(1, len(cpus)))(*cpus)
    ioctl(IOC_STEER, struct.pack("IIIIQ", ifindex, mode, len(cpus), 0,
                                 ctypes.addressof(array)))


def sockaddr(addr, port):
    """A struct sockaddr_in or sockaddr_in6."""
    if ":" in addr:
        return (struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) +
                socket.inet_pton(socket.AF_INET6, addr) + bytes(4))
    return (struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) +
            socket.inet_pton(socket.AF_INET, addr) + bytes(8))


def md5_key(addr, key):
    """TCP_MD5SIG's argument: @key for @addr, none for what is empty."""
    return sockaddr(addr, 0).ljust(128, b"\0") + struct.pack("=BBHi80s", 0, 0, len(key), 0, key)


def core_port(sock, addr, port, flags=0):
    """Give @sock a core-local port for connecting to @addr, @port."""
    name = ctypes.create_string_buffer(sockaddr(addr, port))
    ioctl(IOC_PORT, struct.pack("iIQII", sock.fileno(), flags,
                                ctypes.addressof(name), len(name) - 1, 0))


def release_port(sock):
    ioctl(IOC_PORT, struct.pack("iIQII", sock.fileno(), PORT_RELEASE, 0, 0, 0))


def core_connect(stack, addr, port, cpu, setup=None):
    """connect() from @cpu by a core-local port."""
    family = socket.AF_INET6 if ":" in addr else socket.AF_INET
    sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    sock.settimeout(5 * SLOW)
    if setup:
        setup(sock)
    with on_cpu(cpu):
        core_port(sock, addr, port)
        sock.connect((addr, port))
    return sock


class Local(socket.socket):
    """A local listener; accept() waits up to a second, as a test should."""

    cpu = None

    def take(self, timeout=1.0):
        return take(self, timeout)


def take(listener, timeout=1.0):
    """accept() within @timeout, or None."""
    end = time.monotonic() + timeout * SLOW
    flags = socket.SOCK_CLOEXEC
    while True:
        fd = libc.accept4(listener.fileno(), None, None, flags)
        if fd >= 0:
            return socket.socket(fileno=fd)
        err = ctypes.get_errno()
        if err not in (errno.EAGAIN, errno.ENODATA):
            raise OSError(err, os.strerror(err))
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


def accept_errno(listener):
    fd = libc.accept4(listener.fileno(), None, None, 0)
    if fd >= 0:
        os.close(fd)
        return 0
    return ctypes.get_errno()


def listener(stack, addr="127.0.0.1", port=0, family=None, backlog=128,
             setup=None, reuseport=False):
    family = family or (socket.AF_INET6 if ":" in addr else socket.AF_INET)
    sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuseport:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if setup:
        setup(sock)
    sock.bind((addr, port))
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


def port_of(sock):
    return sock.getsockname()[1]


@contextlib.contextmanager
def on_cpu(cpu):
    old = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, old)


# Of neighbouring source ports all may have the same few hashes: the key is any, and one for
# as long as the machine runs.
SPREAD = range(10000, 60000, 823)


def connect(stack, addr, port, cpu=None, timeout=5, sport=0, setup=None):
    family = socket.AF_INET6 if ":" in addr else socket.AF_INET
    sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    sock.settimeout(timeout * SLOW)
    if setup:
        setup(sock)
    if sport:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", sport))
    with on_cpu(cpu) if cpu is not None else contextlib.nullcontext():
        sock.connect((addr, port))
    return sock


def talk(client, server):
    """Both directions work."""
    server.settimeout(5 * SLOW)
    client.sendall(b"ping")
    assert server.recv(4) == b"ping"
    server.sendall(b"pong")
    assert client.recv(4) == b"pong"


def table(name, task="self"):
    with open("/proc/%s/net/fastsocket/%s" % (task, name)) as f:
        head, *rows = [line.split() for line in f]
    return [dict(zip(head, row)) for row in rows]


def filed():
    """Connections in the established tables, of all namespaces."""
    return sum(int(row["connections"]) for row in table("established", "1"))


def stats():
    """The sums over all CPUs."""
    total = {}
    for row in table("stats"):
        for key, value in row.items():
            if key != "cpu":
                total[key] = total.get(key, 0) + int(value)
    return total


def sockstat():
    """TCP sockets: of this namespace those in use and in TIME_WAIT (tw), of all the others."""
    with open("/proc/self/net/sockstat") as f:
        words = [line.split() for line in f if line.startswith("TCP:")][0]
    return dict(zip(words[1::2], map(int, words[2::2])))


# 6.12 has another name for it.
PEERS = "inet_peer_cache" if os.path.exists("/sys/kernel/slab/inet_peer_cache") else "inet_peer"


def objects(*caches):
    """Objects in slab caches, with no CPU holding any back, nor KASAN in quarantine. One that
    is merged with others has a name there all the same, and counts theirs, too."""
    total = 0
    for cache in caches:
        path = "/sys/kernel/slab/%s/" % cache
        with open(path + "shrink", "w") as f:
            f.write("1")
        with open(path + "objects") as f:
            total += int(f.read().split()[0])
    return total


def wait_for(what, timeout=5.0):
    timeout *= SLOW
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end, "waited %g s in vain" % timeout
        time.sleep(0.01)


def unload():
    """rmmod under load: a call that is under way holds the module, and may begin behind
    rmmod's own look at that ("temporarily unavailable")."""
    def gone():
        run("rmmod", "fastsocket", check=False)
        return not loaded()
    wait_for(gone, 30)


def listeners_of(port):
    return [r for r in table("listeners") if r["port"] == str(port)]


def waiting(parent):
    """How many connections wait in the queues of @parent's local listeners, and in its own."""
    local = sum(int(row["queue"]) for row in listeners_of(port_of(parent)))
    # tcpi_unacked
    own, = struct.unpack_from("I", parent.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28), 24)
    return local, own


def deferring(seconds):
    """For a listener: clients are accepted when they have said something."""
    return lambda sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, seconds)


def all_heard(parent, clients):
    """What each of @clients says now is heard by who accepts from @parent."""
    for client in clients:
        client.sendall(b"x")
    for _ in clients:
        assert take(parent).recv(1) == b"x"


class Delta:
    """How much a counter has grown since."""

    def __init__(self):
        self.before = stats()

    def __getattr__(self, name):
        return stats()[name] - self.before[name]


TRACING = "/sys/kernel/tracing/"


def tracing(name, value):
    """Write a file of the tracer's; several of them take what is added at the end only."""
    fd = os.open(TRACING + name, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


class Calls:
    """How often a kernel function is called."""

    def __init__(self, stack, function):
        self.name = "fst_" + function
        tracing("kprobe_events", "p:%s %s\n" % (self.name, function))
        stack.callback(tracing, "kprobe_events", "-:" + self.name)
        enable = "events/kprobes/%s/enable" % self.name
        tracing(enable, "1")
        stack.callback(tracing, enable, "0")

    def hits(self):
        with open(TRACING + "kprobe_profile") as f:
            return [int(line.split()[1]) for line in f
                    if line.split()[0] == self.name][0]


class Held:
    """A page that the kernel waits for when it reads it, until release():
    what it does for a system call meanwhile, it does for as long as a user
    likes. Only userfaultfd can say that of a page."""

    def __init__(self, stack):
        self.fd = libc.syscall(323, os.O_CLOEXEC)
        if self.fd < 0:
            raise Skip("this kernel has no userfaultfd()")
        stack.callback(os.close, self.fd)
        fcntl.ioctl(self.fd, 0xC018AA3F, struct.pack("QQQ", 0xAA, 0, 0))    # UFFDIO_API
        self.pages = mmap.mmap(-1, 2 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # One page before it is there.
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.pages)) + mmap.PAGESIZE
        fcntl.ioctl(self.fd, 0xC020AA00, struct.pack("QQQQ", self.address, mmap.PAGESIZE, 1, 0))
        self.callers = []
        stack.callback(self.release)

    def call(self, func, *args):
        """A call that is to wait, from a thread of its own."""
        def caller():
            with contextlib.suppress(OSError):
                func(*args)

        thread = threading.Thread(target=caller)
        thread.start()
        self.callers.append(thread)

    def release(self):
        """The page is there and empty."""
        with contextlib.suppress(FileExistsError):
            fcntl.ioctl(self.fd, 0xC020AA04,
                        struct.pack("QQQQ", self.address, mmap.PAGESIZE, 0, 0))
        for thread in self.callers:
            thread.join()


def unshare_net(stack):
    """Enter a fresh network namespace until the case ends."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")

    def back():
        libc.setns(here, CLONE_NEWNET)
        os.close(here)

    stack.callback(back)
    run("ip", "link", "set", "lo", "up")
    if loaded():
        be_patient()


def blackhole(low=32768, high=65535):
    """In a fresh namespace: local ports, and a device that drops what goes to 10.99/16."""
    run("ip", "link", "add", "blackhole", "type", "dummy")
    run("ip", "addr", "add", "10.99.0.1/16", "dev", "blackhole")
    run("ip", "link", "set", "blackhole", "up")
    sysctl("net.ipv4.ip_local_port_range", "%d %d" % (low, high))


def nft(stack, rules):
    """Rules in a table of their own, gone when the case ends."""
    text = "".join("add %s\n" % rule for rule in ["table inet fstest", *rules])
    run("nft", "-f", "-", text=text)
    stack.callback(run, "nft", "delete", "table", "inet", "fstest", check=False)


def half_open(stack, parent, cpu, count):
    """Clients whose third segment has been dropped; and the rule's undoing."""
    port = port_of(parent)
    nft(stack, ["chain inet fstest in { type filter hook input priority 0 ; }",
                "rule inet fstest in tcp dport %d tcp flags & (syn|ack) == ack drop" % port])
    clients = [connect(stack, "127.0.0.1", port, cpu) for _ in range(count)]
    return clients, lambda: run("nft", "flush", "table", "inet", "fstest")


def floodable(stack):
    """Enter a fresh namespace for flood()."""
    unshare_net(stack)
    run("ip", "route", "add", "10.99.0.0/16", "dev", "lo")
    for name in ("all", "lo"):
        sysctl("net.ipv4.conf.%s.rp_filter" % name, 0)
        sysctl("net.ipv4.conf.%s.accept_local" % name, 1)


def flood(port, count, first=0, data=b""):
    """@count SYNs, each from an address that never answers, sent from this task's CPU."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    dst = socket.inet_aton("127.0.0.1")
    for n in range(first, first + count):
        src = struct.pack(">I", 0x0A630000 + n)
        tcp = struct.pack(">HHIIBBHHH", 1024 + n % 60000, port, n, 0, 0x50, 2,
                          1024, 0, 0)
        pseudo = src + dst + struct.pack(">BBH", 0, 6, 20 + len(data)) + tcp + data
        total = sum(struct.unpack(">%dH" % ((len(pseudo) + 1) // 2),
                                  pseudo + bytes(len(pseudo) % 2)))
        total = (total & 0xFFFF) + (total >> 16)
        total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        tcp = tcp[:16] + struct.pack(">H", total) + tcp[18:]
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0) + src + dst
        raw.sendto(ip + tcp + data, ("127.0.0.1", 0))
    raw.close()


def new_netns(stack, name):
    run("ip", "netns", "add", name)
    stack.callback(run, "ip", "netns", "del", name, check=False)
    if loaded():
        with in_netns(name):
            be_patient()


def subnet6(subnet):
    """The IPv6 network beside @subnet, up to the "::"."""
    return "fd00:%s::" % subnet.replace(".", ":")


def join(device, peer, name, subnet):
    """@device becomes SUBNET.1, and @peer, in the namespace @name, SUBNET.2; IPv6 likewise."""
    for n, dev, where in ((1, device, ()), (2, peer, ("-n", name))):
        run("ip", *where, "-batch", "-", text="""
            addr add %s.%d/24 dev %s
            addr add %s%d/64 dev %s nodad
            link set %s up""" % (subnet, n, dev, subnet6(subnet), n, dev, dev))
    run("ip", "-n", name, "-batch", "-", text="""
        route add default via %s.1
        route add default via %s1""" % (subnet, subnet6(subnet)))


def wire(stack, name, subnet, device="wire"):
    """A namespace @name at SUBNET.2, joined to @device of this one at SUBNET.1."""
    new_netns(stack, name)
    run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name)
    join(device, "eth0", name, subnet)


@contextlib.contextmanager
def in_netns(name):
    """Sockets made and files opened inside are of the network namespace @name, or a path."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(os.path.join("/run/netns", name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        libc.setns(here, CLONE_NEWNET)
        os.close(there)
        os.close(here)


def nic_load(**params):
    if not os.path.exists("/sys/module/rssnic"):
        run("insmod", os.environ["FASTSOCKET_NIC_KO"],
            *("%s=%s" % item for item in params.items()))


def nic_param(name, value):
    with open("/sys/module/rssnic/parameters/" + name, "w") as f:
        f.write("%s\n" % value)    # an empty write would not be one


def sysfs_here(stack):
    """Have /sys show this network namespace's devices until the case ends."""
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    stack.callback(run, "umount", "/sys")


def nic_add(stack, device="nic0", queues=0, lacks=""):
    """A pair of cards, @device and its peer (with a "p"), made in this namespace."""
    nic_load()
    nic_param("queues", queues)
    nic_param("lacks", lacks)
    run("ip", "link", "add", device, "type", "rssnic")
    stack.callback(run, "ip", "link", "del", device, check=False)
    nic_param("queues", 0)
    nic_param("lacks", "")


def nic_wire(stack, name, subnet, device="nic0", queues=0, lacks=""):
    """As wire(), over multi-queue cards."""
    new_netns(stack, name)
    nic_add(stack, device, queues, lacks)
    run("ip", "link", "set", device + "p", "netns", name, "name", "eth0")
    join(device, "eth0", name, subnet)


def ethtool(*args, netns=None, check=True):
    where = ("ip", "netns", "exec", netns) if netns else ()
    return run(*where, "ethtool", *args, check=check)


def nic_stats(dev, netns=None):
    """What ethtool -S says."""
    lines = ethtool("-S", dev, netns=netns).splitlines()[1:]
    return {name.strip(): int(value) for name, value in
            (line.rsplit(":", 1) for line in lines)}


def queue_counts(dev, what="rx_queue_%d_packets", netns=None):
    """A counter of each queue, in order."""
    stats_ = nic_stats(dev, netns)
    return [stats_[what % n] for n in range(len(stats_)) if what % n in stats_]


def nic_irqs(dev):
    """The interrupts of the device's queues, in order; @dev as it was named when set up."""
    found = {}
    with open("/proc/interrupts") as f:
        for line in f:
            words = line.split()
            if words[-1].startswith(dev + "-TxRx-"):
                found[int(words[-1].rsplit("-", 1)[1])] = int(words[0].rstrip(":"))
    return [found[n] for n in sorted(found)]


def irq_counts(irq):
    """How often an interrupt has happened, by CPU."""
    with open("/proc/interrupts") as f:
        cpus = len(f.readline().split())
        for line in f:
            words = line.split()
            if words[0] == "%d:" % irq:
                return [int(w) for w in words[1:cpus + 1]]
    raise AssertionError("no interrupt %d" % irq)


def irq_affinity(irq, cpus=None):
    """Read, or set, which CPUs an interrupt may go to ("0-2,4")."""
    path = "/proc/irq/%d/smp_affinity_list" % irq
    if cpus is not None:
        with open(path, "w") as f:
            f.write(str(cpus))
    with open(path) as f:
        return f.read().strip()
