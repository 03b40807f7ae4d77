#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""fastsocket nic: what it sets on a device, that packets then go where they
are to go, and that reset puts all of it back."""

import glob
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

TOOL = os.environ["FASTSOCKET_TOOL"]
STATES = "/run/fastsocket/nic/*.json"


def nic(*args, status=0, netns=None, **shim):
    """Run the command; returns what it prints on stdout and on stderr."""
    where = ("ip", "netns", "exec", netns) if netns else ()
    env = dict(os.environ, **{k: str(v) for k, v in shim.items()})
    if shim:
        env["LD_PRELOAD"] = os.environ["FASTSOCKET_NIC_SHIM"]
    done = subprocess.run((*where, TOOL, "nic", *args), text=True, check=False, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == status, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout, done.stderr


def show(dev, netns=None):
    return json.loads(nic("show", dev, "--json", netns=netns)[0])


def lines(text, *words):
    """The lines that have all of @words."""
    return [line for line in text.splitlines() if all(w in line for w in words)]


def read(path):
    try:
        with open(path) as f:
            return f.read().strip()
    except OSError as error:
        return os.strerror(error.errno)


def dump(dev):
    """All that the command may touch, as others see it."""
    seen = {path: read(path) for path in sorted(
        glob.glob("/sys/class/net/%s/queues/*/[rx]ps_*" % dev) +
        glob.glob("/proc/irq/*/smp_affinity_list"))}
    for option in ("-l", "-g", "-c", "-k", "-x", "-n"):
        seen["ethtool " + option] = ethtool(option, dev, check=False)
    for flow in ("tcp4", "tcp6"):
        seen[flow] = ethtool("-n", dev, "rx-flow-hash", flow, check=False)
    seen["xdp"] = re.findall("xdp.*", run("ip", "link", "show", dev))
    return seen


def same(before, after):
    for key in before.keys() | after.keys():
        assert before.get(key) == after.get(key), (key, before.get(key), after.get(key))


def card(stack, dev="nic0", up=True, **how):
    """A pair of cards in this namespace; the other end is @dev + "p"."""
    nic_add(stack, dev, **how)
    stack.callback(forget)
    if up:
        run("ip", "link", "set", dev, "up")
        run("ip", "link", "set", dev + "p", "up")


def forget():
    for path in glob.glob(STATES):
        os.unlink(path)


def unusual(dev):
    """Settings that are nobody's default."""
    ethtool("-L", dev, "combined", "2")
    ethtool("-G", dev, "rx", "512")
    ethtool("-C", dev, "rx-usecs", "7")
    ethtool("-X", dev, "weight", "3", "1", "hkey", ":".join("%02x" % (3 * n) for n in range(40)))
    ethtool("-K", dev, "ntuple", "on")
    ethtool("-N", dev, "flow-type", "tcp4", "dst-port", "40000", "action", "1")
    ethtool("-N", dev, "rx-flow-hash", "tcp4", "sd")
    irq_affinity(nic_irqs(dev)[0], "3")
    irq_affinity(nic_irqs(dev)[1], "1-2")
    for name, value in (("tx-0/xps_cpus", "c"), ("rx-0/rps_cpus", "6"),
                        ("rx-1/rps_flow_cnt", "256")):
        with open("/sys/class/net/%s/queues/%s" % (dev, name), "w") as f:
            f.write(value)


def there_and_back(stack, mode, *wanted):
    card(stack)
    unusual("nic0")
    before = dump("nic0")
    dry, notes = nic("setup", "nic0", "--steer", mode, "--dry-run")
    assert "dry run: nothing has been changed" in notes
    same(before, dump("nic0"))
    assert not glob.glob(STATES)

    real, notes = nic("setup", "nic0", "--steer", mode)
    assert real == dry, (real, dry)
    assert "neither the settings nor this file survive a reboot" in notes
    for words in wanted:
        assert lines(real, *words), (words, real)
    assert all(re.match("set  .* -> .*", line) for line in real.splitlines()), real
    seen = show("nic0")
    assert seen["steering"] == mode and glob.glob(STATES) == [seen["saved"]]
    assert seen["channels"]["combined"] == 4 and seen["rx_ring"] == 2048
    assert seen["adaptive_rx"] == "off" and seen["rx_usecs"] == 20
    assert [(q["irqs"][0]["cpus"], q["xps_cpus"]) for q in seen["queues"]] == \
        [(str(n), str(n)) for n in range(4)], seen["queues"]
    assert [irq_affinity(irq) for irq in nic_irqs("nic0")] == ["0", "1", "2", "3"]
    assert "Ring: 1" not in ethtool("-n", "nic0", "rule", "5", check=False)

    again, notes = nic("setup", "nic0", "--steer", mode)
    assert again == "" and "all of it is set already" in notes

    undone, notes = nic("reset", "nic0")
    assert "all is as it was" in notes
    assert all(re.match("set  .* -> .*", line) for line in undone.splitlines()), undone
    same(before, dump("nic0"))
    assert not glob.glob(STATES)
    return seen


@case
def ntuple(stack):
    """--steer ntuple: the lines of --dry-run, which changes nothing, are those of setup; a rule per port class and family; reset restores exactly, and other rules are not touched."""
    seen = there_and_back(
        stack, "ntuple", ("combined channels 2 -> 4",), ("rx ring 512 -> 2048",),
        ("rx-usecs 7 -> 20",), ("IRQ ", "(nic0-TxRx-0) affinity 3 -> 0",),
        ("tx queue 0 XPS CPUs 2-3 -> 0",), ("rx queue 0 RPS CPUs 1-2 -> none",),
        ("rx queue 1 RFS flows 256 -> 0",), ("RSS table as saved -> default",),
        ("rule tcp6 class 3 none -> dst-port 0x8003/0x8003 to queue 3",))
    assert [(r["flow"], r["dst_port"], r["mask"], r["queue"]) for r in seen["rules"]] == \
        [(flow, 0x8000 + c, 0x8003, c) for flow in ("tcp4", "tcp6") for c in range(4)]
    assert [q["rps_cpus"] for q in seen["queues"]] == [""] * 4
    assert seen["rss_table"] == "default" and seen["xdp"] is None


@case
def rss(stack):
    """--steer rss: both ports are hashed, the table is equal, there is no rule; dry-run and reset as for ntuple."""
    seen = there_and_back(stack, "rss", ("rx-flow-hash-tcp4 sd -> sdfn",),
                          ("RSS table as saved -> default",))
    assert not seen["rules"] and seen["xdp"] is None
    assert seen["hash_tcp4"] == "sdfn" and seen["hash_tcp6"] == "sdfn"
    assert seen["rss_table"] == "default"


@case
def xdp(stack):
    """--steer xdp: the program is on the device, on the generic path where the driver has no other; dry-run and reset as for ntuple."""
    seen = there_and_back(stack, "xdp", ("XDP program none -> fastsocket_xdp to CPUs 0-3",),
                          ("rx queue 0 RPS CPUs 1-2 -> none",))
    assert seen["xdp"]["ours"] and seen["xdp"]["cpus"] == "0-3"
    assert not seen["rules"]


@case
def off(stack):
    """--steer off: queues, interrupts and XPS only; RPS, the table and what is hashed stay; dry-run and reset as for ntuple."""
    seen = there_and_back(stack, "off", ("IRQ ", "affinity 3 -> 0"))
    assert seen["queues"][0]["rps_cpus"] == "1-2" and seen["hash_tcp4"] == "sd"
    assert seen["rss_table"] == "custom" and not seen["rules"] and seen["xdp"] is None


@case
def rules_steer(stack):
    """With ntuple, ethtool shows each rule, and packets to a port of class c come by queue c to CPU c (IPv4, IPv6); ports below 32768 stay with RSS."""
    nic_wire(stack, "far", "10.9.1")
    stack.callback(forget)
    nic("setup", "nic0", "--steer", "ntuple")
    text = ethtool("-n", "nic0")
    assert "Total 8 rules" in text and \
        sorted(re.findall(r"Dest port: (\d+) mask: 0x7ffc", text)) == \
        sorted(2 * [str(0x8000 + c) for c in range(4)]), text
    for addr in ("10.9.1.1", subnet6("10.9.1") + "1"):
        for c in range(4):
            server = listener(stack, addr, port=0x8000 + 400 + c)
            before = queue_counts("nic0")
            with in_netns("far"):
                client = connect(stack, addr, port_of(server))
            accepted = take(server)
            grown = [b - a for a, b in zip(before, queue_counts("nic0"))]
            assert grown[c] >= 2, (addr, c, grown)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU) == c
            client.close()
    server = listener(stack, "10.9.1.1", port=8080)
    used = set()
    for sport in SPREAD:
        with in_netns("far"):
            connect(stack, "10.9.1.1", 8080, sport=sport)
        used.add(take(server).getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU))
    assert len(used) >= 3, used


@case
def auto_order(stack):
    """auto takes ntuple, then rss, then xdp, then off, and says in a sentence why not the better ones."""
    card(stack)
    assert "steering: ntuple" in nic("setup", "nic0")[1]
    card(stack, "nic1", lacks="ntuple")
    notes = nic("setup", "nic1")[1]
    assert "steering: rss" in notes
    assert "no steering by ntuple: it has no ntuple filters" in notes, notes
    card(stack, "nic2", lacks="ntuple,rss")
    notes = nic("setup", "nic2")[1]
    assert "steering: xdp" in notes and "no steering by rss: it does not show" in notes, notes
    foreign_xdp(stack, "nic3", lambda: card(stack, "nic3", lacks="ntuple,rss"))
    notes = nic("setup", "nic3")[1]
    assert "steering: off" in notes and "which is not fastsocket's" in notes, notes


@case
def lacking(stack):
    """A device without channels, rings or coalescing is set up with what it has; one queue makes it xdp."""
    card(stack, lacks="channels,coalesce,rings")
    before = dump("nic0")
    text = nic("setup", "nic0", "--steer", "ntuple")[0]
    assert not lines(text, "channels") and not lines(text, "ring"), text
    assert not lines(text, "usecs") and lines(text, "IRQ")
    nic("reset", "nic0")
    same(before, dump("nic0"))
    card(stack, "nic1", queues=1)
    notes = nic("setup", "nic1")[1]
    assert "steering: xdp" in notes and "it has one rx queue only" in notes, notes
    _, notes = nic("setup", "nic1", "--steer", "rss", status=1)
    assert "cannot steer by rss" in notes and "nothing has been changed" in notes


@case
def fewer_queues(stack):
    """With more CPUs than queues, those without are named; with --cpus, only those CPUs get queues."""
    card(stack, queues=2)
    notes = nic("setup", "nic0", "--steer", "ntuple")[1]
    assert "nothing is received on CPUs 2-3" in notes and "--steer xdp reaches" in notes
    seen = show("nic0")
    assert [q["xps_cpus"] for q in seen["queues"]] == ["0,2", "1,3"]
    assert [r["mask"] for r in seen["rules"]] == [0x8001] * 4
    card(stack, "nic1")
    nic("setup", "nic1", "--cpus", "1,3", "--steer", "ntuple")
    seen = show("nic1")
    assert seen["channels"]["combined"] == 2
    assert [q["irqs"][0]["cpus"] for q in seen["queues"]] == ["1", "3"]
    for cpus, status, why in (("0-x", 2, "wants a list"), ("", 2, "names no CPU"),
                              ("9", 1, "CPU 9 of --cpus is not online")):
        _, notes = nic("setup", "nic1", "--cpus", cpus, status=status)
        assert why in notes, notes


@case
def second_setup(stack):
    """A second setup in another mode takes the first one's steering away, and reset goes back to what was before the first."""
    card(stack)
    unusual("nic0")
    before = dump("nic0")
    nic("setup", "nic0", "--steer", "ntuple")
    text = nic("setup", "nic0", "--steer", "xdp")[0]
    assert lines(text, "rule tcp4 class 0 dst-port", "-> none")
    assert "Total 1 rules" in ethtool("-n", "nic0")
    assert show("nic0")["xdp"]["ours"]
    text = nic("setup", "nic0", "--steer", "off", "--cpus", "0-1")[0]
    assert lines(text, "XDP program fastsocket_xdp", "-> none")
    # What only steering needed is as it was found.
    assert lines(text, "rx queue 0 RPS CPUs none -> 1-2")
    nic("setup", "nic0", "--steer", "rss")
    nic("reset", "nic0")
    same(before, dump("nic0"))


def read_only(stack, path):
    run("mount", "--bind", path, path)
    stack.callback(run, "umount", path, check=False)
    run("mount", "-o", "remount,bind,ro", path)


@case
def undo(stack):
    """A failure midway is told, and undone: all is as before, nothing stays saved; after a second setup's, the first one's settings are there."""
    card(stack)
    unusual("nic0")
    before = dump("nic0")
    path = "/proc/irq/%d/smp_affinity_list" % nic_irqs("nic0")[1]
    read_only(stack, path)
    text, notes = nic("setup", "nic0", status=1)
    assert "(nic0-TxRx-1) affinity: Read-only file system; undoing" in notes, notes
    assert "nothing has been changed" in notes
    assert lines(text, "undo", "combined channels 4 -> 2"), text
    same(before, dump("nic0"))
    assert not glob.glob(STATES)
    run("umount", path)

    nic("setup", "nic0", "--steer", "ntuple")
    middle = dump("nic0")
    saved = read(glob.glob(STATES)[0])
    read_only(stack, path)
    nic("setup", "nic0", "--steer", "rss", "--cpus", "2-3", status=1)
    after = dump("nic0")
    # The driver chooses where rules go.
    for seen in (middle, after):
        seen["ethtool -n"] = sorted(re.findall("Dest port.*", seen["ethtool -n"]))
    same(middle, after)
    assert json.loads(saved)["original"] == json.loads(read(glob.glob(STATES)[0]))["original"]
    run("umount", path)
    nic("reset", "nic0")
    same(before, dump("nic0"))


@case
def others_rules(stack):
    """A rule that somebody has put in the place of ours is not removed."""
    card(stack)
    nic("setup", "nic0", "--steer", "ntuple")
    where = str(show("nic0")["rules"][2]["location"])
    ethtool("-N", "nic0", "delete", where)
    ethtool("-N", "nic0", "flow-type", "tcp4", "dst-port", "443", "action", "0", "loc", where)
    _, notes = nic("reset", "nic0")
    assert "ntuple filters stay on, for 1 rule that setup has not made" in notes, notes
    text = ethtool("-n", "nic0")
    assert "Total 1 rules" in text and "Dest port: 443 " in text, text


def bpf(cmd, attr):
    buf = ctypes.create_string_buffer(attr, 128)
    ret = libc.syscall(321, cmd, buf, len(buf))
    if ret < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return ret


def foreign_xdp(stack, dev, make=lambda: None):
    """Somebody else's XDP program, which passes all; returns its id."""
    make()
    code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xb7, 0, 0, 2, 0x95, 0, 0, 0))
    gpl = ctypes.create_string_buffer(b"GPL")
    fd = bpf(5, struct.pack("IIQQ", 6, 2, ctypes.addressof(code), ctypes.addressof(gpl)))
    path = "/sys/fs/bpf/foreign-" + dev
    name = ctypes.create_string_buffer(path.encode())
    bpf(6, struct.pack("QI", ctypes.addressof(name), fd))
    stack.callback(os.unlink, path)
    os.close(fd)
    run("ip", "link", "set", "dev", dev, "xdpgeneric", "pinned", path)
    return re.search(r"prog/xdp id (\d+)", run("ip", "link", "show", dev)).group(1)


def veth(stack, name, subnet, here=False):
    """As wire(); with @here the other end is in this namespace at first, without checksums left to do."""
    stack.callback(forget)
    if not here:
        wire(stack, name, subnet)
        return
    run("ip", "netns", "add", name)
    stack.callback(run, "ip", "netns", "del", name)
    run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "eth0")
    ethtool("-K", "eth0", "tx", "off")
    run("ip", "addr", "add", subnet + ".1/24", "dev", "wire")
    run("ip", "link", "set", "wire", "up")


def xdp_moves(stack, subnet):
    used = set()
    for c in range(4):
        server = listener(stack, subnet + ".1", port=0x8000 + 100 + c)
        for cpu in (0, 3):
            with in_netns("far"):
                client = connect(stack, subnet + ".1", port_of(server), cpu)
            accepted = take(server)
            got = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU)
            assert got == c, (c, cpu, got)
            talk(client, accepted)
    server = listener(stack, subnet + ".1", port=8080)
    for _ in range(24):
        with in_netns("far"):
            client = connect(stack, subnet + ".1", 8080, 1)
        accepted = take(server)
        got = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU)
        with on_cpu(2):
            client.sendall(b"x")
        time.sleep(0.02)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU) == got
        used.add(got)
    assert len(used) >= 3, used


@case
def xdp_generic(stack):
    """On a veth (auto: no interrupts, no rules), XDP moves packets to the CPU of their port's class and spreads the others by flow, on the generic path, with checksums that still hold."""
    veth(stack, "far", "10.9.2")
    before = dump("wire")
    text, notes = nic("setup", "wire")
    assert "steering: xdp" in notes and "no interrupts that can be found" in notes, notes
    assert "generic path: the other end of a veth leaves checksums" in notes
    assert show("wire")["xdp"]["path"] == "generic" and "xdpgeneric" in run("ip", "link", "show", "wire")
    xdp_moves(stack, "10.9.2")
    # What is no TCP goes on as it is.
    run("ip", "netns", "exec", "far", "ping", "-c", "1", "-W", "5", "10.9.2.1", check=False)
    nic("reset", "wire")
    same(before, dump("wire"))


@case
def xdp_native(stack):
    """The same on the native path, which is taken where it can be; IPv6 as well."""
    veth(stack, "far", "10.9.3", here=True)
    nic("setup", "wire", "--steer", "xdp")
    seen = show("wire")
    assert seen["xdp"]["path"] == "native", seen["xdp"]
    run("ip", "link", "set", "eth0", "netns", "far")
    run("ip", "-n", "far", "addr", "add", "10.9.3.2/24", "dev", "eth0")
    run("ip", "-n", "far", "link", "set", "eth0", "up")
    assert "tx-checksum-ip-generic: off" in ethtool("-k", "eth0", netns="far")
    xdp_moves(stack, "10.9.3")
    for ns, host in (((), 1), (("-n", "far"), 2)):
        run("ip", *ns, "addr", "add", "fd00:9:3::%d/64" % host, "dev",
            "eth0" if ns else "wire", "nodad")
    for c in range(4):
        server = listener(stack, "fd00:9:3::1", port=0x8000 + 200 + c)
        with in_netns("far"):
            connect(stack, "fd00:9:3::1", port_of(server), 0)
        got = take(server).getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU)
        assert got == c, (c, got)
    nic("reset", "wire")
    assert "xdp" not in run("ip", "link", "show", "wire")


@case
def xdp_offline(stack):
    """Packets for a CPU that has gone offline still arrive."""
    veth(stack, "far", "10.9.4")
    nic("setup", "wire", "--steer", "xdp")
    path = "/sys/devices/system/cpu/cpu3/online"
    with open(path, "w") as f:
        f.write("0")
    try:
        server = listener(stack, "10.9.4.1", port=0x8003)
        with in_netns("far"):
            client = connect(stack, "10.9.4.1", 0x8003, 0)
        talk(client, take(server))
    finally:
        with open(path, "w") as f:
            f.write("1")
    _, notes = nic("setup", "wire", "--cpus", "0-2", "--steer", "xdp")
    assert show("wire")["xdp"]["cpus"] == "0-2"


@case
def foreign_program(stack):
    """An XDP program of somebody else is never replaced or detached: an error with --steer xdp, the next mode with auto."""
    veth(stack, "far", "10.9.5")
    prog = foreign_xdp(stack, "wire")
    before = dump("wire")
    _, notes = nic("setup", "wire", "--steer", "xdp", status=1)
    assert "XDP program %s, which is not fastsocket's" % prog in notes, notes
    assert "nothing has been changed" in notes
    same(before, dump("wire"))
    assert "steering: off" in nic("setup", "wire")[1]
    seen = show("wire")
    assert seen["xdp"]["id"] == int(prog) and not seen["xdp"]["ours"]
    nic("reset", "wire")
    same(before, dump("wire"))


@case
def foreign_after(stack):
    """reset leaves a program alone that has taken the place of ours."""
    veth(stack, "far", "10.9.6")
    nic("setup", "wire", "--steer", "xdp")
    run("ip", "link", "set", "dev", "wire", "xdpgeneric", "off")
    prog = foreign_xdp(stack, "wire")
    nic("reset", "wire")
    assert "prog/xdp id %s " % prog in run("ip", "link", "show", "wire")


@case
def show_is_json(stack):
    """show and show --json say the same."""
    card(stack)
    nic("setup", "nic0", "--steer", "ntuple")
    text = nic("show", "nic0")[0]
    seen = show("nic0")
    assert "nic0: driver rssnic, up, steering ntuple" in text
    for queue in seen["queues"]:
        irq = queue["irqs"][0]
        assert re.search(r"^ *%d +%d +%s +%s +%s +none +0$" % (
            queue["queue"], irq["irq"], irq["name"], irq["cpus"], queue["xps_cpus"]),
            text, re.M), (queue, text)
        assert irq_affinity(irq["irq"]) == irq["cpus"]
    for rule in seen["rules"]:
        assert "rule %d: %s dst-port %#x/%#x to queue %d" % (
            rule["location"], rule["flow"], rule["dst_port"], rule["mask"], rule["queue"]) in text
    assert "saved in " + seen["saved"] in text
    for warning in seen["warnings"]:
        assert "warning: " + warning in text
    assert ("rx ring %d; adaptive-rx %s, rx-usecs %d" % (
        seen["rx_ring"], seen["adaptive_rx"], seen["rx_usecs"])) in text


@case
def path_warnings(stack):
    """setup and show warn of conntrack that follows connections, and of netfilter chains."""
    wire(stack, "far", "10.9.7")
    stack.callback(forget)
    far = ("ip", "netns", "exec", "far")
    notes = nic("show", "eth0", netns="far")[0]
    assert "warning" not in notes, notes
    run(*far, "nft", "add table inet t; add chain inet t in { type filter hook input priority 0; }; add rule inet t in ct state new accept")
    server = listener(stack, "10.9.7.1")
    with in_netns("far"):
        connect(stack, "10.9.7.1", port_of(server))
        server = listener(stack, "10.9.7.2")
    connect(stack, "10.9.7.2", port_of(server))
    for text in (nic("setup", "eth0", netns="far")[1], nic("show", "eth0", netns="far")[0]):
        assert lines(text, "warning: conntrack follows", "notrack"), text
        assert lines(text, "warning: 1 netfilter chain runs", "inet t in"), text
    assert len(show("eth0", netns="far")["warnings"]) == 2
    nic("reset", "eth0", netns="far")


def irqbalance_setup(pid, request=b"setup"):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.connect("/run/irqbalance/irqbalance%d.sock" % pid)
        s.sendmsg([request], [(socket.SOL_SOCKET, 2, struct.pack("iii", os.getpid(), 0, 0))])
        return s.makefile().read()


@case
def irqbalance(stack):
    """A running irqbalance is told to keep away from the device's interrupts beside those it left alone before, and reset tells it the former list; without its socket, the sentence is what to configure. One that answers too late goes on, and holds up no other command. A user's process of that name is not taken for it."""
    os.makedirs("/run/irqbalance", exist_ok=True)
    shutil.copy("/bin/sleep", "/tmp/irqbalance")
    other = subprocess.Popen([*NOBODY, "/tmp/irqbalance", "1000"])
    stack.callback(other.wait)
    stack.callback(other.kill)
    daemon = subprocess.Popen(["irqbalance", "--foreground"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    def end():
        if daemon.poll() is not None:
            print("# irqbalance has ended by itself: %d" % daemon.returncode)
        daemon.kill()
        daemon.wait()

    stack.callback(end)
    path = "/run/irqbalance/irqbalance%d.sock" % daemon.pid
    wait_for(lambda: os.path.exists(path), 20)
    card(stack)
    irqs = nic_irqs("nic0")
    irqbalance_setup(daemon.pid, b"settings ban irqs 1 8")
    text, notes = nic("setup", "nic0", "--steer", "ntuple")
    assert lines(text, "irqbalance (pid %d) banned IRQs 1 8 -> IRQs of the device" % daemon.pid), text
    assert "--banirq=%d" % irqs[3] in notes and "/etc/default/irqbalance" in notes
    banned = {int(n) for n in re.findall(r"IRQ (\d+)", irqbalance_setup(daemon.pid))}
    assert banned == {1, 8} | set(irqs), (banned, irqs)
    assert nic("setup", "nic0", "--steer", "ntuple")[0] == ""
    nic("reset", "nic0")
    banned = {int(n) for n in re.findall(r"IRQ (\d+)", irqbalance_setup(daemon.pid))}
    assert banned == {1, 8}, banned
    os.kill(daemon.pid, signal.SIGSTOP)
    notes = nic("setup", "nic0", "--steer", "ntuple")[1]
    again = nic("setup", "nic0", "--steer", "ntuple")[1]
    os.kill(daemon.pid, signal.SIGCONT)
    assert "does not answer" in notes and "does not answer" in again, (notes, again)
    time.sleep(1)
    assert daemon.poll() is None, "the answer that came late has killed it"
    nic("reset", "nic0")
    full = list(range(200, 319))
    irqbalance_setup(daemon.pid, ("settings ban irqs " + " ".join(map(str, full))).encode())
    notes = nic("setup", "nic0", "--steer", "ntuple")[1]
    assert "cannot be told" in notes and "takes no list as long as this" in notes, notes
    banned = {int(n) for n in re.findall(r"IRQ (\d+)", irqbalance_setup(daemon.pid))}
    assert banned == set(full), banned
    nic("reset", "nic0")
    os.unlink(path)
    text, notes = nic("setup", "nic0", "--steer", "ntuple")
    assert not lines(text, "irqbalance")
    assert "cannot be told to keep away" in notes and 'IRQBALANCE_ARGS="--banirq=%d' % irqs[0] in notes
    nic("reset", "nic0")


@case
def refused(stack):
    """What cannot be set up is refused with a sentence: devices made of others, the loopback device, one that is down with its interrupts, one that /sys does not show."""
    card(stack, up=False)
    _, notes = nic("setup", "nic0", status=1)
    assert "nic0 is down, and has its interrupts only while it is up" in notes
    run("ip", "link", "set", "nic0", "up")
    run("ip", "link", "add", "link", "nic0", "name", "vlan5", "type", "vlan", "id", "5")
    stack.callback(run, "ip", "link", "del", "vlan5", check=False)
    for dev, why in (("vlan5", "vlan5 (vlan) has no queues of its own; set up what is below it: nic0"),
                     ("lo", "is the loopback device"),
                     ("nosuch", "there is no device 'nosuch' in this network namespace; there are lo,")):
        for command in ("setup", "show", "reset"):
            _, notes = nic(command, dev, status=1)
            assert why in notes, notes
    _, notes = nic("reset", "nic0", status=1)
    assert "nothing is saved of nic0" in notes and "does not survive a reboot" in notes
    unshare_net(stack)
    run("ip", "link", "add", "one", "type", "veth", "peer", "name", "other")
    _, notes = nic("setup", "one", status=1)
    assert "/sys shows another network namespace" in notes, notes


@case
def unprivileged(stack):
    """Without root, setup and reset say so and change nothing; show shows."""
    card(stack)
    for args in (("setup", "nic0"), ("setup", "nic0", "--dry-run"), ("reset", "nic0")):
        done = subprocess.run((*NOBODY, TOOL, "nic", *args), text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == 1 and "run as root" in done.stderr, done
    text = run(*NOBODY, TOOL, "nic", "show", "nic0")
    assert "nic0: driver rssnic, up, steering not set up" in text, text


@case
def locked(stack):
    """One command at a time changes devices. A user who locks what he can open holds up none."""
    card(stack)
    nic("setup", "nic0", "--steer", "off")
    nic("reset", "nic0")
    lock = "/run/fastsocket/nic/lock"
    assert os.stat("/run/fastsocket/nic").st_mode & 0o777 == 0o755
    code = """
import fcntl, glob, os, time
names = ["/run/fastsocket", "/run/fastsocket/nic", *glob.glob("/run/fastsocket/nic/*")]
for name in names:
    try:
        fcntl.flock(os.open(name, os.O_RDONLY), fcntl.LOCK_EX)
        print(name, end=" ")
    except PermissionError:
        pass
print(flush=True)
time.sleep(1000)
"""
    user = subprocess.Popen([*NOBODY, "/usr/bin/python3", "-c", code], stdout=subprocess.PIPE, text=True)
    stack.callback(user.wait)
    stack.callback(user.kill)
    assert user.stdout.readline().split() == ["/run/fastsocket", "/run/fastsocket/nic"]
    done = subprocess.run([TOOL, "nic", "setup", "nic0", "--steer", "off"], text=True,
                          capture_output=True, check=False, timeout=60 * SLOW)
    assert done.returncode == 0 and "waiting" not in done.stderr, done
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        other = subprocess.Popen([TOOL, "nic", "reset", "nic0"], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert "waiting for another" in other.stderr.readline()
        assert other.poll() is None
    assert other.communicate()[0] and other.returncode == 0


@case
def refused_rule(stack):
    """A device that refuses a rule although it has filters: auto undoes what it did for ntuple and takes rss; asked for by name it is an error, and nothing is changed."""
    card(stack)
    unusual("nic0")
    before = dump("nic0")
    text, notes = nic("setup", "nic0", "--steer", "ntuple", status=1, SHIM_RULES=3)
    assert "cannot set ntuple rule tcp4 class 3: Invalid argument; undoing" in notes, notes
    assert len(lines(text, "undo ", "rule tcp4 class", "-> none")) == 3, text
    same(before, dump("nic0"))
    notes = nic("setup", "nic0", SHIM_RULES=5)[1]
    assert "no steering by ntuple: cannot set ntuple rule tcp6 class 1" in notes, notes
    assert "steering: rss" in notes
    seen = show("nic0")
    assert seen["steering"] == "rss" and not seen["rules"] and seen["hash_tcp4"] == "sdfn"
    nic("reset", "nic0")
    same(before, dump("nic0"))


@case
def renamed(stack):
    """A device that has got another name since, and its interrupts with it, is still the one that was set up."""
    card(stack)
    unusual("nic0")
    nic("setup", "nic0", "--steer", "ntuple")
    run("ip", "link", "set", "nic0", "down")
    run("ip", "link", "set", "nic0", "name", "uplink")
    stack.callback(run, "ip", "link", "del", "uplink", check=False)
    run("ip", "link", "set", "uplink", "up")
    assert show("uplink")["steering"] == "ntuple"
    assert nic("setup", "uplink", "--steer", "ntuple")[0] == ""
    nic("reset", "uplink")
    assert [irq_affinity(irq) for irq in nic_irqs("uplink")] == ["3", "1-2"]
    assert not glob.glob(STATES)


@case
def interrupted(stack):
    """A setup whose output nobody reads, or that gets SIGHUP, finishes."""
    card(stack)
    before = dump("nic0")
    reader, writer = os.pipe()
    os.close(reader)
    tool = subprocess.Popen((TOOL, "nic", "setup", "nic0", "--steer", "ntuple"),
                            stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    while tool.poll() is None and not glob.glob(STATES):
        time.sleep(0.01)
    tool.send_signal(signal.SIGHUP)
    assert tool.wait(60) == 1, tool.returncode      # it could not write its output
    assert len(show("nic0")["rules"]) == 8
    nic("reset", "nic0")
    same(before, dump("nic0"))


@case
def names_of_interrupts(stack):
    """A queue's interrupts are known by the names that drivers give them, also where queues are counted from 1, and other devices' are not taken for them."""
    veth(stack, "far", "10.9.8")
    ethtool("-L", "wire", "rx", "4", "tx", "4")
    path = "/tmp/interrupts"
    for names in (["wire-TxRx-%d" % n for n in range(4)],
                  ["i40e-wire-TxRx-%d" % n for n in range(4)],
                  ["wire-rx-%d" % n for n in range(1, 5)],
                  ["wire-fp-%d" % n for n in range(4)]):
        with open(path, "w") as f:
            f.write("            CPU0       CPU1\n")
            for n, name in enumerate(["wire", "wire-misc", "awire-TxRx-0", "wire2-TxRx-1"] + names):
                f.write("%4d:         11          0   PCI-MSI 524288-edge      %s\n" % (100 + n, name))
            f.write("NMI:          0          0   Non-maskable interrupts\n")
        seen = json.loads(nic("show", "wire", "--json", SHIM_INTERRUPTS=path)[0])
        assert [[i["name"] for i in q["irqs"]] for q in seen["queues"]] == [[n] for n in names], seen
    os.unlink(path)


@case
def module_told(stack):
    """The module is told the mode and each class' or queue's CPU, told again by a second setup, and told off by reset, also where there is no device; one that does not take the mode makes auto go on; one that does not know the call, or is not there, is no obstacle."""
    def told():
        return [(row["name"], row["mode"], row["cpus"]) for row in table("nics")]

    load()
    card(stack)
    nic("setup", "nic0", "--steer", "ntuple", "--cpus", "0,2,3")
    assert told() == [("nic0", "port", "0,2,3,0")] and show("nic0")["module"]
    nic("setup", "nic0", "--steer", "rss")
    assert told() == [("nic0", "rss", "0,1,2,3")]
    nic("setup", "nic0", "--steer", "xdp", "--cpus", "1-3")
    assert told() == [("nic0", "port", "1,2,3,1")]
    text = nic("setup", "nic0", "--steer", "off")[0]
    assert told() == [] and lines(text, "module", "-> none")
    nic("setup", "nic0", "--steer", "rss")
    assert told() == [("nic0", "rss", "0,1,2,3")]
    nic("reset", "nic0")
    assert told() == []
    with without_device():
        nic("setup", "nic0", "--steer", "rss")
        assert told() == [("nic0", "rss", "0,1,2,3")]
        nic("reset", "nic0")
        assert told() == []
    notes = nic("setup", "nic0", SHIM_RULES=0, SHIM_NO_RSS=1)[1]
    assert "no steering by rss: cannot set module: Operation not supported" in notes, notes
    assert "steering: xdp" in notes and told() == [("nic0", "port", "0,1,2,3")]
    nic("reset", "nic0")
    notes = nic("setup", "nic0", SHIM_OLD=1)[1]
    assert "the module is not told: the one that is loaded is too old" in notes, notes
    run("rmmod", "fastsocket")
    notes = nic("setup", "nic0")[1]
    assert "the module is not told: it is not loaded" in notes, notes
    assert show("nic0")["module"] is None


@case
def without_rps(stack):
    """A kernel without RPS, which shows no rx queues in /sys: setup, show and reset do the same."""
    card(stack)
    before = dump("nic0")
    notes = nic("setup", "nic0", SHIM_NO_RPS=1)[1]
    assert "steering: ntuple" in notes, notes
    shown = nic("show", "nic0", SHIM_NO_RPS=1)[0]
    assert "ntuple" in shown, shown
    nic("reset", "nic0", SHIM_NO_RPS=1)
    same(before, dump("nic0"))


main()
