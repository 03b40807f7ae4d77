#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Other projects' tests, without the module and the library and with both: each
ends the same way. Where one does not it is repeated, as some depend on time;
what then still differs is a failure, unless the file "limits" says why it is so.
So is what does not run to its end, and a suite that fastsocket did nothing for.
SUITES says which are run."""

import os
import re
import shutil
import statistics
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

DIR = os.environ["FASTSOCKET_FOREIGN"]
SERIES = ".".join(os.uname().release.split(".")[:2])
SELFTESTS = "%s/linux-%s/selftests/net" % (DIR, SERIES)
REPEATS = 3
# A single thread has local listeners if it is bound.
BOUND = "taskset", "-c", "1"
COUNTERS = "spawned", "accept_local", "accept_slow", "connect_local", "connect_stock"
SERVED = "spawned", "accept_local", "connect_local"
# For each program or unit: mptcp_connect.sh takes 20 minutes on busy emulated CPUs.
TIMEOUT = 2400


def environment(fastsocket):
    """What the programs are to see; and the module as it is to be."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("FASTSOCKET")}
    env["UV_TEST_TIMEOUT_MULTIPLIER"] = "10"    # libuv's; for emulated CPUs
    if fastsocket:
        load(patient=False)
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


def once(tests, fastsocket, only=None):
    """@tests once. Nothing can be said of what has been cut off."""
    results = tests(environment(fastsocket), only)
    cut = [test for test, how in results.items() if how == "cut"]
    assert not cut, "%s fastsocket, not run to the end: %s" % (
        "with" if fastsocket else "without", ", ".join(cut))
    return results


def counted(tests, grows):
    """@tests with fastsocket. That it has done something is seen in the counters @grows of the
    first namespace. Those of others end with them: there, that the library has asked is."""
    environment(True)
    with contextlib.ExitStack() as stack:
        asked, grown = Calls(stack, "fs_connect_port"), Delta()
        results = once(tests, True)
        counts = {name: getattr(grown, name) for name in COUNTERS}
        counts["asked"] = asked.hits()
    print("# " + ", ".join("%s %d" % item for item in counts.items()), flush=True)
    idle = [name for name in ("asked", *grows) if not counts[name]]
    assert not idle, "fastsocket did nothing: " + ", ".join(idle)
    return results


def by_chance(plain, ours):
    """Of the results of the first run and the repetitions: a test fails without us, too, or
    ends with us, in two of three repetitions, as it does without."""
    return (any(how not in ("ok", "skip", None) for how in plain) or
            ours[1:].count(statistics.mode(plain)) >= 2)


def compare(name, tests, grows=("connect_local",)):
    """@tests(env, only) gives a result for each test: all, or those in @only."""
    plain, ours = once(tests, False), counted(tests, grows)
    known = limits(name)
    differ = [t for t in {**plain, **ours} if plain.get(t) != ours.get(t)]
    again = [t for t in differ if t not in known]
    runs = {t: ([plain.get(t)], [ours.get(t)]) for t in again}
    for fastsocket in (False, True) * REPEATS if again else ():
        results = once(tests, fastsocket, again)
        for test in again:
            runs[test][fastsocket].append(results.get(test))

    ok = sum(how == "ok" for how in ours.values())
    alike = ["%s (%s)" % (t, how) for t, how in ours.items() if plain.get(t) == how != "ok"]
    print("# %s: %d tests, %d ok, %d not ok or skipped both ways: %s" % (
        name, len(ours), ok, len(alike), ", ".join(alike)), flush=True)
    for test in differ:
        print("# differs: %s: %s" % (
            test, known.get(test) or "%s without, %s with fastsocket" % runs[test]), flush=True)
    bad = [t for t in again if not by_chance(*runs[t])]
    assert ok and not bad, "different with fastsocket: " + ", ".join(bad)


def python(*modules, prefix=()):
    def tests(env, only):
        status, said = output([*prefix, "/usr/bin/python3", os.path.join(here, "unittests.py"),
                               *(only or modules)], env, cwd="/tmp")
        found = {name: how for how, name in re.findall(
            r"^(ok|error|failure|skip|expected|unexpected) ([\w.]+)$", said, re.M)}
        if status != 0:
            found["all: " + said.strip()[-200:].replace("\n", "; ")] = "cut"
        return found
    return tests


def parts(said):
    """The tests that a program says it is made of, as TAP, or in lines such as "NAME [ OK ]"
    and "PASS: NAME"; (name, result)."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", said)
    tap = re.findall(r"^(ok|not ok) \d+ (?:- )?([^#\n]*?) *(?:# (SKIP)?.*)?$", said, re.M)
    if tap:
        return [(name, "skip" if skip else how.replace("not ok", "failure"))
                for how, name, skip in tap]
    said = re.sub(r"(?m)^(PASS|FAIL|SKIP): (.*)", r"\2 [\1]", said)
    results = {"ok": "ok", "pass": "ok", "fail": "failure", "skip": "skip"}
    return [(name, results[how.lower()]) for name, how in re.findall(
        r"(?im)^(\S.*?)\s*(?:\(duration.*\) )?\[ *(ok|pass|fail|skip) *\]", said)]


def programs(base, commands, prefix=()):
    """Each command is a test, as are its parts, and runs where it is; status 4 is a skip, as
    the kernel's tests have it."""
    def tests(env, only):
        found = {}
        chosen = {test.split(": ")[0] for test in only or commands}
        for command in (c for c in commands if c in chosen):
            path, *args = command.split()
            cwd, program = os.path.split(os.path.join(base, path))
            assert os.access(os.path.join(cwd, program), os.X_OK), command + " is not there"
            started = time.monotonic()
            status, said = output([*prefix, "./" + program, *args], env, cwd)
            how = {0: "ok", 4: "skip", None: "cut"}.get(status, "failure")
            found[command] = how
            for name, result in parts(said):
                # Some have one name for several.
                name = "%s: %s" % (command, name)
                while name in found:
                    name += "'"
                found[name] = result
            print("# %s: %s, %d s%s" % (
                command, how, time.monotonic() - started,
                "" if how == "ok" else ": " + said.strip()[-200:].replace("\n", "; ")),
                flush=True)
        return found
    return tests


def selftests():
    """Those that this series has."""
    found = [re.fullmatch(r"(?:(\d+\.\d+) )?(.*)", row).groups() for row in rows("selftests")]
    return [command for series, command in found if series in (None, SERIES)]


@case
def test_socket(stack):
    """CPython's test_socket and test_selectors."""
    compare("python", python("test.test_socket", "test.test_selectors"))


@case
def test_asyncio(stack):
    """CPython's test_asyncio and test_socketserver."""
    compare("python", python("test.test_asyncio", "test.test_socketserver", prefix=BOUND),
            SERVED)


@case
def kernel_tcp(stack):
    """The kernel's self-tests of TCP sockets."""
    # The one takes hours under emulation, the other allows 5 s for a step.
    slow = ("tcp_fastopen_backup_key.sh", "netfilter/nft_tproxy_tcp.sh")
    if os.environ["FASTSOCKET_ACCEL"] == "kvm":
        slow = ()
    compare("linux", programs(SELFTESTS, [command for command in selftests()
                                          if not command.startswith(("mptcp/", *slow))]))


@case
def kernel_mptcp(stack):
    """The kernel's self-tests of MPTCP."""
    # All in namespaces of their own.
    compare("mptcp", programs(SELFTESTS, [command for command in selftests()
                                          if command.startswith("mptcp/")]), ())


@case
def redis(stack):
    """redis' own tests, with Debian's redis-server."""
    # Those about connections, not about data.
    units = ["unit/auth", "unit/info", "unit/introspection", "unit/limits", "unit/networking",
             "unit/pendingquerybuf", "unit/protocol", "unit/pubsub", "unit/querybuf", "unit/quit",
             "unit/shutdown", "unit/wait", "unit/cluster/links", "integration/redis-benchmark",
             "integration/replication-2", "integration/psync2-pingoff"]

    def tests(env, only):
        found = {}
        for unit in sorted({test.split(": ")[0] for test in only}) if only else units:
            status, said = output([*BOUND, "./runtest", "--clients", "1", "--durable",
                                   "--single", unit], env, DIR + "/redis")
            said = re.sub(r"\x1b\[[0-9;]*m", "", said)
            results = {"%s: %s" % (unit, name): how for how, name in re.findall(
                r"^\[(ok|err|ignore|skip|exception)\]: (.*?)(?: in tests/.*| \(\d+ ms\))?$",
                said, re.M)}
            ended = re.search("All tests passed|The following tests failed", said)
            results[unit] = "cut" if not ended else "failure" if status else "ok"
            print("# %s: %s, %d of %d ok" % (
                unit, results[unit], list(results.values()).count("ok"), len(results)),
                flush=True)
            found.update(results)
        return found
    compare("redis", tests, SERVED)


@case
def libuv(stack):
    """libuv's own tests of sockets."""
    # It does not run as root, and others may not be allowed where it was built.
    copy = "/tmp/libuv"
    os.makedirs(copy, exist_ok=True)
    shutil.copy(DIR + "/libuv/build/uv_run_tests_a", copy)
    os.chmod(copy, 0o777)
    as_nobody = "setpriv", "--reuid", "nobody", "--clear-groups"
    listed = run(*as_nobody, copy + "/uv_run_tests_a", "--list").splitlines()
    names = [line.split()[0] for line in listed]
    sockets = re.compile("accept|connect|getsockname|ipc|listen|ping_pong|poll_|shutdown|"
                         "socket|tcp|watcher_cross")
    compare("libuv", programs(copy, ["uv_run_tests_a " + name for name in names
                                      if sockets.search(name)], BOUND + as_nobody), SERVED)


@case
def stress_ng(stack):
    """stress-ng's socket stressors for a minute."""
    stressors = "sock", "sockabuse", "sockdiag", "sockfd", "sockmany", "sockpair"

    def tests(env, only):
        args = [arg for name in stressors for arg in ("--" + name, "1")]
        # With a shell's usual limit: the buffers of 65536 sockets are all of the memory.
        status, said = output(["prlimit", "--nofile=1024", "stress-ng", *args, "--timeout", "60",
                               "--verify", "--metrics-brief", "--temp-path", "/tmp"],
                              env, "/tmp", 300)
        found = {name: "ok" if re.search(r"\] %s +[1-9]" % name, said) else "failure"
                 for name in stressors}
        found["all"] = {0: "ok", None: "cut"}.get(status, "failure")
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
