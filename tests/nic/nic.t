#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The virtual network card: that it steers, interrupts and counts as a real one."""

import ctypes
import errno
import fcntl
import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

# From Microsoft's "Verifying the RSS Hash Calculation": source, its port,
# destination, its port, hash of the addresses, hash of addresses and ports.
KEY = ("6d:5a:56:da:25:5b:0e:c2:41:67:25:3d:43:a3:8f:b0:d0:ca:2b:cb:"
       "ae:7b:30:b4:77:cb:2d:a3:80:30:f2:0c:6a:42:b7:3b:be:ac:01:fa")
VECTORS = (
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e8fc2, 0x51ccc178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718262a, 0xc626b0ea),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0a5de, 0x5c2b394a),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xafc7327f),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d1809c5, 0x10e828a2),
    ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc18cd5, 0x40207d3d),
    ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c461c, 0xdde51bbf),
    ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024,
     0x4b61e985, 0x02d1feef),
)

TCP, UDP, GRE = 6, 17, 47
SOURCE = bytes.fromhex("02f500000001")      # the Ethernet address that probes come from
QUEUE, HASH, CPU = 24, 32, 36               # SKF_AD_*
SO_ATTACH_FILTER, SO_INCOMING_CPU, UDP_SEGMENT = 26, 49, 103
ETH_P_ALL = 3


def frame(src, sport, dst, dport, proto=TCP, frag=0, extension=False):
    """A packet long enough to tell a byte by how much of it is kept."""
    ports = struct.pack("!HH", sport, dport)
    payload = ports + (bytes(8) + b"\x50\x10" + bytes(6) if proto == TCP else bytes(4))
    payload += bytes(300)
    if ":" in src:
        addresses = b"".join(socket.inet_pton(socket.AF_INET6, a) for a in (src, dst))
        if extension:       # destination options, padded
            payload = bytes((proto, 0, 1, 4, 0, 0, 0, 0)) + payload
            proto = 60
        return (bytes(6) + SOURCE + b"\x86\xdd" +
                struct.pack("!IHBB", 6 << 28, len(payload), proto, 64) + addresses + payload)
    addresses = socket.inet_aton(src) + socket.inet_aton(dst)
    return (bytes(6) + SOURCE + b"\x08\x00" +
            struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, frag, 64, proto, 0) +
            addresses + payload)


def packet_socket(stack, dev, program=None):
    sock = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    if program:
        code = b"".join(struct.pack("HBBI", *insn) for insn in program)
        buf = ctypes.create_string_buffer(code)
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                        struct.pack("HL", len(program), ctypes.addressof(buf)))
    sock.bind((dev, ETH_P_ALL if program else 0))
    sock.settimeout(5)
    return sock


class Probe:
    """Sends packets from @peer, and says what @dev made of each.

    A filter cannot return what it sees, but how much of the packet is to be
    kept, and that is the answer."""

    def __init__(self, stack, dev="nic0", peer="nic0p"):
        self.out = packet_socket(stack, peer)
        self.queue_in = packet_socket(stack, dev, self.program(QUEUE, 0, 0))
        self.cpu_in = packet_socket(stack, dev, self.program(CPU, 0, 1))
        self.hash_in = [packet_socket(stack, dev, self.program(HASH, shift, 1))
                        for shift in (24, 16, 8, 0)]

    @staticmethod
    def program(what, shift, plus):
        return ((0x20, 0, 0, 6), (0x15, 1, 0, int.from_bytes(SOURCE[:4], "big")),   # our source?
                (0x06, 0, 0, 0),
                (0x20, 0, 0, 0xfffff000 + what),        # A = it
                (0x74, 0, 0, shift), (0x54, 0, 0, 0xff), (0x04, 0, 0, plus),
                (0x16, 0, 0, 0))                        # keep A bytes

    def send(self, *args, **kwargs):
        self.out.send(frame(*args, **kwargs))

    def __call__(self, *args, **kwargs):
        """The queue, the hash and the CPU that a packet got; None for one dropped."""
        self.send(*args, **kwargs)
        try:
            queue = len(self.queue_in.recv(1000)) - 1
        except TimeoutError:
            return None
        rxhash = 0
        for sock in self.hash_in:
            rxhash = rxhash << 8 | len(sock.recv(1000)) - 1
        return queue, rxhash, len(self.cpu_in.recv(1000)) - 1

    def queue(self, *args, **kwargs):
        got = self(*args, **kwargs)
        return None if got is None else got[0]

    def dropped(self, *args, **kwargs):
        self.queue_in.settimeout(0.3)
        got = self(*args, **kwargs)
        self.queue_in.settimeout(5)
        return got is None


def pair(stack, **kwargs):
    """Both ends in one fresh namespace, up."""
    unshare_net(stack)
    sysfs_here(stack)
    nic_add(stack, **kwargs)
    for dev in ("nic0", "nic0p"):
        run("ip", "link", "set", dev, "up")
    wait_for(lambda: "LOWER_UP" in run("ip", "link", "show", "nic0"))


def indirection(dev="nic0"):
    """The table and the key that ethtool -x shows."""
    lines = ethtool("-x", dev).splitlines()
    at = lines.index("RSS hash key:")
    entries = [int(q) for line in lines[1:at] for q in line.split(":")[1].split()]
    return entries, lines[at + 1]


def refused(what, *args):
    """ethtool fails, saying @what."""
    out = ethtool(*args, check=False)
    assert what in out, out
    return out


@case
def rss_vectors(stack):
    """The hash is Toeplitz's: all vectors of Microsoft's verification suite, and the table picks the queue."""
    pair(stack)
    ethtool("-X", "nic0", "hkey", KEY)
    entries, key = indirection()
    assert key == KEY
    probe = Probe(stack)
    for src, sport, dst, dport, addresses, ports in VECTORS:
        queue, rxhash, _ = probe(src, sport, dst, dport)
        assert rxhash == ports, (src, hex(rxhash))
        assert queue == entries[ports % 128]
        queue, rxhash, _ = probe(src, sport, dst, dport, proto=GRE)
        assert rxhash == addresses, (src, hex(rxhash))
        assert queue == entries[addresses % 128]


@case
def rss_fields(stack):
    """Which fields are hashed can be chosen for TCP and UDP; fragments and IPv6 extension headers leave the addresses."""
    pair(stack)
    ethtool("-X", "nic0", "hkey", KEY)
    probe = Probe(stack)
    for vector, version in ((VECTORS[0], "4"), (VECTORS[5], "6")):
        to, addresses, ports = vector[:4], vector[4], vector[5]
        for proto, kind, default in ((TCP, "tcp", ports), (UDP, "udp", addresses)):
            assert probe(*to, proto=proto)[1] == default
            for fields, want in (("sd", addresses), ("sdfn", ports)):
                ethtool("-N", "nic0", "rx-flow-hash", kind + version, fields)
                shown = ethtool("-n", "nic0", "rx-flow-hash", kind + version)
                assert ("L4 bytes" in shown) == (want == ports), shown
                assert probe(*to, proto=proto)[1] == want, (kind, version, fields)
    for frag in (0x2000, 0x2001, 0x0001):
        assert probe(*VECTORS[0][:4], frag=frag)[1] == VECTORS[0][4]
    assert probe(*VECTORS[0][:4], frag=0x4000)[1] == VECTORS[0][5]
    assert probe(*VECTORS[5][:4], extension=True)[1] == VECTORS[5][4]
    refused("Invalid argument", "-N", "nic0", "rx-flow-hash", "tcp4", "s")
    refused("Invalid argument", "-N", "nic0", "rx-flow-hash", "sctp4", "sdfn")


@case
def rss_table(stack):
    """The indirection table can be set: equal, weight, default; the key stays, and packets go where it says."""
    pair(stack)
    probe = Probe(stack)
    default, key = indirection()
    assert default == [n % 4 for n in range(128)]
    ethtool("-X", "nic0", "weight", "0", "0", "0", "1")
    assert indirection() == ([3] * 128, key)
    assert {probe.queue("10.0.0.2", port, "10.0.0.1", 80) for port in SPREAD} == {3}
    ethtool("-X", "nic0", "equal", "2")
    assert indirection()[0] == [0, 1] * 64
    assert {probe.queue("10.0.0.2", port, "10.0.0.1", 80) for port in SPREAD} == {0, 1}
    ethtool("-X", "nic0", "default")
    assert indirection() == (default, key)
    assert {probe.queue("10.0.0.2", port, "10.0.0.1", 80) for port in SPREAD} == {0, 1, 2, 3}
    refused("Invalid argument", "-X", "nic0", "equal", "5")
    refused("Operation not supported", "-X", "nic0", "hfunc", "xor")


def rule(*spec):
    """Insert a rule; the location that the card chose, if any was left to it."""
    out = ethtool("-N", "nic0", "flow-type", *" ".join(spec).split())
    return int(out.split()[-1]) if out else None


@case
def ntuple_match(stack):
    """A rule steers what its masked addresses and ports match, and nothing else; TCP, UDP, IPv4 and IPv6."""
    pair(stack)
    ethtool("-K", "nic0", "ntuple", "on")
    ethtool("-X", "nic0", "weight", "1", "0", "0", "0")
    probe = Probe(stack)
    a, b = ("10.0.0.2", 1000, "10.0.0.1", 80), ("10.0.0.2", 1000, "10.0.1.1", 81)
    for spec, hits, misses in (
            ("tcp4 dst-port 80", a, b),
            ("tcp4 dst-ip 10.0.0.1", a, b),
            ("tcp4 dst-ip 10.0.0.0 m 0.0.0.255", a, b),
            ("tcp4 src-ip 10.0.0.2 src-port 1000 dst-ip 10.0.0.1 dst-port 80", a, b),
            ("tcp4 src-port 1000", a, ("10.0.0.2", 1001, "10.0.0.1", 80)),
            ("tcp4 src-ip 10.0.0.2", a, ("10.0.0.3", 1000, "10.0.0.1", 80)),
            # ethtool's mask has the bits that do not matter
            ("tcp4 dst-port 0x8001 m 0x7ffe", ("1.1.1.1", 5, "2.2.2.2", 0x8ff1),
             ("1.1.1.1", 5, "2.2.2.2", 0x8ff0)),
            ("tcp4 dst-port 2 m 0xfffc", ("1.1.1.1", 5, "2.2.2.2", 0x1006),
             ("1.1.1.1", 5, "2.2.2.2", 0x1005)),
            ("tcp6 dst-port 80", ("fd00::1", 9, "fd00::2", 80), ("fd00::1", 80, "fd00::2", 9)),
            ("tcp6 dst-ip fd00::2", ("fd00::1", 9, "fd00::2", 80),
             ("fd00::1", 9, "fd00:1::2", 80)),
            ("tcp6 src-ip fd00::1 m ffff::", ("fe00::1", 9, "fd00::2", 80),
             ("fd00::2", 9, "fd00::1", 80))):
        location = rule(spec, "action 2")
        assert probe.queue(*hits) == 2, spec
        assert probe.queue(*misses) == 0, spec
        assert probe.queue(*hits, proto=UDP) == 0, spec
        ethtool("-N", "nic0", "delete", str(location))
        assert probe.queue(*hits) == 0, spec
    rule("udp4 dst-port 80 action 1")
    assert (probe.queue(*a), probe.queue(*a, proto=UDP)) == (0, 1)
    rule("tcp4 action 3")       # any TCP
    assert (probe.queue(*a), probe.queue(*a, proto=UDP)) == (3, 1)
    assert probe.queue(*a, frag=0x2000) == 0


@case
def ntuple_precedence(stack):
    """The lowest location wins, a rule at a location replaces what was there, and -1 drops."""
    pair(stack)
    ethtool("-K", "nic0", "ntuple", "on")
    ethtool("-X", "nic0", "weight", "1", "0", "0", "0")
    probe = Probe(stack)
    to = ("10.0.0.2", 1000, "10.0.0.1", 80)
    rule("tcp4 dst-port 80 action 1 loc 7")
    rule("tcp4 src-port 1000 action 2 loc 9")
    assert probe.queue(*to) == 1
    rule("tcp4 src-ip 10.0.0.2 action 3 loc 5")
    assert probe.queue(*to) == 3
    rule("tcp4 src-ip 10.0.0.2 action -1 loc 5")
    assert probe.dropped(*to)
    assert nic_stats("nic0")["rx_filter_drops"] == 1
    ethtool("-N", "nic0", "delete", "5")
    ethtool("-N", "nic0", "delete", "7")
    assert probe.queue(*to) == 2
    assert rule("tcp4 dst-port 80 action 1") == 0
    assert probe.queue(*to) == 1
    shown = ethtool("-n", "nic0")
    assert "Total 2 rules" in shown and "Filter: 9" in shown, shown
    shown = ethtool("-u", "nic0", "rule", "0")
    assert "Dest port: 80 mask: 0x0" in shown and "Direct to queue 1" in shown, shown
    assert "Src port: 0 mask: 0xffff" in shown, shown
    refused("No such file", "-n", "nic0", "rule", "3")
    refused("No such file", "-N", "nic0", "delete", "3")


def insert(port, location=0xffffffff, queue=1):
    """Insert a rule for TCP to @port by the ioctl; the location that it got."""
    SIOCETHTOOL, INSERT, TCP_V4 = 0x8946, 0x32, 1
    match = bytearray(52)
    struct.pack_into("!H", match, 10, port)
    mask = bytearray(52)
    struct.pack_into("!H", mask, 10, 0xffff)
    spec = (struct.pack("I", TCP_V4) + match + bytes(20) + mask + bytes(20 + 4) +
            struct.pack("QII", queue, location, 0))
    buf = ctypes.create_string_buffer(struct.pack("IIQ", INSERT, 0, 0) + spec + bytes(8))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sPQQ", b"nic0", ctypes.addressof(buf), 0, 0))
    return struct.unpack_from("I", buf, 16 + 160)[0]


def set_ring(dev, size):
    """Set the rx ring's size by the ioctl."""
    SIOCETHTOOL, SRINGPARAM = 0x8946, 0x11
    buf = ctypes.create_string_buffer(struct.pack("9I", SRINGPARAM, 0, 0, 0, 0, size, 0, 0, 512))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL,
                    struct.pack("16sPQQ", dev.encode(), ctypes.addressof(buf), 0, 0))


def error_of(func, *args, **kwargs):
    try:
        func(*args, **kwargs)
    except OSError as err:
        return err.errno
    return 0


@case
def ntuple_limits(stack):
    """1024 rules and ENOSPC; EINVAL for a queue or a location that is not there; none while ntuple is off, and off forgets them."""
    pair(stack)
    assert "ntuple-filters: off" in ethtool("-k", "nic0")
    assert error_of(insert, 1) == errno.EOPNOTSUPP
    ethtool("-K", "nic0", "ntuple", "on")
    assert error_of(insert, 1, queue=4) == errno.EINVAL
    assert error_of(insert, 1, location=1024) == errno.EINVAL
    assert insert(0xfffe, 0xfffffffe) == 0 and insert(0xffff, 0xfffffffd) == 1023
    assert [insert(port) for port in range(1, 1023)] == list(range(1, 1023))
    assert error_of(insert, 2000) == errno.ENOSPC
    assert error_of(insert, 2000, 0xfffffffe) == errno.ENOSPC
    assert insert(2000, 500, 3) == 500
    assert "Total 1024 rules" in ethtool("-n", "nic0")
    probe = Probe(stack)
    assert probe.queue("1.1.1.1", 1, "2.2.2.2", 2000) == 3
    assert probe.queue("1.1.1.1", 1, "2.2.2.2", 0xffff) == 1
    ethtool("-N", "nic0", "delete", "77")
    assert insert(2001) == 77
    ethtool("-K", "nic0", "ntuple", "off")
    assert "Total 0 rules" in ethtool("-n", "nic0")
    ethtool("-K", "nic0", "ntuple", "on")
    assert "Total 0 rules" in ethtool("-n", "nic0")
    for what in ("tcp4 tos 4", "ether proto 5", "tcp4 dst-port 1 vlan 5"):
        refused("Operation not supported", "-N", "nic0", "flow-type",
                *what.split(), "action", "1")


class Stream:
    """A server in namespace @name and a client here that sends to it."""

    def __init__(self, stack, name, to, port=5001, flows=1, size=1 << 16, flags=0):
        self.size, self.flags = size, flags
        with in_netns(name):
            self.listener = listener(stack, to, port)
        self.stop = False
        self.sent, self.got = [hashlib.sha256() for _ in range(flows)], []
        self.threads = []
        for n in range(flows):
            client = connect(stack, to, port)
            server = stack.enter_context(take(self.listener))
            server.settimeout(60)
            self.got.append(hashlib.sha256())
            self.threads += [threading.Thread(target=self.send, args=(client, n)),
                             threading.Thread(target=self.receive, args=(server, n))]
        self.bytes = 0
        for thread in self.threads:
            thread.start()
        stack.callback(self.end, False)

    def send(self, client, n):
        block = os.urandom(self.size)
        client.settimeout(60)
        while not self.stop:
            client.sendall(block, self.flags)
            self.sent[n].update(block)
        client.shutdown(socket.SHUT_WR)

    def receive(self, server, n):
        while True:
            data = server.recv(1 << 18)
            if not data:
                return
            self.got[n].update(data)
            self.bytes += len(data)

    def runs(self):
        """Some more has come."""
        before = self.bytes
        wait_for(lambda: self.bytes > before + 500000, 30)

    def end(self, check=True):
        self.stop = True
        for thread in self.threads:
            thread.join(60)
        if check:
            assert [h.digest() for h in self.sent] == [h.digest() for h in self.got]


@case
def channels_under_traffic(stack):
    """The number of channels changes under traffic, that goes on unharmed, and a default table follows it."""
    unshare_net(stack)
    sysfs_here(stack)
    nic_wire(stack, "nic-c", "10.8.0")
    for dev, where in (("nic0", None), ("eth0", "nic-c")):
        shown = ethtool("-l", dev, netns=where)
        assert shown.count("Combined:\t4") == 2, shown
    # RPS looks at the queue of each packet, whether there is such a one.
    with open("/sys/class/net/nic0/queues/rx-0/rps_cpus", "w") as f:
        f.write("f")
    stream = Stream(stack, "nic-c", "10.8.0.2", flows=2)
    for count in (1, 3, 2, 4, 1, 4):
        ethtool("-L", "nic0", "combined", str(count))
        ethtool("-L", "eth0", "combined", str(count), netns="nic-c")
        assert len(nic_irqs("nic0")) == len(os.listdir("/sys/class/net/nic0/queues")) / 2 == count
        assert indirection()[0] == [n % count for n in range(128)]
        stream.runs()
    stream.end()
    assert sum(queue_counts("nic0", "rx_queue_%d_drops")) == 0


@case
def channels_refused(stack):
    """No channel goes away that a rule or a table refers to; and there are none beyond the maximum."""
    pair(stack)
    ethtool("-X", "nic0", "weight", "0", "0", "1", "0")
    out = ethtool("-L", "nic0", "combined", "2", check=False)
    assert "indirection table" in out or "Invalid argument" in out, out
    ethtool("-L", "nic0", "combined", "3")
    ethtool("-X", "nic0", "default")
    ethtool("-K", "nic0", "ntuple", "on")
    rule("tcp4 dst-port 80 action 1")
    rule("tcp4 dst-port 81 action -1")
    out = ethtool("-L", "nic0", "combined", "1", check=False)
    assert "Invalid argument" in out or "ntuple" in out, out
    ethtool("-L", "nic0", "combined", "2")
    ethtool("-N", "nic0", "delete", "0")
    ethtool("-L", "nic0", "combined", "1")
    for args in (("combined", "5"), ("combined", "0"), ("rx", "1")):
        assert ethtool("-L", "nic0", *args, check=False), args
    assert "Combined:\t1" in ethtool("-l", "nic0")


@case
def more_queues_than_cpus(stack):
    """A card can have more queues than there are CPUs; it starts with one per CPU."""
    pair(stack, queues=8)
    shown = ethtool("-l", "nic0")
    assert "Combined:\t8" in shown and "Combined:\t4" in shown, shown
    ethtool("-L", "nic0", "combined", "8")
    ethtool("-K", "nic0", "ntuple", "on")
    rule("tcp4 dst-port 80 action 7")
    assert Probe(stack).queue("10.0.0.2", 1000, "10.0.0.1", 80) == 7
    nic_param("queues", 99)
    run("ip", "link", "add", "many", "type", "rssnic")
    nic_param("queues", 0)
    assert "Combined:\t64" in ethtool("-l", "many")
    run("ip", "link", "del", "manyp")
    run("ip", "link", "add", "few", "numtxqueues", "2", "numrxqueues", "2", "type", "rssnic")
    assert ethtool("-l", "fewp").count("Combined:\t2") == 2
    run("ip", "link", "del", "few")


@case
def irq_affinity_moves(stack):
    """Each queue has its own interrupt, counted per CPU, and its packets are processed where its affinity says."""
    pair(stack)
    ethtool("-K", "nic0", "ntuple", "on")
    for queue in range(4):
        rule("tcp4 dst-port %d action %d" % (queue, queue))
    probe = Probe(stack)
    irqs = nic_irqs("nic0")
    listed = {int(n) for n in os.listdir("/sys/class/net/nic0/device/msi_irqs")}
    assert set(irqs) == listed and len(listed) == 4
    for queue, irq in enumerate(irqs):
        for cpu in (3, 0, 2, 1):
            assert irq_affinity(irq, cpu) == str(cpu)
            with open("/proc/irq/%d/effective_affinity_list" % irq) as f:
                assert f.read().strip() == str(cpu)
            before = irq_counts(irq)
            for sender in (cpu, (cpu + 1) % 4):
                with on_cpu(sender):
                    got = probe("10.0.0.2", 1000, "10.0.0.1", queue)
                assert (got[0], got[2]) == (queue, cpu), (queue, cpu, got)
            grown = [a - b for a, b in zip(irq_counts(irq), before)]
            assert grown[cpu] >= 2 and sum(grown) == grown[cpu], (queue, cpu, grown)
    irq_affinity(irqs[0], "0-3")
    assert irq_affinity(irqs[0]) == "0-3"
    assert probe("10.0.0.2", 1000, "10.0.0.1", 0)[2] == 1       # as before: no need to move


@case
def irq_affinity_stays(stack):
    """Affinities outlive down, up and a change of channels; new interrupts are spread over the CPUs."""
    pair(stack)
    irqs = nic_irqs("nic0")
    effective = [open("/proc/irq/%d/effective_affinity_list" % irq).read().strip()
                 for irq in irqs]
    assert effective == ["0", "1", "2", "3"], effective
    irq_affinity(irqs[2], 0)
    run("ip", "link", "set", "nic0", "down")
    assert not nic_irqs("nic0")
    run("ip", "link", "set", "nic0", "up")
    ethtool("-L", "nic0", "combined", "1")
    ethtool("-L", "nic0", "combined", "4")
    assert nic_irqs("nic0") == irqs and irq_affinity(irqs[2]) == "0"


@case
def irq_moves_under_load(stack):
    """An affinity that changes under load takes the stream along."""
    unshare_net(stack)
    nic_wire(stack, "nic-c", "10.8.0")
    ethtool("-X", "eth0", "weight", "0", "1", "0", "0", netns="nic-c")
    irq = nic_irqs("eth0")[1]
    stream = Stream(stack, "nic-c", "10.8.0.2")
    for cpu in (0, 1, 2, 3) * 3:
        irq_affinity(irq, cpu)
        time.sleep(0.05)
        before = irq_counts(irq)
        stream.runs()
        # While packets keep coming there need not be a new interrupt.
        wait_for(lambda: irq_counts(irq)[cpu] > before[cpu], 20)
        grown = [a - b for a, b in zip(irq_counts(irq), before)]
        assert sum(grown) - grown[cpu] <= 1, (cpu, grown)
    stream.end()


@case
def irq_moves_when_saturated(stack):
    """So it does where packets come faster than a CPU takes them, and NAPI never rests."""
    unshare_net(stack)
    nic_wire(stack, "nic-c", "10.8.0")
    ethtool("-X", "eth0", "weight", "0", "1", "0", "0", netns="nic-c")
    for irq in nic_irqs("nic0"):
        irq_affinity(irq, 0)
    irq = nic_irqs("eth0")[1]
    irq_affinity(irq, 2)
    stop = threading.Event()

    def flood(cpu):
        with on_cpu(cpu), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 100)
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    sock.sendto(bytes(6000), ("10.8.0.2", 9))

    def processed():
        with open("/proc/net/softnet_stat") as f:
            return [int(line.split()[0], 16) for line in f]

    threads = [threading.Thread(target=flood, args=(cpu,)) for cpu in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        for cpu in (3, 2, 3):
            irq_affinity(irq, cpu)
            time.sleep(0.2)
            before = processed()
            time.sleep(0.5)
            grown = [a - b for a, b in zip(processed(), before)]
            assert grown[cpu] > 100 and grown[5 - cpu] < grown[cpu] / 10, (cpu, grown)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@case
def cpu_offline(stack):
    """The interrupt of a CPU that goes offline moves to another."""
    pair(stack)
    ethtool("-X", "nic0", "weight", "0", "0", "0", "1")
    probe = Probe(stack)
    irq_affinity(nic_irqs("nic0")[3], 3)
    to = ("10.0.0.2", 1000, "10.0.0.1", 80)
    assert probe(*to)[2] == 3
    path = "/sys/devices/system/cpu/cpu3/online"

    def online(value):
        with open(path, "w") as f:
            f.write(value)

    stack.callback(online, "1")
    online("0")
    for _ in range(10):
        assert probe(*to)[2] in (0, 1, 2)


@case
def napi_of_queue(stack):
    """The kernel tells which NAPI and which interrupt a queue has (netdev-genl, where it knows)."""
    pair(stack)
    ids = netdev_family()
    index = socket.if_nametoindex("nic0")
    napis = {n[2]: n for n in netdev_dump(ids, 11, 1, index)}    # NAPI_GET
    if not napis:
        raise Skip("this kernel has no netdev napi-get")
    assert sorted(struct.unpack("I", n[3])[0] for n in napis.values()) == nic_irqs("nic0")
    queues = [q for q in netdev_dump(ids, 10, 2, index)]         # QUEUE_GET
    assert len(queues) == 8
    for queue in queues:
        irq = struct.unpack("I", napis[queue[4]][3])[0]
        assert irq == nic_irqs("nic0")[struct.unpack("I", queue[1])[0]]


def genl(family, cmd, attrs, dump=False):
    """The attributes of each answer, by type."""
    message = struct.pack("BBH", cmd, 1, 0) + attrs
    flags = 0x301 if dump else 0x5
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as sock:
        sock.bind((0, 0))
        sock.settimeout(5)
        sock.send(struct.pack("IHHII", 16 + len(message), family, flags, 1, 0) + message)
        while True:
            data = sock.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("IH", data)
                body, data = data[20:length], data[(length + 3) & ~3:]
                if kind in (2, 3):      # NLMSG_ERROR, NLMSG_DONE
                    return found
                answer = {}
                while body:
                    size, what = struct.unpack_from("HH", body)
                    answer[what & 0x3fff] = body[4:size]
                    body = body[(size + 3) & ~3:]
                found.append(answer)


def attr(what, value):
    return struct.pack("HH", 4 + len(value), what) + value + bytes(-len(value) % 4)


def netdev_family():
    found = genl(16, 3, attr(2, b"netdev\0"))       # CTRL_CMD_GETFAMILY
    return struct.unpack("H", found[0][1])[0] if found else None


def netdev_dump(family, cmd, ifindex_attr, index):
    if family is None:
        return []
    return genl(family, cmd, attr(ifindex_attr, struct.pack("I", index)), dump=True)


@case
def rings(stack):
    """Ring sizes can be set, also under traffic, and what finds a ring full is dropped and counted."""
    unshare_net(stack)
    nic_wire(stack, "nic-c", "10.8.0")
    shown = ethtool("-g", "nic0")
    assert shown.count("RX:\t\t8192") == 1 and shown.count("RX:\t\t1024") == 1, shown
    stream = Stream(stack, "nic-c", "10.8.0.2")
    for size in (16, 8192, 64, 1024):
        ethtool("-G", "eth0", "rx", str(size), "tx", "512", netns="nic-c")
        shown = ethtool("-g", "eth0", netns="nic-c")
        assert "RX:\t\t%d" % size in shown and "TX:\t\t512" in shown, shown
        stream.runs()
    with in_netns("nic-c"):
        for n in range(300):
            set_ring("eth0", 512 + n)
    stream.runs()
    stream.end()
    refused("Invalid argument", "-G", "nic0", "rx", "15")
    ethtool("-G", "nic0", "rx", "9000", check=False)
    assert "RX:\t\t1024" in ethtool("-g", "nic0")

    # A datagram that is segmented comes in one go, before its CPU polls.
    ethtool("-G", "eth0", "rx", "16", netns="nic-c")
    ethtool("-X", "eth0", "weight", "1", "0", "0", "0", netns="nic-c")
    irq_affinity(nic_irqs("eth0")[0], 2)
    before = queue_counts("eth0", netns="nic-c")[0]
    drops = "rx_queue_%d_drops"
    dropped = queue_counts("eth0", drops, "nic-c")
    missed = link_stats("eth0", "nic-c")["rx"]["missed_errors"]
    with on_cpu(2), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 100)
        sock.sendto(bytes(4000), ("10.8.0.2", 9))
    wait_for(lambda: queue_counts("eth0", netns="nic-c")[0] >= before + 16)
    dropped[0] += 24
    assert queue_counts("eth0", drops, "nic-c") == dropped, queue_counts("eth0", drops, "nic-c")
    assert link_stats("eth0", "nic-c")["rx"]["missed_errors"] == missed + 24


@case
def loss(stack):
    """A stream arrives whole over rings too small for its bursts: what is dropped is sent again."""
    unshare_net(stack)
    nic_wire(stack, "nic-c", "10.8.0")
    ethtool("-G", "eth0", "rx", "16", netns="nic-c")
    for irq in nic_irqs("nic0") + nic_irqs("eth0"):
        irq_affinity(irq, 2)        # segments that an ACK admits are posted before any is polled
    # Messages with an end of record are packets of their own, that share the sender's data.
    stream = Stream(stack, "nic-c", "10.8.0.2", size=1000, flags=socket.MSG_EOR)
    wait_for(lambda: sum(queue_counts("eth0", "rx_queue_%d_drops", "nic-c")) > 20 and
             stream.bytes > 1000000, 60)
    stream.end()


def link_stats(dev, netns=None):
    import json
    where = ("-n", netns) if netns else ()
    return json.loads(run("ip", *where, "-s", "-s", "-j", "link", "show", dev))[0]["stats64"]


@case
def counters(stack):
    """Each queue counts its packets and bytes, received and sent, and the device their sums."""
    pair(stack)
    ethtool("-X", "nic0", "weight", "0", "0", "1", "0")
    probe = Probe(stack)
    run("sleep", "1")       # the first packets of IPv6 itself
    size = len(frame("10.0.0.2", 1, "10.0.0.1", 80))
    rx, rx_bytes = queue_counts("nic0"), queue_counts("nic0", "rx_queue_%d_bytes")
    tx = queue_counts("nic0p", "tx_queue_%d_packets")
    for port in range(50):
        probe("10.0.0.2", port, "10.0.0.1", 80)
    assert queue_counts("nic0")[2] >= rx[2] + 50
    assert queue_counts("nic0", "rx_queue_%d_bytes")[2] >= rx_bytes[2] + 50 * size
    assert sum(queue_counts("nic0p", "tx_queue_%d_packets")) >= sum(tx) + 50
    run("ip", "link", "set", "nic0p", "down")
    for dev in ("nic0", "nic0p"):
        stats_ = link_stats(dev)
        for way in ("rx", "tx"):
            for what in ("packets", "bytes"):
                assert stats_[way][what] == sum(
                    queue_counts(dev, "%s_queue_%%d_%s" % (way, what))), (dev, way, what)


@case
def coalescing(stack):
    """Coalescing can be read and set; what the card does not have is refused."""
    pair(stack)
    ethtool("-C", "nic0", "rx-usecs", "50", "rx-frames", "8", "tx-usecs", "20",
            "adaptive-rx", "on")
    shown = ethtool("-c", "nic0")
    for want in ("rx-usecs: 50\n", "rx-frames: 8\n", "tx-usecs: 20\n", "Adaptive RX: on"):
        assert want in shown, shown
    assert "rx-usecs: 3\n" in ethtool("-c", "nic0p")
    ethtool("-C", "nic0", "adaptive-rx", "off")
    refused("unsupported", "-C", "nic0", "rx-usecs-irq", "5")


@case
def identity(stack):
    """ethtool -i, a link speed, and a parent device are there, as hardware has them."""
    pair(stack)
    shown = ethtool("-i", "nic0")
    parent = os.path.basename(os.path.realpath("/sys/class/net/nic0/device"))
    assert "driver: rssnic\n" in shown and "bus-info: %s\n" % parent in shown, shown
    shown = ethtool("nic0")
    assert "Speed: 10000Mb/s" in shown and "Link detected: yes" in shown, shown
    assert "@" not in run("ip", "-o", "link", "show", "nic0").split()[1]
    run("ip", "link", "set", "nic0p", "down")
    assert "Link detected: no" in ethtool("nic0")
    run("ip", "link", "set", "nic0p", "up")
    assert "Link detected: yes" in ethtool("nic0")


class Longest:
    """Counts what a device receives that is longer than its MTU."""

    def __init__(self, stack, dev, mtu=1500):
        self.sock = packet_socket(stack, dev, (
            (0x28, 0, 0, 0xfffff004), (0x15, 3, 0, 4),      # SKF_AD_PKTTYPE: outgoing?
            (0x80, 0, 0, 0), (0x25, 0, 1, mtu + 14),        # length
            (0x06, 0, 0, 14), (0x06, 0, 0, 0)))
        self.sock.setblocking(False)

    def some(self):
        count = 0
        try:
            while True:
                self.sock.recv(100)
                count += 1
        except BlockingIOError:
            return count


@case
def tso_and_gro(stack):
    """A TCP stream passes whole and without loss, with TSO and without; GRO joins what comes in pieces."""
    unshare_net(stack)
    nic_wire(stack, "nic-c", "10.8.0")
    with in_netns("nic-c"):
        long = Longest(stack, "eth0")
    for port, (tso, gro) in enumerate((("on", "on"), ("off", "on"), ("off", "off")), 5001):
        ethtool("-K", "nic0", "tso", tso)
        ethtool("-K", "eth0", "gro", gro, netns="nic-c")
        for to in ("10.8.0.2", subnet6("10.8.0") + "2"):
            with contextlib.ExitStack() as inner:
                stream = Stream(inner, "nic-c", to, port)
                wait_for(lambda: stream.bytes > 4000000, 60)
                stream.end()
                assert bool(long.some()) == ("on" in (tso, gro)), (tso, gro)
        if tso == "on":     # else a window may be more than a ring
            assert sum(queue_counts("eth0", "rx_queue_%d_drops", "nic-c")) == 0


@case
def dma(stack):
    """With dma=1 each packet is received as a copy, in any size, and the sender frees its own."""
    unshare_net(stack)
    nic_wire(stack, "nic-c", "10.8.0")
    copied = Calls(stack, "rssnic_receive")
    for value in 0, 1:
        nic_param("dma", value)
        for to in ("10.8.0.2", subnet6("10.8.0") + "2"):
            with contextlib.ExitStack() as inner:
                stream = Stream(inner, "nic-c", to)
                wait_for(lambda: stream.bytes > 2000000, 60)
                stream.end()
        assert bool(copied.hits()) == value
    nic_param("dma", 0)


@case
def connections(stack):
    """Connections over IPv4 and IPv6 reach a server, spread over the queues, and none is lost."""
    unshare_net(stack)
    nic_wire(stack, "nic-c", "10.8.0")
    for to in ("10.8.0.1", subnet6("10.8.0") + "1"):
        server = listener(stack, to, 8080)
        before = queue_counts("nic0")
        for sport in SPREAD:
            with contextlib.ExitStack() as inner:
                with in_netns("nic-c"):
                    client = connect(inner, to, 8080, sport=sport)
                talk(client, inner.enter_context(take(server)))
        grown = [a - b for a, b in zip(queue_counts("nic0"), before)]
        assert all(grown) and sum(grown) >= 60 * 3, grown


@case
def incoming_cpu(stack):
    """SO_INCOMING_CPU of a connection is the CPU of its queue's interrupt, and its queue that of the table."""
    unshare_net(stack)
    nic_wire(stack, "nic-c", "10.8.0")
    for queue, irq in enumerate(nic_irqs("nic0")):
        irq_affinity(irq, 3 - queue)
        ethtool("-X", "nic0", "weight", *("1" if n == queue else "0" for n in range(4)))
        with contextlib.ExitStack() as inner:
            server = listener(inner, "10.8.0.1")
            with in_netns("nic-c"):
                client = connect(inner, "10.8.0.1", port_of(server), cpu=0)
            conn = inner.enter_context(take(server))
            with on_cpu(0):
                talk(client, conn)
            assert conn.getsockopt(socket.SOL_SOCKET, SO_INCOMING_CPU) == 3 - queue


@case
def down_and_up_under_traffic(stack):
    """Either end goes down and up under traffic, which goes on afterwards."""
    unshare_net(stack)
    nic_wire(stack, "nic-c", "10.8.0")
    stream = Stream(stack, "nic-c", "10.8.0.2", flows=2)
    stream.runs()
    for where, dev in (((), "nic0"), (("-n", "nic-c"), "eth0")) * 2:
        run("ip", *where, "link", "set", dev, "down")
        run("ip", *where, "link", "set", dev, "up")
        stream.runs()
    stream.end()


@case
def deletion(stack):
    """Deleting an end deletes both, under traffic too; so does deleting the namespace of either."""
    unshare_net(stack)
    for how in ("here", "there", "namespace"):
        with contextlib.ExitStack() as inner:
            nic_wire(inner, "nic-c", "10.8.0")
            stop = threading.Event()

            def flood():
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    while not stop.is_set():
                        try:
                            sock.sendto(bytes(500), ("10.8.0.2", 9))
                        except OSError:
                            pass

            thread = threading.Thread(target=flood)
            thread.start()
            time.sleep(0.3)
            try:
                if how == "here":
                    run("ip", "link", "del", "nic0")
                elif how == "there":
                    run("ip", "-n", "nic-c", "link", "del", "eth0")
                else:
                    run("ip", "netns", "del", "nic-c")
                wait_for(lambda: "nic0" not in run("ip", "link"))
            finally:
                stop.set()
                thread.join()
            if how != "namespace":
                assert "eth0" not in run("ip", "-n", "nic-c", "link")
            assert not nic_irqs("nic0") and not nic_irqs("eth0")


@case
def names(stack):
    """The peer's name is the device's with a p; where there is no room or it is taken nothing is left behind."""
    unshare_net(stack)
    sysfs_here(stack)
    nic_load()
    run("ip", "link", "add", "type", "rssnic")
    assert {"rssnic0", "rssnic0p"} <= set(os.listdir("/sys/class/net"))
    run("ip", "link", "del", "rssnic0p")
    for name in ("a23456789012345", "taken"):
        if name == "taken":
            run("ip", "link", "add", "takenp", "type", "dummy")
        assert run("ip", "link", "add", name, "type", "rssnic", check=False)
        assert name not in os.listdir("/sys/class/net")
    assert "rssnic" not in " ".join(os.listdir("/sys/devices/platform"))


@case
def lacks(stack):
    """A card can be made without a feature, and keeps what it was made with."""
    unshare_net(stack)
    nic_load()
    nic_add(stack, "full")
    show = {"ntuple": ("-n",), "rss": ("-x",), "channels": ("-l",), "coalesce": ("-c",),
            "rings": ("-g",)}
    change = {"ntuple": ("-K", "ntuple", "on"), "rss": ("-X", "equal", "1"),
              "channels": ("-L", "combined", "1"), "coalesce": ("-C", "rx-usecs", "1"),
              "rings": ("-G", "rx", "64")}

    def works(dev, feature):
        done = [subprocess.run(["ethtool", cmd, dev, *args], capture_output=True, text=True,
                               check=False)
                for cmd, *args in (show[feature], change[feature])]
        if feature == "rss":        # shows how many rings there are, at least
            done = done[1:]
        return [not d.returncode for d in done]

    for feature in show:
        nic_add(stack, feature, lacks=feature)
    for dev in ("rss", "ntuple"):
        for end in (dev, dev + "p"):
            run("ip", "link", "set", end, "up")
        probe = Probe(stack, dev, dev + "p")
        assert {probe.queue("10.0.0.2", p, "10.0.0.1", 80) for p in SPREAD} == {0, 1, 2, 3}
    for feature in show:
        for other in show:
            want = feature != other
            assert all(r == want for r in works(feature, other)), (feature, other)
        assert all(works("full", feature)), feature
    nic_add(stack, "some", lacks="rings,ntuple")
    assert not any(works("some", "rings") + works("some", "ntuple"))
    assert all(works("some", "rss"))
    assert "not supported" in ethtool("-n", "rss", "rx-flow-hash", "tcp4", check=False)
    assert error_of(nic_param, "lacks", "rss,nonsense") == errno.EINVAL
    nic_param("lacks", "rings,rss")
    with open("/sys/module/rssnic/parameters/lacks") as f:
        assert f.read().strip() == "rss,rings"
    nic_param("lacks", "")


@case
def removal(stack):
    """The module can be removed with devices in several namespaces; they are gone with it."""
    unshare_net(stack)
    nic_wire(stack, "nic-a", "10.8.0")
    nic_wire(stack, "nic-b", "10.8.1", "nic1")
    stream = Stream(stack, "nic-a", "10.8.0.2")
    stream.runs()
    stream.end()
    run("rmmod", "rssnic")
    assert "nic" not in run("ip", "link")
    assert "eth0" not in run("ip", "-n", "nic-a", "link")
    with open("/proc/interrupts") as f:
        assert "rssnic" not in f.read()
    nic_load()


nic_load()
main()
