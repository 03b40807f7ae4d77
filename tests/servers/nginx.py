# SPDX-License-Identifier: GPL-2.0
"""An unmodified nginx to test with: plain, under the library, or with its own
SO_REUSEPORT, in a directory of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
import time

CONFIG = """
worker_processes {workers};
user root;
{main}
pid {dir}/pid;
error_log {dir}/error.log warn;
events {{ worker_connections 1024; {events} }}
http {{
    access_log off;
    keepalive_timeout 0;
    client_body_temp_path {dir}/b;
    proxy_temp_path {dir}/p;
    fastcgi_temp_path {dir}/f;
    uwsgi_temp_path {dir}/u;
    scgi_temp_path {dir}/s;
    server {{
        listen {port}{listen};
        location / {{ {location} }}
    }}
}}
"""


def library():
    return os.environ["FASTSOCKET_LIB"]


def with_library(env=None):
    env = dict(os.environ if env is None else env)
    env["LD_PRELOAD"] = library()
    return env


def placed(netns=None, cpus=None):
    """What executes a program in a network namespace, on some CPUs ("0-3")."""
    return (["ip", "netns", "exec", netns] if netns else []) + \
        (["taskset", "-c", cpus] if cpus else [])


class Nginx:
    """Start on construction, stop() at the end."""

    def __init__(self, port, fastsocket=False, reuseport=False, workers=4,
                 events="", main="", daemon=False, command=(),
                 location='return 200 "hello\\n";'):
        self.dir = tempfile.mkdtemp(prefix="fs-nginx-")
        self.port = port
        self.count = workers
        self.daemon = False
        self.env = with_library() if fastsocket else dict(os.environ)
        self.config = os.path.join(self.dir, "nginx.conf")
        with open(self.config, "w") as f:
            f.write(CONFIG.format(workers=workers, dir=self.dir, port=port,
                                  events=events, main=main, location=location,
                                  listen=" reuseport" if reuseport else ""))
        self.log = open(os.path.join(self.dir, "stderr"), "w+")
        self.master = subprocess.Popen(
            # By its path: a binary upgrade executes it again.
            [*command, shutil.which("nginx"), "-p", self.dir, "-c", self.config, "-g",
             "daemon %s;" % ("on" if daemon else "off")],
            env=self.env, stderr=self.log)
        if daemon:
            self.master.wait(120)
            self.daemon = True
        self.wait_workers(workers)

    def pid(self):
        """The master's: a daemon has left the process that we started."""
        if not self.daemon:
            return self.master.pid
        with open(self.dir + "/pid") as f:
            return int(f.read())

    def stderr(self):
        self.log.seek(0)
        return self.log.read()

    def workers(self, all_=False):
        """Worker processes; without @all_ not those shutting down."""
        out = []
        path = "/proc/%d/task/%d/children" % (self.pid(), self.pid())
        with open(path) as f:
            for pid in map(int, f.read().split()):
                try:
                    with open("/proc/%d/cmdline" % pid) as c:
                        if all_ or "shutting" not in c.read():
                            out.append(pid)
                except OSError:
                    pass
        return out

    def wait_workers(self, count, timeout=120):
        end = time.monotonic() + timeout
        while len(self.workers()) < count:
            assert self.daemon or self.master.poll() is None, self.stderr()
            assert time.monotonic() < end, "nginx has not started its workers"
            time.sleep(0.02)

    def reload(self):
        """SIGHUP, and wait until only new workers serve."""
        old = set(self.workers())
        self.master.send_signal(signal.SIGHUP)
        end = time.monotonic() + 120
        while True:
            now = set(self.workers())
            if not now & old and len(now) >= self.count:
                break
            assert time.monotonic() < end, "reload has not come to an end"
            time.sleep(0.01)

    def stop(self, sig=signal.SIGTERM):
        if self.daemon:
            pid = self.pid()
            os.kill(pid, sig)
            while os.path.exists("/proc/%d" % pid):
                time.sleep(0.01)
        elif self.master.poll() is None:
            self.master.send_signal(sig)
            self.master.wait(120)
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Load:
    """A connection per request until result(), which counts those that failed."""

    def __init__(self, port, connections=16, addr="127.0.0.1", netns=None, cpus=None):
        self.load = subprocess.Popen(
            placed(netns, cpus) + [os.environ["FASTSOCKET_LOAD"], addr, str(port),
                                   str(connections)],
            stdout=subprocess.PIPE, text=True)
        # Before, a signal would kill it.
        if self.load.stdout.readline() != "started\n":
            raise RuntimeError("the load has not started")

    def result(self):
        """(requests, failed requests)"""
        self.load.send_signal(signal.SIGINT)
        *kinds, last = self.load.communicate(timeout=120)[0].splitlines()
        for line in sorted(set(kinds)):
            print("%s (%d times)" % (line, kinds.count(line)))
        requests, failed = map(int, last.split())
        return requests, failed
