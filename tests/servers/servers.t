#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Unmodified servers under the library: they start, serve and stop with the
answers they give without it, and multi-process ones serve core-locally."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C
from nginx import Load, Nginx, with_library  # noqa: E402

HTTP = b"GET / HTTP/1.0\r\n\r\n"


def ask(port, cpu, request=HTTP, addr="127.0.0.1"):
    """What a server answers to @request, sent from @cpu."""
    with on_cpu(cpu), socket.create_connection((addr, port), 20) as sock:
        sock.sendall(request)
        answer = b""
        while request is HTTP or not answer.endswith(b"\r\n"):
            data = sock.recv(65536)
            if not data:
                break
            answer += data
        return answer


def body(answer):
    return answer.split(b"\r\n\r\n", 1)[1]


def wait_port(port):
    def up():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False
    wait_for(up, 30)


def serve(stack, cmd, port, env=None):
    err = stack.enter_context(tempfile.TemporaryFile("w+"))
    # A session of its own: lighttpd signals its whole process group.
    server = subprocess.Popen(cmd, env=env, stdout=err, stderr=err,
                              stdin=subprocess.DEVNULL, start_new_session=True)
    server.output = err

    def stop():
        if server.poll() is None:
            server.kill()
            server.wait()
    stack.callback(stop)
    wait_port(port)
    return server


def printed(server):
    server.output.seek(0)
    return server.output.read()


def write(stack, name, text):
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    os.chmod(directory, 0o755)
    path = os.path.join(directory, name)
    with open(path, "w") as f:
        f.write(text.replace("@DIR@", directory))
    return path


def compare(stack, cmd, port, request=HTTP, sig=signal.SIGTERM, n=40):
    """Answers of @cmd without and with the library; and that it stops."""
    answers = []
    for env in (dict(os.environ), with_library()):
        with contextlib.ExitStack() as one:
            server = serve(one, cmd, port, env)
            answers.append({ask(port, i % 4, request) if request is not HTTP
                            else body(ask(port, i % 4)) for i in range(n)})
            server.send_signal(sig)
            server.wait(20)
            if env.get("LD_PRELOAD"):
                assert "fastsocket:" not in printed(server), printed(server)
            answers.append(server.returncode)
    assert answers[:2] == answers[2:], answers
    assert len(answers[0]) == 1, answers


def live_cpus(port):
    return {int(r["cpu"]) for r in listeners_of(port) if r["state"] == "live"}


def nginx(stack, **args):
    server = Nginx(8070, **args)
    stack.callback(server.stop)
    if args.get("fastsocket"):
        wait_for(lambda: live_cpus(8070) == {0, 1, 2, 3}, 20)
    return server


@case
def nginx_local(stack):
    """nginx (fork after listen): every connection is accepted on the core of its SYN, and nothing is printed."""
    server = nginx(stack, fastsocket=True)
    d = Delta()
    for n in range(200):
        assert body(ask(8070, n % 4)) == b"hello\n"
    assert (d.accept_local, d.accept_remote, d.accept_slow) == (200, 0, 0), stats()
    assert server.stderr() == ""


@case
def nginx_plain_beside(stack):
    """A program without the library behaves as without the project, the module being loaded."""
    nginx(stack)
    d = Delta()
    for n in range(40):
        assert body(ask(8070, n % 4)) == b"hello\n"
    assert (d.spawned, d.syn_local, d.syn_slow) == (0, 0, 0), table("listeners")


@case
def nginx_upgrade(stack):
    """nginx's binary upgrade (listeners inherited over exec) loses nothing."""
    # A master that has not become a daemon does not upgrade; and nginx gives
    # the new binary no variable that its configuration does not name.
    server = nginx(stack, fastsocket=True, daemon=True, main="env LD_PRELOAD;")
    old = server.pid()
    os.kill(old, signal.SIGUSR2)
    wait_for(lambda: os.path.exists(server.dir + "/pid.oldbin"), 20)
    wait_for(lambda: len(listeners_of(8070)) >= 8, 20)
    d = Delta()
    os.kill(old, signal.SIGQUIT)
    n = 0
    while os.path.exists("/proc/%d" % old) or n < 80:
        assert body(ask(8070, n % 4)) == b"hello\n"
        n += 1
    assert server.pid() != old
    assert d.accept_local >= 0.9 * n, (n, d.accept_local, d.accept_slow)


@case
def nginx_test_config(stack):
    """nginx -t beside a running server disturbs nothing."""
    server = nginx(stack, fastsocket=True)
    before = listeners_of(8070)
    run_env = with_library()
    for _ in range(5):
        out = subprocess.run(["nginx", "-t", "-p", server.dir, "-c", server.config],
                             env=run_env, capture_output=True, text=True, check=False)
        assert "successful" in out.stderr and "fastsocket" not in out.stderr, out
        assert body(ask(8070, 1)) == b"hello\n"
    assert [r["inode"] for r in listeners_of(8070)] == [r["inode"] for r in before]


@case
def nginx_accept_mutex(stack):
    """nginx with accept_mutex, which takes listeners in and out of its epoll set all the time."""
    server = Nginx(8070, fastsocket=True, events="accept_mutex on;")
    stack.callback(server.stop)
    for n in range(100):
        assert body(ask(8070, n % 4)) == b"hello\n"


@case
def nginx_reuseport(stack):
    """nginx with its own SO_REUSEPORT keeps working and gains locality."""
    nginx(stack, fastsocket=True, reuseport=True)
    d = Delta()
    for n in range(200):
        assert body(ask(8070, n % 4)) == b"hello\n"
    assert d.accept_local == 200, stats()


@case
def nginx_restart(stack):
    """A server that has stopped can be started again at once."""
    for _ in range(5):
        server = Nginx(8070, fastsocket=True)
        try:
            assert body(ask(8070, 1)) == b"hello\n"
        finally:
            server.stop(signal.SIGQUIT)
        assert "in use" not in "".join(open(server.dir + "/error.log")
                                       if os.path.exists(server.dir) else [])


@case
def status_names_nginx(stack):
    """fastsocket status says by process name and port whether nginx uses it, in text and in JSON."""
    nginx(stack, fastsocket=True)
    tool = os.environ["FASTSOCKET_TOOL"]
    ask(8070, 0)
    text = run(tool, "status")
    line = [l for l in text.splitlines() if "nginx" in l and "8070" in l]
    assert line and "core-local" in line[0], text
    data = json.loads(run(tool, "status", "--json"))
    names = {p["name"] for l in data["listeners"] for p in l["processes"]}
    assert names == {"nginx"}, data


@case
def run_command(stack):
    """fastsocket run has the effect of LD_PRELOAD."""
    nginx(stack, command=[os.environ["FASTSOCKET_TOOL"], "run", "--library",
                          os.environ["FASTSOCKET_LIB"], "--"])
    wait_for(lambda: len(listeners_of(8070)) == 4)


@case
def off_in_one_process(stack):
    """FASTSOCKET=off disables the library in one program."""
    os.environ["FASTSOCKET"] = "off"
    stack.callback(os.environ.pop, "FASTSOCKET")
    server = Nginx(8070, fastsocket=True)
    stack.callback(server.stop)
    assert body(ask(8070, 1)) == b"hello\n"
    assert not listeners_of(8070) and server.stderr() == ""


@case
def sysctl_off_live(stack):
    """listen_spawn=0 takes a running nginx to the slow path at once; 2 takes it back."""
    nginx(stack, fastsocket=True)
    for value, local in ((0, False), (2, True)):
        sysctl_for(stack, "net.fastsocket.listen_spawn", value)
        d = Delta()
        for n in range(40):
            assert body(ask(8070, n % 4)) == b"hello\n"
        assert d.syn_local == (40 if local else 0), (d.syn_local, d.syn_slow)


@case
def spawn_1(stack):
    """With listen_spawn=1 only workers that have bound themselves to a core get a local listener."""
    sysctl_for(stack, "net.fastsocket.listen_spawn", 1)
    server = Nginx(8070, fastsocket=True)
    try:
        assert body(ask(8070, 1)) == b"hello\n" and not listeners_of(8070)
    finally:
        server.stop()
    nginx(stack, fastsocket=True, main="worker_cpu_affinity 0001 0010 0100 1000;")
    d = Delta()
    for n in range(40):
        assert body(ask(8070, n % 4)) == b"hello\n"
    assert d.accept_local == 40


@case
def rmmod_under_nginx(stack):
    """rmmod and modprobe under a loaded nginx lose no request."""
    nginx(stack, fastsocket=True)
    work = Load(8070)
    time.sleep(0.5)
    for _ in range(5):
        run("rmmod", "fastsocket")
        time.sleep(0.3)
        load(patient=False)
        time.sleep(0.3)
    requests, failed = work.result()
    assert failed == 0 and requests > 100, (requests, failed)


@case
def tool_unload(stack):
    """fastsocket unload removes the module under a running server, which goes on."""
    nginx(stack, fastsocket=True)
    run(os.environ["FASTSOCKET_TOOL"], "unload")
    stack.callback(load, patient=False)
    assert not loaded()
    for n in range(20):
        assert body(ask(8070, n % 4)) == b"hello\n"


@case
def status_watch(stack):
    """fastsocket status --watch --json gives a line a second, with rates from the second on."""
    nginx(stack, fastsocket=True)
    tool = os.environ["FASTSOCKET_TOOL"]
    out = run("timeout", str(2 * SLOW), tool, "status", "--json", "--watch=0.3", check=False)
    lines = [json.loads(l) for l in out.splitlines()]
    assert len(lines) >= 3 and "rates" in lines[1], out
    assert [c["listeners"] for c in lines[0]["cpus"]] == [1] * 4, lines[0]["cpus"]


HAPROXY = """
global
    nbthread 4
    stats socket @DIR@/sock mode 600 level admin expose-fd listeners
    pidfile @DIR@/pid
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 5s
frontend f
    bind 127.0.0.1:%d %s
    http-request return status 200 content-type text/plain string "hello"
"""


def haproxy(stack, bind="shards 1", port=8071):
    path = write(stack, "haproxy.cfg", HAPROXY % (port, bind))
    server = serve(stack, ["haproxy", "-W", "-f", path], port, with_library())
    stack.callback(lambda: (server.terminate(), server.wait()))
    return path, server


@case
def haproxy_threads(stack):
    """HAProxy (threads): connections are accepted on the core of their SYN."""
    _, server = haproxy(stack)
    wait_for(lambda: len(listeners_of(8071)) >= 3, 20)
    for n in range(40):     # thread 1 joins when it first accepts
        ask(8071, n % 4)
    wait_for(lambda: len(listeners_of(8071)) == 4)
    d = Delta()
    for n in range(100):
        assert body(ask(8071, n % 4)) == b"hello"
    assert d.accept_local >= 95, (d.accept_local, d.accept_remote, d.accept_slow)
    assert "fastsocket" not in printed(server)


@case
def haproxy_reload(stack):
    """HAProxy's seamless reload (-x) under load loses no request."""
    path, server = haproxy(stack)
    work = Load(8071)
    time.sleep(0.5)
    for _ in range(10):
        server.send_signal(signal.SIGUSR2)
        time.sleep(0.7)
    requests, failed = work.result()
    assert failed == 0 and requests > 100, (requests, failed)


@case
def haproxy_shards(stack):
    """HAProxy with SO_REUSEPORT of its own (shards) keeps working."""
    haproxy(stack, "shards by-thread", 8076)
    for n in range(100):
        assert body(ask(8076, n % 4)) == b"hello"


@case
def lighttpd(stack):
    """lighttpd starts, serves and stops as without the library."""
    path = write(stack, "lighttpd.conf", """
server.document-root = "@DIR@"
server.port = 8072
server.bind = "127.0.0.1"
index-file.names = ( "lighttpd.conf" )
server.max-worker = 4
mimetype.assign = ( "" => "text/plain" )
""")
    compare(stack, ["lighttpd", "-D", "-f", path], 8072)


@case
def redis(stack):
    """redis-server starts, serves and stops as without the library."""
    compare(stack, ["redis-server", "--port", "8073", "--save", "", "--dir", "/tmp"],
            8073, b"PING\r\n")


@case
def memcached(stack):
    """memcached starts, serves and stops as without the library."""
    compare(stack, ["memcached", "-u", "root", "-l", "127.0.0.1", "-p", "8074", "-U", "0"],
            8074, b"get nothing\r\n")


WSGI = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


@case
def uwsgi(stack):
    """uWSGI, whose threads and processes take turns to wait for connections, serves as without the library."""
    path = write(stack, "application.py", WSGI)
    compare(stack, ["uwsgi", "--plugin", "python3", "--http-socket", "127.0.0.1:8077", "--master",
                    "--processes", "2", "--threads", "2", "--thunder-lock", "--die-on-term",
                    "--disable-logging", "--wsgi-file", path], 8077, n=12)


PREFORK = """
ServerRoot @DIR@
ServerName localhost
PidFile @DIR@/pid
ErrorLog /dev/stderr
LogLevel error
DocumentRoot @DIR@
StartServers 4
MinSpareServers 4
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
DirectoryIndex apache.conf
Listen 127.0.0.1:8078
Listen 127.0.0.1:8079
"""


@case
def apache_prefork(stack):
    """Apache's processes, of which with two listeners one waits for connections at a time, serve as without the library."""
    path = write(stack, "apache.conf", PREFORK)
    for port in (8078, 8079):
        compare(stack, ["apache2", "-D", "FOREGROUND", "-f", path], port, n=8)


ASYNCIO = """
import asyncio, signal
async def hello(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\nhello")
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(hello, "127.0.0.1", 8075)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()
    await server.wait_closed()
asyncio.run(main())
"""


@case
def asyncio_server(stack):
    """A Python asyncio server starts, serves and stops as without the library."""
    path = write(stack, "server.py", ASYNCIO)
    compare(stack, ["/usr/bin/python3", path], 8075)


@case
def warnings(stack):
    """Module missing, too old or not permitted: one line on stderr saying which, then the program runs as without the library."""
    run("rmmod", "fastsocket")
    try:
        server = Nginx(8070, fastsocket=True)
        stack.callback(server.stop)
        assert body(ask(8070, 1)) == b"hello\n"
        assert server.stderr().count("fastsocket:") == 1, server.stderr()
        assert "modprobe" in server.stderr()
    finally:
        stack.close()
        load(patient=False)
    os.environ["LD_PRELOAD"] = os.environ["FASTSOCKET_NEXT"]
    try:
        server = Nginx(8070)
    finally:
        del os.environ["LD_PRELOAD"]
    try:
        assert body(ask(8070, 1)) == b"hello\n" and not listeners_of(8070)
        assert server.stderr().count("fastsocket:") == 1, server.stderr()
        assert "version 1 and this library needs 99" in server.stderr(), server.stderr()
    finally:
        server.stop()
    for name, mode in (("/dev/fastsocket", 0o600), ("/proc/fastsocket", 0o400)):
        stack.callback(os.chmod, name, os.stat(name).st_mode & 0o777)
        os.chmod(name, mode)
    path = write(stack, "server.py", ASYNCIO)
    server = serve(stack, [*NOBODY, "/usr/bin/python3", path], 8075, with_library())
    assert body(ask(8075, 1)) == b"hello"
    assert printed(server).count("fastsocket:") == 1, printed(server)
    assert "ermi" in printed(server)


load(patient=False)
main()
