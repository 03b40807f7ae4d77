#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Unusual and malformed packets: what the kernel answers, and what the server
sees, is the same whether a connection is fastsocket's or the kernel's own; and
packets at random break nothing. PACKETS and SEED select the latter."""

import collections
import os
import random
import select
import struct
import sys
import threading
import time

from scapy.all import (Ether, ICMP, ICMPv6DestUnreach, ICMPv6PacketTooBig, IP, IPv6,
                       IPOption_RR, IPOption_LSRR, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
                       IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Raw, TCP, fragment)

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

PACKETS = int(os.environ.get("PACKETS", 20000))
SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
PORT = 8500
ISS = 1000000           # of ours
OURS = {4: "10.71.0.1", 6: "fd71::1"}
# An address of the other side that its kernel does not know, and does not answer for.
THEIRS = {4: "10.71.0.66", 6: "fd71::66"}


class Wire:
    """The other end of a wire: packets go in and out by hand."""

    def __init__(self, stack, peer="rawpeer"):
        wire(stack, peer, "10.71.0", "raw0")
        run("ip", "addr", "add", "fd71::1/64", "dev", "raw0", "nodad")
        self.our_mac, self.mac = (
            run("ip", *netns, "-o", "link", "show", dev).split("link/ether ")[1].split()[0]
            for netns, dev in (((), "raw0"), (("-n", peer), "eth0")))
        for addr in THEIRS.values():
            run("ip", "neigh", "replace", addr, "lladdr", self.mac, "dev", "raw0",
                "nud", "permanent")
        # What is sent has its checksums, and comes one by one.
        for dev, netns in (("raw0", None), ("eth0", peer)):
            ethtool("-K", dev, "tx", "off", "gso", "off", "tso", "off", "gro", "off",
                    netns=netns)
        with in_netns(peer):
            self.sock = stack.enter_context(socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        self.sock.bind(("eth0", 3))

    def send(self, packet):
        kind = 0x86dd if packet.name == "IPv6" else 0x800
        self.sock.send(bytes(Ether(src=self.mac, dst=self.our_mac, type=kind)) + bytes(packet))

    def replies(self, quiet=0.1, limit=1.0):
        """What comes until nothing has for @quiet seconds."""
        got, end = [], time.monotonic() + limit
        while time.monotonic() < end and select.select([self.sock], [], [], quiet)[0]:
            frame, addr = self.sock.recvfrom(65536)
            if addr[2] == socket.PACKET_OUTGOING:
                continue
            packet = Ether(frame).payload
            if packet.name in ("IP", "IPv6") and packet.dst in THEIRS.values():
                got.append(packet)
        return got


class Peer:
    """One connection's other end: builds its packets, keeps what was answered."""

    def __init__(self, wire_, version, sport, dport=PORT):
        self.wire, self.version = wire_, version
        self.sport, self.dport = sport, dport
        self.their_iss = None       # the kernel's
        self.log = []

    def ip(self, **fields):
        if self.version == 4:
            return IP(**{"src": THEIRS[4], "dst": OURS[4], "id": 1, **fields})
        fields.pop("id", None)      # IPv6 has none
        return IPv6(**{"src": THEIRS[6], "dst": OURS[6], **fields})

    def tcp(self, flags, seq=0, ack=0, **fields):
        """@seq is after ours and @ack after theirs."""
        return TCP(sport=self.sport, dport=self.dport, flags=flags,
                   seq=(ISS + seq) & 0xffffffff,
                   ack=(((self.their_iss or 0) + ack) & 0xffffffff) if "A" in flags else 0,
                   **{"window": 8192, **fields})

    def send(self, *packets):
        """Send, and note what is answered."""
        for packet in packets:
            self.wire.send(packet)
        self.listen()

    def listen(self):
        for packet in self.wire.replies():
            if TCP in packet and packet[TCP].dport == self.sport:
                tcp = packet[TCP]
                if "S" in tcp.flags and self.their_iss is None:
                    self.their_iss = tcp.seq
                seq = (tcp.seq - self.their_iss) & 0xffffffff if self.their_iss is not None else "?"
                if seq != "?" and seq > 1000000:    # another connection's, or none's
                    seq = "elsewhere"
                ack = (tcp.ack - ISS) & 0xffffffff if "A" in tcp.flags else 0
                self.log.append((str(tcp.flags), seq, ack, len(tcp.payload),
                                 [o[0] for o in tcp.options]))
            elif TCP not in packet or packet[TCP].sport != self.dport:
                self.log.append(packet.summary().split(" / ")[1].split(" ")[0])

    def handshake(self, **fields):
        self.send(self.ip(**fields) / self.tcp("S", options=[("MSS", 1400)]))
        self.send(self.ip(**fields) / self.tcp("A", 1, 1))

    def data(self, seq, text, ack=1, flags="PA", **fields):
        return self.ip(**fields) / self.tcp(flags, seq, ack) / Raw(text)


def abortive(sock):
    """Its close() waits for no peer, that may be gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# What fastsocket has to do with a scenario: how many SYNs it gives to a local listener;
# how many packets come to the core of their connection, which are those SYNs, the
# handshakes' ACKs and what the established table finds; how many of its connections the
# table misses. And why, where that is not all of them.
Share = collections.namedtuple("Share", "syns packets missed why", defaults=(0, None))
scenarios = []


def scenario(share, share6=None, any_address=None):
    """The others where they differ: IPv6, and IPv4 at a listener on "::"."""
    def register(func):
        scenarios.append((func, {OURS[4]: share, OURS[6]: share6 or share,
                                 "::": any_address or share}))
        return func
    return register


@scenario(Share(1, 4))
def normal(p):
    p.handshake()
    p.send(p.data(1, b"hello"))
    p.send(p.ip() / p.tcp("FA", 6, 1))


@scenario(Share(1, 2))
def syn_with_data(p):
    p.send(p.ip() / p.tcp("S") / Raw(b"early"))
    p.send(p.data(1, b"hello"))


@scenario(Share(1, 1))
def odd_flags(p):
    for flags in ("SF", "SR", "SFR", "SPU", "SFRPAUEC", "", "F", "FPU", "R", "RA", "A", "SA", "FA", "U"):
        p.sport += 1
        p.their_iss = None
        p.send(p.ip() / p.tcp(flags))


@scenario(Share(1, 9))
def odd_flags_established(p):
    p.handshake()
    for flags in ("SF", "SPU", "", "F", "FPU", "U", "S", "SA", "A"):
        p.send(p.ip() / p.tcp(flags, 1, 1))
    p.send(p.data(1, b"hello"))


@scenario(Share(2, 6))
def bad_checksums(p):
    p.send(p.ip() / p.tcp("S", chksum=0x1234))
    p.handshake()
    p.send(p.ip() / p.tcp("PA", 1, 1, chksum=0x1234) / Raw(b"wrong"))
    p.send(p.ip() / p.tcp("R", 1, chksum=0x1234))
    if p.version == 4:
        p.send(p.data(1, b"wrong", chksum=0x4321))
    p.send(p.data(1, b"right"))


@scenario(Share(13, 18))
def malformed_options(p):
    p.handshake()
    for raw in (b"\x02\x00\x00\x00", b"\x02\x01\x00\x00", b"\x02\x28\x05\xb4", b"\x08\x0a\x00\x00",
                b"\x05\x00\x01\x01", b"\x05\x28\x00\x00", b"\x13\x12\x00\x00", b"\xfe\x02\xfe\xff",
                b"\xff" * 40, b"\x22\x02\x1e\x03", b"\x03\x03\xff\x00", b"\x01" * 40):
        p.sport += 1
        syn = bytes(p.ip() / p.tcp("S", options=[("NOP", None)] * len(raw)))
        syn = syn[:-len(raw)] + raw
        again = IP(syn) if p.version == 4 else IPv6(syn)
        del again[TCP].chksum
        keep, p.their_iss = p.their_iss, None
        p.send(again)
        p.their_iss = keep
    p.sport -= 12
    for raw in (b"\x08\x0a\x00\x00", b"\x05\x0a" + b"\xff" * 8 + b"\x01\x01", b"\x05\x04\x01\x01"):
        packet = bytes(p.ip() / p.tcp("A", 1, 1, options=[("NOP", None)] * len(raw)))
        packet = packet[:-len(raw)] + raw
        again = IP(packet) if p.version == 4 else IPv6(packet)
        del again[TCP].chksum
        p.send(again)
    p.send(p.data(1, b"hello"))


@scenario(Share(1, 5))
def truncated(p):
    p.handshake()
    head = 20 if p.version == 4 else 40
    for base in (p.ip() / p.tcp("S"), p.data(1, b"hello")):
        whole = bytes(base)
        for length in (0, 1, 4, 8, 13, 19):
            # As long as it says, and shorter than it says.
            short = p.ip(proto=6) if p.version == 4 else p.ip(nh=6)
            p.send(short / Raw(whole[head:head + length]))
            p.wire.sock.send(bytes(Ether(src=p.wire.mac, dst=p.wire.our_mac,
                                         type=0x800 if p.version == 4 else 0x86dd)) +
                             whole[:head + length])
            p.listen()
    for offset in (0, 4, 6, 15):
        p.send(p.ip() / p.tcp("PA", 1, 1, dataofs=offset) / Raw(b"hello"))
    p.send(p.data(1, b"hello"))


def fragments(p, packet, size):
    if p.version == 4:
        return fragment(packet, size)
    body = bytes(packet)[40:]
    return [p.ip(nh=44) / IPv6ExtHdrFragment(nh=6, id=7, offset=at // 8,
                                             m=int(at + size < len(body))) /
            Raw(body[at:at + size]) for at in range(0, len(body), size)]


@scenario(Share(1, 2, 1, "fragments are put together after the table has been asked"),
          Share(0, 0, 0, "IPv6 fragments are left to the stock kernel"))
def fragmented(p):
    # IPv6 wants the whole of the plain header in the first one.
    small, large = (8, 16) if p.version == 4 else (24, 24)
    syn = p.tcp("S", options=[("MSS", 1400)] + [("NOP", None)] * 16)
    p.send(*fragments(p, p.ip(id=10) / syn, small))
    p.send(p.ip() / p.tcp("A", 1, 1))
    p.send(*reversed(fragments(p, p.data(1, b"0123456789abcdef" * 4, id=11), large)))
    pieces = fragments(p, p.data(65, b"x" * 64, id=12), 24)
    p.send(pieces[0], pieces[2], pieces[0])             # never complete
    # Or the error would come during another scenario.
    wait_for(lambda: p.listen() or any(isinstance(entry, str) for entry in p.log), 10)


@scenario(Share(1, 14))
def out_of_window(p):
    p.handshake()
    for seq, ack in ((100000, 1), (-100000, 1), (1, 5000), (1, -70000), (0x7fffffff, 1)):
        p.send(p.data(seq, b"outside", ack))
    for seq in (100000, -5, 100):
        p.send(p.ip() / p.tcp("R", seq))
        time.sleep(0.02)
    p.send(p.data(7, b"world"), p.data(1, b"hello "))
    p.send(p.data(4, b"lo wor"))
    p.send(p.ip() / p.tcp("R", 12))
    p.send(p.data(12, b"late"))


@scenario(Share(2, 8))
def again_and_again(p):
    syn = p.ip() / p.tcp("S")
    p.send(syn)
    p.send(syn)
    p.send(p.ip() / p.tcp("S", 500))
    p.send(p.ip() / p.tcp("A", 1, 77))
    p.send(p.ip() / p.tcp("A", 1, 1))
    # The one at 500 has ended the first.
    p.their_iss = None
    p.send(syn)
    p.send(p.ip() / p.tcp("A", 1, 77))
    p.send(p.ip() / p.tcp("A", 1, 1))
    p.send(syn)
    p.send(p.data(1, b"hello"))
    p.send(p.data(1, b"hello"))
    p.send(p.ip() / p.tcp("FA", 6, 1))
    p.send(p.ip() / p.tcp("FA", 6, 1))


@scenario(Share(1, 2))
def end_with_handshake(p):
    p.send(p.ip() / p.tcp("S"))
    p.send(p.ip() / p.tcp("FPA", 1, 1) / Raw(b"all of it"))


@scenario(Share(1, 2))
def reset_in_handshake(p):
    p.send(p.ip() / p.tcp("S"))
    p.send(p.ip() / p.tcp("R", 1))
    p.send(p.ip() / p.tcp("A", 1, 1))


@scenario(Share(1, 3))
def icmp_errors(p):
    p.handshake()
    # About a packet of the kernel's to us.
    if p.version == 4:
        about = IP(src=OURS[4], dst=THEIRS[4]) / TCP(sport=p.dport, dport=p.sport, flags="A",
                                                     seq=(p.their_iss or 0) + 1)
        errors = [ICMP(type=3, code=code) for code in (0, 1, 2, 3, 4, 13)]
        errors += [ICMP(type=3, code=4, nexthopmtu=mtu) for mtu in (1000, 68, 0, 65535)]
        errors += [ICMP(type=11, code=0), ICMP(type=4), ICMP(type=12)]
    else:
        about = IPv6(src=OURS[6], dst=THEIRS[6]) / TCP(sport=p.dport, dport=p.sport, flags="A",
                                                       seq=(p.their_iss or 0) + 1)
        errors = [ICMPv6DestUnreach(code=code) for code in range(5)]
        errors += [ICMPv6PacketTooBig(mtu=mtu) for mtu in (1400, 1280, 500, 0)]
    for error in errors:
        p.send(p.ip() / error / Raw(bytes(about)))
        p.send(p.ip() / error / Raw(bytes(about)[:48]))
        p.send(p.ip() / error / Raw(bytes(about)[:8]))
    p.send(p.data(1, b"hello"))


@scenario(Share(8, 24), Share(0, 0, 0, "extension headers are left to the stock kernel"))
def ip_options(p):
    if p.version == 4:
        heads = [{"options": [IPOption_RR(routers=["0.0.0.0"] * 4)]},
                 {"options": [IPOption_LSRR(routers=["10.71.0.1"])]},
                 {"options": [Raw(b"\x44\x0c\x05\x00" + bytes(8))]}, {"options": [Raw(b"\x07\x00\x00\x00")]},
                 {"options": [Raw(b"\x01" * 40)]}, {"ttl": 0}, {"ttl": 1}, {"tos": 255}, {"id": 0}]
        for head in heads:
            p.sport += 1
            p.their_iss = None
            p.handshake(**head)
            p.send(p.data(1, b"hello", **head))
        return
    for chain in ([IPv6ExtHdrHopByHop()], [IPv6ExtHdrDestOpt()],
                  [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()],
                  [IPv6ExtHdrRouting(addresses=[])], [IPv6ExtHdrRouting(addresses=["fd71::1"], segleft=1)],
                  [IPv6ExtHdrFragment(id=9)], [IPv6ExtHdrDestOpt(), IPv6ExtHdrDestOpt()]):
        def with_chain(rest):
            packet = p.ip()
            for header in chain:
                packet = packet / header.copy()
            return packet / rest
        p.sport += 1
        p.their_iss = None
        p.send(with_chain(p.tcp("S")))
        p.send(with_chain(p.tcp("A", 1, 1)))
        p.send(with_chain(p.tcp("PA", 1, 1) / Raw(b"hello")))


@scenario(Share(2, 5), Share(5, 8), any_address=Share(5, 8))
def odd_addresses(p):
    if p.version == 4:
        sources = ("127.0.0.1", "10.71.0.1", "10.71.0.255", "224.0.0.1", "255.255.255.255", "0.0.0.0")
        targets = ("10.71.0.255", "224.0.0.1", "255.255.255.255", "127.0.0.1", "10.71.0.77")
    else:
        sources = ("::1", "fd71::1", "ff02::1", "::", "::ffff:10.71.0.66", "::ffff:127.0.0.1")
        targets = ("ff02::1", "::1", "::ffff:10.71.0.1", "fd71::77")
    for source in sources:
        p.send(p.ip(src=source) / p.tcp("S"))
    for target in targets:
        p.send(p.ip(dst=target) / p.tcp("S"))
    p.handshake()
    for source in sources:
        p.send(p.ip(src=source) / p.tcp("RA", 1, 1))
    p.send(p.data(1, b"hello"))


def observe(wire_, version, addr, local, func):
    """What a scenario is answered, what the server has seen, and fastsocket's share."""
    with contextlib.ExitStack() as stack:
        parent = listener(stack, addr, PORT)
        listeners = [spawn(stack, parent, 0), parent] if local else [parent]
        # A port of its own each time, or TIME_WAIT would have its say.
        observe.sport += 64
        peer = Peer(wire_, version, observe.sport)
        base = peer.sport
        d = Delta()
        func(peer)
        share = Share(d.syn_local, d.passive_local, d.passive_missed)
        seen = []
        for sock in listeners:
            conn = take(sock, 0)
            while conn:
                stack.callback(conn.close)
                conn.setblocking(False)
                abortive(conn)
                try:
                    data = conn.recv(1000)
                except OSError as err:
                    data = errno.errorcode[err.errno]
                try:
                    seen.append((conn.getpeername()[1] - base, data))
                except OSError as err:
                    seen.append((errno.errorcode[err.errno], data))
                conn = take(sock, 0)
        stack.close()
        peer.wire.replies()
        return peer.log, sorted(seen, key=str), share


observe.sport = 10000


def alike(version, addr, what):
    def compare(sides, func, share):
        """What is wrong, in words."""
        got = {}
        for how, wire_ in sides.items():
            with in_netns(how):
                got[how] = observe(wire_, version, addr, how == "fastsocket", func)
        stock, ours = got["stock"], got["fastsocket"]
        print("# %s: %d answers, %d connections, of fastsocket's: %d SYNs, %d packets, %d missed" % (
            func.__name__, len(ours[0]), len(ours[1]), *ours[2][:3]), flush=True)
        wrong = []
        if stock[:2] != ours[:2]:
            wrong += ["%s: %s, %s" % (how, *got[how][:2]) for how in got]
        if ours[2][:3] != share[:3]:
            wrong.append("fastsocket's share is not %d, %d, %d" % share[:3])
        if any(entry[0] == "SA" for entry in stock[0]) and not share.syns and not share.why:
            wrong.append("a SYN is answered, of which fastsocket knows nothing")
        return wrong

    def check(stack):
        sides = {}
        # Where there has never been a local listener, the module has no hook at all.
        for how in ("stock", "fastsocket"):
            new_netns(stack, how)
            with in_netns(how):
                run("ip", "link", "set", "lo", "up")
                sysctl("net.ipv4.tcp_challenge_ack_limit", 1000000)
                sysctl("net.ipv4.tcp_invalid_ratelimit", 0)
                sysctl("net.ipv4.icmp_ratelimit", 0)
                sysctl("net.ipv6.icmp.ratelimit", 0)
                sysctl("net.ipv4.conf.all.accept_source_route", 1)
                sysctl("net.ipv4.ipfrag_time", 2)
                sysctl("net.ipv6.ip6frag_time", 2)
                sides[how] = Wire(stack, how + "peer")
        stack.enter_context(on_cpu(0))
        failed = []
        for func, shares in scenarios:
            # Under emulation a reply may come late: what is wrong once is to be right twice.
            tries = [compare(sides, func, shares[addr])]
            if tries[0]:
                tries += [compare(sides, func, shares[addr]) for _ in range(2)]
            for n, wrong in enumerate(tries, 1):
                for line in wrong:
                    print("# %s, try %d: %s" % (func.__name__, n, line), flush=True)
            if any(tries[1:]):
                failed.append(func.__name__)
        with in_netns("stock"):
            assert not any(stats().values()), stats()
        assert not failed, failed
    check.__doc__ = "%s: bad checksums, options, fragments, truncated headers, flags, sequence numbers and ICMP errors are answered as by the stock kernel" % what
    check.__name__ = what.replace(" ", "_")
    return check


case(alike(4, OURS[4], "IPv4"))
case(alike(6, OURS[6], "IPv6"))
case(alike(4, "::", "IPv4 at a dual-stack listener"))


@case
def simultaneous_open(stack):
    """Simultaneous open with a core-local connection ends in a connection."""
    unshare_net(stack)
    wire_ = Wire(stack)
    steer(socket.if_nametoindex("raw0"), STEER_PORT, range(4))
    stack.enter_context(on_cpu(0))
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        sock = stack.enter_context(socket.socket(family))
        abortive(sock)
        core_port(sock, THEIRS[version], 9000)
        sock.setblocking(False)
        assert sock.connect_ex((THEIRS[version], 9000)) == errno.EINPROGRESS
        wire_.replies()
        peer = Peer(wire_, version, 9000, port_of(sock))
        d = Delta()
        peer.send(peer.ip() / peer.tcp("S"))
        assert [entry[0] for entry in peer.log] == ["SA"], peer.log
        peer.send(peer.ip() / peer.tcp("SA", 0, 1))
        peer.send(peer.data(1, b"hello"))
        assert sock.recv(10) == b"hello"
        # The table finds all but the SYN.
        assert (d.active_local, d.active_missed, d.active_remote) == (2, 0, 0)


def checksum(data):
    if len(data) & 1:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def fixed(packet):
    """With checksums that are right, where there is a place for them."""
    packet = bytearray(packet)
    if packet and packet[0] >> 4 == 4 and len(packet) >= 40:
        head = (packet[0] & 15) * 4
        if 20 <= head <= len(packet) - 20:
            packet[10:12] = b"\0\0"
            packet[10:12] = struct.pack("!H", checksum(bytes(packet[:head])))
            packet[head + 16:head + 18] = b"\0\0"
            pseudo = bytes(packet[12:20]) + struct.pack("!HH", 6, len(packet) - head)
            packet[head + 16:head + 18] = struct.pack("!H", checksum(
                pseudo + bytes(packet[head:])))
    elif len(packet) >= 60:
        packet[56:58] = b"\0\0"
        pseudo = bytes(packet[8:40]) + struct.pack("!II", len(packet) - 40, 6)
        packet[56:58] = struct.pack("!H", checksum(pseudo + bytes(packet[40:])))
    return bytes(packet)


def mutated(packet, rng):
    packet = bytearray(packet)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        kind = rng.random()
        at = rng.randrange(len(packet))
        if kind < 0.45:
            packet[at] ^= 1 << rng.randrange(8)
        elif kind < 0.7:
            packet[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff, rng.randrange(256)))
        elif kind < 0.8 and len(packet) > 1:
            del packet[at:at + rng.randrange(1, 9)]
        elif kind < 0.9:
            packet[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            del packet[max(at, 1):]
        packet = packet or bytearray(1)
    return fixed(packet) if rng.random() < 0.8 else bytes(packet)


def alive(sock):
    """Not TCP_CLOSE."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 7


def only_live(victims, others, most):
    """In the tables are those connections that still are, and nothing else has ever been."""
    servers = [peer.server for peer in victims] + others
    assert most == len(servers), most
    wait_for(lambda: filed() == sum(map(alive, servers)))
    assert {row["cpu"] for row in table("established", "1") if row["connections"] != "0"} == {"0"}
    # So that no late ACK of theirs is counted.
    for server in others:
        server.close()
    for peer in victims:
        d, was = Delta(), alive(peer.server)
        peer.send(peer.ip() / peer.tcp("A", -1, 1))
        found = (d.passive_local, d.passive_missed, d.passive_remote)
        assert found == (int(was), 0, 0), (peer.sport, was, found)


@case
def at_random(stack):
    """Packets at random, near to right, at listeners and live connections: those of others go on unharmed, and nothing stays behind."""
    print("# SEED=%d, %d packets" % (SEED, PACKETS), flush=True)
    rng = random.Random(SEED)
    unshare_net(stack)
    wire_ = Wire(stack)
    run("ip", "-n", "rawpeer", "addr", "add", "fd71::2/64", "dev", "eth0", "nodad")
    victims, bystanders = [], []
    stop = threading.Event()
    rounds, wrong, most = [0], [], 0
    with contextlib.ExitStack() as inner:
        inner.enter_context(on_cpu(0))
        for version in (4, 6):
            parent = listener(inner, OURS[version], PORT)
            local = spawn(inner, parent, 0)
            for n in range(4):
                peer = Peer(wire_, version, 20000 + n)
                peer.handshake()
                peer.server = inner.enter_context(local.take())
                abortive(peer.server)
                victims.append(peer)
            for _ in range(2):
                with in_netns("rawpeer"):
                    sock = connect(inner, OURS[version], PORT, 0)
                server = take(local) or take(parent)
                abortive(server)
                bystanders.append((sock, inner.enter_context(server)))

        def watch():
            try:
                while not stop.is_set():
                    for sock, server in bystanders:
                        talk(sock, server)
                        rounds[0] += 1
                    time.sleep(0.02)
            except (OSError, AssertionError) as err:
                wrong.append(repr(err))
        assert filed() == len(victims) + len(bystanders)
        watching = threading.Thread(target=watch)
        watching.start()
        try:
            bases = []
            for peer in victims:
                bases += [bytes(packet) for packet in (
                    peer.data(1, b"x" * 20), peer.ip() / peer.tcp("A", 1, 1),
                    peer.ip() / peer.tcp("FA", 1, 1), peer.ip() / peer.tcp("R", 9000),
                    peer.ip() / peer.tcp("A", 1, 1, options=[
                        ("Timestamp", (1, 2)), ("SAck", (5, 9)), ("NOP", None), ("NOP", None)]))]
                stranger = Peer(wire_, peer.version, peer.sport + 1000)
                bases += [bytes(stranger.ip() / stranger.tcp("S", options=[
                    ("MSS", 1400), ("SAckOK", b""), ("WScale", 7), ("Timestamp", (1, 0))]))]
            head = {v: bytes(Ether(src=wire_.mac, dst=wire_.our_mac, type=kind))
                    for v, kind in ((4, 0x800), (6, 0x86dd))}
            for n in range(PACKETS):
                base = rng.choice(bases)
                wire_.sock.send(head[base[0] >> 4] + mutated(base, rng))
                if n % 64 == 0:
                    most = max(most, filed())
                    while select.select([wire_.sock], [], [], 0)[0]:
                        wire_.sock.recv(65536)
                    for peer in victims:
                        try:
                            peer.server.setblocking(False)
                            peer.server.recv(65536)
                        except OSError:
                            pass
        finally:
            stop.set()
            watching.join()
        assert not wrong, wrong
        print("# %d rounds of the bystanders, %d connections filed" % (rounds[0], filed()))
        assert rounds[0] > 10
        only_live(victims, [server for _, server in bystanders], most)
    run("ip", "link", "del", "raw0")
    wait_for(lambda: not filed(), 60)


load()
main()
