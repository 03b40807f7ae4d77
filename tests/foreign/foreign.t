#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Other projects' tests, without the module and the library and with both: each
ends the same way. Where one does not it is repeated, as some depend on time;
what then still differs is a failure, unless the file "limits" says why it is so.
SUITES says which are run."""

import os
import re
import shutil
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

DIR = os.environ["FASTSOCKET_FOREIGN"]
SERIES = ".".join(os.uname().release.split(".")[:2])
SELFTESTS = "%s/linux-%s/selftests/net" % (DIR, SERIES)
REPEATS = 3
# As long as its own loop devices and clients take under emulation.
TIMEOUT = 1200


def environment(fastsocket):
    """What the programs are to see; and the module as it is to be."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("FASTSOCKET")}
    env["UV_TEST_TIMEOUT_MULTIPLIER"] = "10"    # libuv's; for emulated CPUs
    if fastsocket:
        load()
        steer(1, STEER_PORT, range(os.cpu_count()))
        env["LD_PRELOAD"] = os.environ["FASTSOCKET_LIB"]
    elif loaded():
        run("rmmod", "fastsocket")
    return env


def output(cmd, env, cwd=None, timeout=TIMEOUT):
    """(exit status or None after the time, what it said)."""
    proc = subprocess.Popen(cmd, env=env, cwd=cwd, stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            errors="replace", start_new_session=True)
    try:
        said, _ = proc.communicate(timeout=timeout)
        return proc.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(proc.pid, 9)
        return None, proc.communicate()[0]


def rows(name):
    """The lines of a file beside this one, without comments."""
    with open(os.path.join(here, name)) as f:
        return [line.strip() for line in f if line[0] != "#"]


def limits(suite):
    known = [row.split(None, 2) for row in rows("limits")]
    return {test: reason for of, test, reason in known if of == suite}


def compare(name, tests):
    """@tests(env, only) gives a result for each test: all, or those in @only."""
    plain, ours = tests(environment(False), None), tests(environment(True), None)
    known = limits(name)
    differ = [t for t in {**plain, **ours} if plain.get(t) != ours.get(t)]
    for _ in range(REPEATS):
        again = [t for t in differ if t not in known]
        if not again:
            break
        print("# again: " + ", ".join("%s (%s, %s)" % (t, plain.get(t), ours.get(t))
                                      for t in again), flush=True)
        # One that fails at times without us may do so with us.
        for kept, fastsocket in ((plain, False), (ours, True)):
            for test, result in tests(environment(fastsocket), again).items():
                kept[test] = "ok" if "ok" in (result, kept.get(test)) else result
        differ = [t for t in differ if plain.get(t) != ours.get(t)]
    ok = sum(result == "ok" for result in ours.values())
    print("# %s: %d tests, %d ok, %d not ok or skipped both ways, %d known to differ" % (
        name, len(ours), ok, sum(plain.get(t) == r != "ok" for t, r in ours.items()),
        len([t for t in differ if t in known])), flush=True)
    for test in differ:
        print("# differs: %s: %s without, %s with fastsocket%s" % (
            test, plain.get(test), ours.get(test),
            "; " + known[test] if test in known else ""), flush=True)
    assert ok and not [t for t in differ if t not in known]


def python(*modules):
    def tests(env, only):
        _, said = output(["/usr/bin/python3", os.path.join(here, "unittests.py"),
                          *(only or modules)], env, cwd="/tmp")
        return {name: how for how, name in re.findall(
            r"^(ok|error|failure|skip|expected|unexpected) ([\w.]+)$", said, re.M)}
    return tests


def programs(cwd, commands, user="root"):
    """Each command is a test; status 4 is a skip, as the kernel's tests have it."""
    as_user = ["setpriv", "--reuid", user, "--clear-groups"]

    def tests(env, only):
        results = {}
        for command in only or commands:
            if not os.path.exists(os.path.join(cwd, command.split()[0])):
                continue
            started = time.monotonic()
            status, said = output([*as_user, "./" + command.split()[0], *command.split()[1:]],
                                  env, cwd, 300)
            how = {0: "ok", 4: "skip", None: "timeout"}.get(status, "failure")
            results[command] = how
            print("# %s: %s, %d s%s" % (
                command, how, time.monotonic() - started,
                "" if how == "ok" else ": " + said.strip()[-200:].replace("\n", "; ")),
                flush=True)
        return results
    return tests


@case
def test_socket(stack):
    """CPython's test_socket and test_selectors."""
    compare("python", python("test.test_socket", "test.test_selectors"))


@case
def test_asyncio(stack):
    """CPython's test_asyncio and test_socketserver."""
    compare("python", python("test.test_asyncio", "test.test_socketserver"))


@case
def kernel_tcp(stack):
    """The kernel's self-tests of TCP sockets."""
    names = rows("selftests")
    if os.environ["FASTSOCKET_ACCEL"] != "kvm":
        names.remove("tcp_fastopen_backup_key.sh")      # it takes hours there
    compare("linux", programs(SELFTESTS, names))


@case
def kernel_mptcp(stack):
    """The kernel's self-tests of MPTCP."""
    compare("mptcp", programs(SELFTESTS + "/mptcp", [
        "diag.sh", "mptcp_connect.sh -4 -m poll -f 65536", "mptcp_sockopt.sh",
        "pm_netlink.sh"]))


@case
def redis(stack):
    """redis' own tests, with Debian's redis-server."""
    units = ["unit/auth", "unit/info", "unit/limits", "unit/protocol", "unit/pubsub",
             "unit/querybuf", "unit/networking", "unit/wait", "integration/replication-2"]

    def tests(env, only):
        found = {}
        for unit in sorted({test.split(": ")[0] for test in only}) if only else units:
            _, said = output(["./runtest", "--clients", "1", "--durable", "--single", unit],
                             env, DIR + "/redis")
            said = re.sub(r"\x1b\[[0-9;]*m", "", said)
            results = {"%s: %s" % (unit, name): how for how, name in re.findall(
                r"^\[(ok|err|ignore|skip|exception)\]: (.*?)(?: in tests/.*| \(\d+ ms\))?$",
                said, re.M)}
            print("# %s: %d of %d ok" % (unit, list(results.values()).count("ok"), len(results)),
                  flush=True)
            found.update(results)
        return found
    compare("redis", tests)


@case
def libuv(stack):
    """libuv's own tests of sockets."""
    # It does not run as root, and others may not be allowed where it was built.
    copy = "/tmp/libuv"
    os.makedirs(copy, exist_ok=True)
    shutil.copy(DIR + "/libuv/build/uv_run_tests_a", copy)
    os.chmod(copy, 0o777)
    names = [line.split()[0] for line in run("setpriv", "--reuid", "nobody", "--clear-groups",
                                             copy + "/uv_run_tests_a", "--list").splitlines()]
    sockets = re.compile("accept|connect|getsockname|ipc|listen|ping_pong|poll_|shutdown|"
                         "socket|tcp|watcher_cross")
    compare("libuv", programs(copy, ["uv_run_tests_a " + name for name in names
                                      if sockets.search(name)], "nobody"))


@case
def stress_ng(stack):
    """stress-ng's socket stressors for a minute."""
    stressors = "sock", "sockabuse", "sockdiag", "sockfd", "sockmany", "sockpair"

    def tests(env, only):
        args = [arg for name in stressors for arg in ("--" + name, "1")]
        _, said = output(["stress-ng", *args, "--timeout", "60", "--verify", "--metrics-brief",
                          "--temp-path", "/tmp"], env, "/tmp", 300)
        found = {name: "ok" if re.search(r"\] %s +[1-9]" % name, said) else "failure"
                 for name in stressors}
        found["all"] = "ok" if "successful run completed" in said else "failure"
        return found
    compare("stress-ng", tests)


# Some connect to where nobody answers.
run("ip", "link", "add", "nowhere", "type", "dummy")
run("ip", "addr", "add", "192.0.2.1/24", "dev", "nowhere")
run("ip", "link", "set", "nowhere", "up")
run("ip", "route", "add", "default", "dev", "nowhere")
chosen = os.environ.get("SUITES", "").split()
if chosen:
    sys.argv[1:] = chosen
main()
