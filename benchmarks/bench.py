# SPDX-License-Identifier: GPL-2.0
"""What the benchmarks share: real servers in four designs on cores of their own,
behind a virtual network card, clients on other cores in a namespace of their own,
and how results are written.

The card (tests/nic) has a queue with an interrupt for each core of the servers,
and spreads flows over them by RSS. It copies what it receives, as DMA would, so
that clients and servers share no memory but that of the wire."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

tree = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
for part in "servers", "kmod":
    sys.path.insert(0, os.path.join(tree, "tests", part))
from fstest import (libc, load, nic_load, nic_param, nic_wire, run,  # noqa: E402
                    table, wait_for)
from nginx import Load, Nginx, placed  # noqa: E402
from proxy import Haproxy, backend  # noqa: E402

# One listener for all workers; one for each; the same, selected by the packet's
# core; fastsocket, with the program as in the first.
DESIGNS = "stock", "reuseport", "cbpf", "fastsocket"
SUBNET = "198.51.100"
SERVER, CLIENT = SUBNET + ".1", SUBNET + ".2"
PORT = 80
TOOL = tree + "/tools/fastsocket"
ECHO = tree + "/build/echo"

SO_ATTACH_REUSEPORT_CBPF = 51
SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438


def write(benchmark, **fields):
    """A result: one JSON object in one line of $OUT/results, and of standard output."""
    line = json.dumps({"benchmark": benchmark, "kernel": os.uname().release,
                       "accelerator": os.environ.get("FASTSOCKET_ACCEL", "none"), **fields})
    with open(os.path.join(os.environ["OUT"], "results"), "a") as f:
        f.write(line + "\n")


def say(text):
    print("  " + text, flush=True)


def cpus(first, count):
    return "%d-%d" % (first, first + count - 1)


@contextlib.contextmanager
def module(wanted=True):
    """The module, where it is wanted: the other designs are to have nothing of it."""
    if os.path.exists("/sys/module/fastsocket"):
        raise RuntimeError("fastsocket is loaded; what is compared with it needs a kernel "
                           "without: fastsocket unload")
    if wanted:
        load()
    try:
        yield
    finally:
        if wanted:
            run("rmmod", "fastsocket")


class Wire:
    """A card each for the servers, on the first @cores, and for the clients, on those behind."""

    def __init__(self, stack, cores, clients):
        self.cores, self.clients = cores, clients
        self.client_cpus = cpus(cores, clients)
        if not os.path.exists("/sys/module/rssnic"):
            nic_load()
            stack.callback(run, "rmmod", "rssnic")
        nic_param("dma", 1)
        stack.callback(nic_param, "dma", 0)
        nic_wire(stack, "clients", SUBNET)
        self.steer("off", cores)
        run(*placed("clients"), TOOL, "nic", "setup", "--steer", "off",
            "--cpus", self.client_cpus, "eth0")

    def steer(self, mode, cores):
        """Queues for the first @cores; how packets of the servers' connections find them."""
        run(TOOL, "nic", "setup", "--steer", mode, "--cpus", cpus(0, cores), "nic0")


def select_by_core(pid, port):
    """Attach to the SO_REUSEPORT group of @port, of which process @pid has a listener, a
    program that selects by core: what a server without such an option has to be taught."""
    program = struct.pack("=HBBI", 0x20, 0, 0, 0xFFFFF024) + struct.pack("=HBBI", 0x16, 0, 0, 0)
    buffer = ctypes.create_string_buffer(program)
    prog = struct.pack("HxxxxxxQ", 2, ctypes.addressof(buffer))
    pidfd = libc.syscall(SYS_PIDFD_OPEN, pid, 0)
    try:
        for name in os.listdir("/proc/%d/fd" % pid):
            if not os.readlink("/proc/%d/fd/%s" % (pid, name)).startswith("socket:"):
                continue
            with socket.socket(fileno=libc.syscall(SYS_PIDFD_GETFD, pidfd, int(name), 0)) as sock:
                if sock.family == socket.AF_INET and sock.getsockname()[1] == port and \
                        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, prog)
                    return
    finally:
        os.close(pidfd)
    raise RuntimeError("process %d does not listen on port %d" % (pid, port))


class Program:
    """One that runs until stop()."""

    def __init__(self, *command):
        self.process = subprocess.Popen(command)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def prefix(design):
    if not design.startswith("fastsocket"):
        return []
    return [TOOL, "run", *(["--busy-poll"] if design.endswith(" busy") else []), "--"]


def start_nginx(design, cores):
    masks = " ".join(format(1 << core, "0%db" % cores) for core in range(cores))
    server = Nginx(PORT, workers=cores, reuseport=design in ("reuseport", "cbpf"),
                   main="worker_cpu_affinity %s;" % masks, command=prefix(design))
    if design == "cbpf":
        select_by_core(server.pid(), PORT)
    return server


def start_haproxy(design, cores):
    server = Haproxy(SERVER, PORT, CLIENT, 8080, threads=cores,
                     main="cpu-map auto:1/1-%d %s" % (cores, cpus(0, cores)),
                     spread=design == "stock",
                     shards="by-thread" if design in ("reuseport", "cbpf") else "1",
                     command=prefix(design))
    if design == "cbpf":
        select_by_core(server.process.pid, PORT)
    return server


def start_echo(design, cores, *keep):
    mode = "own" if design in ("reuseport", "cbpf") else "shared"
    program = Program(*prefix(design), ECHO, "serve", mode, str(PORT), "0", str(cores), *keep)
    if design == "cbpf":
        wait_for(listens, 60)
        select_by_core(program.process.pid, PORT)
    return program


def start_pong(design, cores):
    return start_echo(design, cores, "keep")


def start_connect(design, cores):
    return Program(*prefix(design), ECHO, "connect", CLIENT, "8080", "0", str(cores))


SERVERS = {"echo": start_echo, "pong": start_pong, "nginx": start_nginx,
           "haproxy": start_haproxy, "connect": start_connect}


def listens():
    return run("ss", "-Hltn", "sport = :%d" % PORT) != ""


@contextlib.contextmanager
def server(wire, workload, design, cores=None, loaded=lambda: None):
    """A server in one of the designs, ready to serve on @cores, or all that are for it.
    @loaded is called when the module is there, if it is to be, and the server is not yet."""
    cores = cores or wire.cores
    ours = design.startswith("fastsocket")
    active = workload in ("haproxy", "connect")
    with module(ours):
        if ours:
            loaded()
        wire.steer("auto" if active and ours else "off", cores)
        program = SERVERS[workload](design, cores)
        try:
            if workload != "connect":
                wait_for(listens, 60)
                if ours:
                    wait_for(lambda: len(table("listeners")) >= cores, 60)
            yield program
        finally:
            program.stop()
            wait_for(lambda: not listens(), 60)


@contextlib.contextmanager
def peer(wire, workload):
    """What the servers need on the other side: a backend, or somebody to connect to."""
    with contextlib.ExitStack() as stack:
        if workload == "haproxy":
            backend(stack, "clients", cpus=wire.client_cpus)
        elif workload == "connect":
            stack.callback(Program(*placed("clients"), ECHO, "serve", "own", "8080",
                                   str(wire.cores), str(wire.clients)).stop)
        yield


@contextlib.contextmanager
def clients(wire, workload, concurrency):
    """Clients that have a request under way each, on their cores; they must not fail."""
    if workload == "connect":
        yield
        return
    each = max(1, concurrency // wire.clients)
    loads = [Load(PORT, each, SERVER, "clients", wire.client_cpus) for _ in range(wire.clients)]
    failed = 0
    try:
        yield
    finally:
        for one in loads:
            failed += one.result()[1]
    if failed:
        raise RuntimeError("%d requests have failed" % failed)


def opened(workload):
    """Connections of this namespace so far: those that it made, or was asked for."""
    with open("/proc/net/snmp") as f:
        names, values = [line.split() for line in f if line.startswith("Tcp:")]
    return int(values[names.index("ActiveOpens" if workload == "connect" else "PassiveOpens")])


def wait_opened(workload, count, seconds):
    """Until there have been @count more connections."""
    end, goal = time.monotonic() + seconds, opened(workload) + count
    while opened(workload) < goal:
        if time.monotonic() > end:
            raise RuntimeError("%d of %d connections in %d s" % (
                count - goal + opened(workload), count, seconds))
        time.sleep(0.1)


class Ping:
    """A client on the clients' cores with @active connections that have a message under
    way each, for @seconds, and @idle ones that it opens before (benchmarks/ping.c)."""

    def __init__(self, wire, active, seconds, idle=0, sources=()):
        self.seconds = seconds
        self.process = subprocess.Popen(
            [*placed("clients", wire.client_cpus), tree + "/build/ping", SERVER, str(PORT),
             str(active), str(idle), str(seconds), *sources],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if not self.process.stdout.readline().startswith("idle"):
            raise RuntimeError("the client has failed")

    def result(self):
        """Echoes a second, and percentiles of their latency in microseconds."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        result = json.loads(self.process.stdout.readline())
        result["echoes_per_s"] = round(result.pop("echoes") / self.seconds, 1)
        return result

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()


# Of perf: what tells most about sharing. Emulated CPUs count none of it.
COUNTERS = "instructions", "cycles", "cache-misses", "LLC-load-misses"


@contextlib.contextmanager
def counters(cores):
    """The hardware's counters on the first @cores, as a dictionary that is filled at the
    end; empty where there is no perf, or where the CPU does not count."""
    counted = {}
    try:
        perf = subprocess.Popen(["perf", "stat", "-x", ",", "-C", cpus(0, cores),
                                 "-e", ",".join(COUNTERS)], text=True,
                                stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        yield counted
        return
    yield counted
    perf.send_signal(signal.SIGINT)
    for line in perf.communicate()[1].splitlines():
        value, _, name = line.split(",")[:3] if line.count(",") > 2 else ("", "", "")
        if value.isdigit():
            counted[name.split(":")[0]] = int(value)
