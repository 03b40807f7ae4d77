# SPDX-License-Identifier: GPL-2.0
"""An unmodified HAProxy before an nginx in another namespace, and a witness
that is not fastsocket's: on which CPU the kernel processes the packets of the
proxy's connections, and on which CPU their owners run."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from nginx import Nginx, placed

CONFIG = """
global
    nbthread {threads}
    tune.listener.multi-queue {spread}
    {main}
    {chroot}
    stats socket {dir}/sock mode 600 level admin
defaults
    mode http
    timeout client 20s
    timeout server 20s
    timeout connect 20s
    option httpclose
frontend clients
    bind {addr}:{port} shards {shards}
    default_backend servers
backend servers
    {backend}
    server nginx {server}:{server_port}
"""


class Haproxy:
    """Start on construction, stop() at the end."""

    def __init__(self, addr, port, server, server_port, threads=4, main="",
                 backend="", command=(), env=None, shards="1", spread=False, chroot=True):
        """With @spread, as by default, threads hand accepted connections to each other;
        with @chroot it is in one, as in Debian's configuration."""
        self.dir = tempfile.mkdtemp(prefix="fs-haproxy-")
        config = os.path.join(self.dir, "haproxy.cfg")
        with open(config, "w") as f:
            f.write(CONFIG.format(threads=threads, main=main, dir=self.dir, addr=addr,
                                  port=port, shards=shards, spread="on" if spread else "off",
                                  backend=backend, server=server,
                                  server_port=server_port,
                                  chroot="chroot /var/lib/haproxy" if chroot else ""))
        self.log = open(os.path.join(self.dir, "stderr"), "w+")
        self.process = subprocess.Popen([*command, shutil.which("haproxy"), "-f", config],
                                        env=env, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 120
        while not self.listens(addr, port):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("HAProxy does not start: " + self.stderr())
            time.sleep(0.05)

    @staticmethod
    def listens(addr, port):
        return addr in subprocess.run(["ss", "-Hltn", "sport = :%d" % port], text=True,
                                      stdout=subprocess.PIPE, check=True).stdout

    def stderr(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


# The owner is the CPU that reads from the connection, or has called connect(): a
# program may accept on one and read on another. What comes before the first read
# is judged when that happens. A socket's memory may be used again.
WITNESS = """
kprobe:sk_filter_trim_cap /((struct sock *)arg0)->__sk_common.skc_net.net->ns.inum == NETWORK &&
                           ((struct sock *)arg0)->sk_protocol == 6/ {
    if (@owner[arg0]) {
        @all = sum(1);
        if (@owner[arg0] == cpu + 1) { @here = sum(1); }
    } else {
        @early[arg0, cpu]++;
    }
}
kprobe:tcp_recvmsg /!@owner[arg0] && (comm == "haproxy" || comm == "nginx")/ {
    @here = sum(@early[arg0, cpu]);
EARLY
}
kprobe:tcp_recvmsg /comm == "haproxy" || comm == "nginx"/ { @owner[arg0] = cpu + 1; }
kprobe:tcp_v4_connect,
kprobe:tcp_v6_connect /comm == "haproxy" || comm == "nginx"/ { @owner[arg0] = cpu + 1; }
kprobe:inet_sock_destruct {
    delete(@owner[arg0]);
FORGET
}
BEGIN { @all = sum(0); @here = sum(0); }
interval:ms:300 { print(@all); print(@here); }
END { clear(@owner); clear(@early); }
"""


class PacketWitness:
    """Counts packets of the proxies' connections in this namespace, and those
    processed on the CPU of the thread that owns the connection."""

    def __init__(self):
        cpus = range(os.cpu_count())
        network = re.search(r"\d+", os.readlink("/proc/self/ns/net"))[0]
        script = WITNESS.replace("NETWORK", network)
        script = script.replace("EARLY", "\n".join(
            "    @all = sum(@early[arg0, %d]);" % cpu for cpu in cpus))
        script = script.replace("FORGET", "\n".join(
            "    delete(@early[arg0, %d]);" % cpu for cpu in cpus))
        self.trace = subprocess.Popen(
            ["bpftrace", "-e", script], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=dict(os.environ, BPFTRACE_MAP_KEYS_MAX="65536"))
        self.said = []
        self.told = {}
        self.rounds = 0
        threading.Thread(target=self.listen, daemon=True).start()
        self.counts()

    def listen(self):
        for line in self.trace.stdout:
            match = re.match(r"@(all|here): (\d+)", line)
            if match:
                self.told[match[1]] = int(match[2])
                self.rounds += match[1] == "here"
            else:
                self.said.append(line)

    def counts(self):
        """(packets on the owner's CPU, packets) since the start."""
        end = self.rounds + 2       # the next one may have begun before
        while self.rounds < end:
            if self.trace.poll() is not None:
                raise RuntimeError("bpftrace does not run: " + "".join(self.said))
            time.sleep(0.05)
        return self.told["here"], self.told["all"]

    def stop(self):
        self.trace.send_signal(signal.SIGINT)
        self.trace.wait(60)


def backend(stack, netns, port=8080, cpus=None):
    """An nginx for the proxy, in the namespace @netns."""
    server = Nginx(port, workers=2, command=placed(netns, cpus))
    stack.callback(server.stop)
    return server
