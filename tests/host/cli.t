#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC2016,SC2317 # functions run by ok(), quotes meant
# The command fastsocket where no module is needed: options, errors, run, and
# status over the module's files as it would write them.

top=$(cd "$(dirname "$0")/../.." && pwd)
tmp=$(mktemp -d) || exit 1
pids=
trap 'kill $pids 2>/dev/null; rm -rf "$tmp"' EXIT
unset LD_PRELOAD FASTSOCKET FASTSOCKET_LOG FASTSOCKET_LIBRARY FASTSOCKET_BUSY_POLL
# libdir has no library in it, whatever is installed on this machine.
mkdir -p "$tmp/src/tools" "$tmp/src/kmod"
cp "$top"/tools/*.[ch] "$top/tools/Makefile" "$tmp/src/tools"
cp -r "$top/kmod/uapi" "$tmp/src/kmod"
make -s -C "$tmp/src/tools" libdir="$tmp/lib" VERSION=1.2.3 \
	CFLAGS="-O1 -g -Wall -Wextra -Werror" >"$tmp/log" 2>&1 || {
	sed 's/^/# /' "$tmp/log"
	echo "Bail out! tools/ does not build"
	exit 1
}
mkdir "$tmp/bin" "$tmp/lib" "$tmp/empty" "$tmp/preload"
mv "$tmp/src/tools/fastsocket" "$tmp/bin"
fs=$tmp/bin/fastsocket
lib=$tmp/empty/libfsocket.so
echo 'int fs_nothing;' >"$tmp/lib.c"
cc -shared -fPIC -o "$lib" "$tmp/lib.c"

n=0
failed=0
# ok NAME COMMAND...: the case passes if the command succeeds.
ok() {
	n=$((n + 1))
	name=$1
	shift
	if "$@" >"$tmp/log" 2>&1; then
		echo "ok $n $name"
	else
		echo "not ok $n $name"
		sed 's/^/# /' "$tmp/log"
		failed=1
	fi
}

# gives STATUS TEXT ARGS...: fastsocket ends with STATUS, and TEXT is on stderr
# (all of it is empty if TEXT is).
gives() {
	want=$1
	text=$2
	shift 2
	"$fs" "$@" >"$tmp/out" 2>"$tmp/err"
	got=$?
	echo "status $got, wanted $want"
	cat "$tmp/out" "$tmp/err"
	[ "$got" = "$want" ] || return 1
	if [ "$text" ]; then
		grep -qF -- "$text" "$tmp/err"
	else
		! [ -s "$tmp/err" ]
	fi
}

prints() {
	text=$1
	shift
	gives 0 "" "$@" && grep -qF -- "$text" "$tmp/out"
}

# Options and usage.
ok "--version" prints "fastsocket 1.2.3" --version
ok "--help names the commands" prints "unload" --help
ok "run --help" prints "--library=PATH" run --help
ok "status --help" prints "--watch" status --help
ok "nic --help" prints "reset DEVICE" nic --help
ok "nic setup --help" prints "--steer=MODE" nic setup --help
ok "nic show --help" prints "--json" nic show --help
ok "nic reset --help" prints "Usage: fastsocket nic reset" nic reset --help
ok "unload --help" prints "Usage: fastsocket unload" unload --help
ok "no command" gives 2 "a command is missing" 
ok "unknown command" gives 2 "no command 'bogus'" bogus
ok "nic without a command" gives 2 "a command is missing; the commands are setup, show and reset" nic
ok "unknown command of nic" gives 2 "no command 'nic bogus'" nic bogus
for command in setup show reset; do
	ok "nic $command without a device" gives 2 "the device is missing" nic $command
	ok "nic $command with two devices" gives 2 "'eth1' is too many" nic $command eth0 eth1
	ok "unknown option of nic $command" gives 2 "unrecognized option" nic $command --bogus eth0
done
ok "nic show: no such device" gives 1 "no device 'fs-nosuch' in this network namespace; there are" \
	nic show fs-nosuch
ok "nic show: a name that is too long" gives 1 "there is no device" \
	nic show fs-a-name-that-is-too-long
ok "nic show: loopback" gives 1 "lo is the loopback device" nic show lo
ok "nic setup: unknown mode" gives 2 "--steer is auto, ntuple, rss, xdp or off, not 'best'" \
	nic setup --steer best eth0
unprivileged() {
	chmod -R a+rX "$tmp"
	for command in setup reset; do
		! setpriv --reuid=65534 --regid=65534 --clear-groups \
			"$fs" nic $command lo 2>"$tmp/err" || return 1
		grep -F "run as root" "$tmp/err" || return 1
	done
}
[ "$(id -u)" != 0 ] || ok "nic setup and reset: not root" unprivileged
ok "unknown option" gives 2 "unrecognized option" --bogus
ok "unknown option of run" gives 2 "unrecognized option" run --bogus true
ok "unknown option of status" gives 2 "unrecognized option" status --bogus
ok "argument of status" gives 2 "Too many arguments" status nginx
ok "argument of unload" gives 2 "Too many arguments" unload nginx
for arg in 0 -1 x 1x nan inf ''; do
	ok "status --watch='$arg'" gives 2 "--watch wants seconds" status --watch="$arg"
done
ok "run without a program" gives 2 "program to run is missing" run
ok "run -- without a program" gives 2 "program to run is missing" run --

# Finding the library.
ok "no library: says where it looked" gives 125 "it is not in $tmp/lib;" run true
ok "--library that is not there" gives 125 "given by --library: No such file" \
	run --library "$tmp/none.so" true
FASTSOCKET_LIBRARY=$tmp/none.so
export FASTSOCKET_LIBRARY
ok "FASTSOCKET_LIBRARY that is not there" gives 125 "given by FASTSOCKET_LIBRARY" run true
ok "--library goes before FASTSOCKET_LIBRARY" prints "LD_PRELOAD=$lib" run -l "$lib" env
unset FASTSOCKET_LIBRARY
cp "$lib" "$tmp/preload"
ok "library of the source tree" prints "LD_PRELOAD=$tmp/preload/libfsocket.so" run env
cp "$lib" "$tmp/lib"
ok "installed library" prints "LD_PRELOAD=$tmp/lib/libfsocket.so" run env
ok "--busy-poll" prints "FASTSOCKET_BUSY_POLL=50" run --busy-poll env
ok "--busy-poll=USECS" prints "FASTSOCKET_BUSY_POLL=200" run --busy-poll=200 env
for arg in 0 -1 x 1x 1000001 ''; do
	ok "--busy-poll='$arg'" gives 2 "--busy-poll takes 1 to 1000000 microseconds, not '$arg'" \
		run --busy-poll="$arg" env
done
rm "$tmp/lib/libfsocket.so" "$tmp/preload/libfsocket.so"
mkdir "$tmp/a b"
cp "$lib" "$tmp/a b"
ok "library that LD_PRELOAD cannot name" gives 125 "no path with blanks" \
	run -l "$tmp/a b/libfsocket.so" true
cd "$tmp/empty" || exit 1
ok "relative path becomes absolute" prints "LD_PRELOAD=$tmp/empty/libfsocket.so" \
	run -l libfsocket.so env
cd "$top" || exit 1

FASTSOCKET_LIBRARY=$lib
export FASTSOCKET_LIBRARY

# The program, its arguments, environment and status.
faithful() {
	printf '%s\n' "a b" "" "--" "-v" '$x' "é" >"$tmp/want"
	"$fs" run "$@" printf '%s\n' "a b" "" "--" "-v" '$x' "é" >"$tmp/out" &&
		cmp "$tmp/want" "$tmp/out"
}
ok "arguments arrive as they are" faithful
ok "arguments arrive as they are, after --" faithful --
ok "argv[0] is not touched" prints "argv0=sh" run sh -c 'echo "argv0=$0"'
ok "exit status 0" gives 0 "" run true
ok "exit status 42" gives 42 "" run sh -c 'exit 42'
signalled() {
	"$fs" run sh -c 'kill -TERM $$'
	[ $? = 143 ]
}
ok "end by a signal" signalled
same_pid() {
	sh -c "echo \$\$; exec $fs run sh -c 'echo \$\$'" >"$tmp/out" &&
		[ "$(sort -u "$tmp/out" | wc -l)" = 1 ]
}
ok "takes the place of the command" same_pid
input() {
	[ "$(echo hello | "$fs" run cat)" = hello ]
}
ok "standard input arrives" input
environment() {
	env -i PATH="$PATH" A='x y' B= "$fs" run --library "$lib" env | sort >"$tmp/out"
	printf '%s\n' "A=x y" "B=" "LD_PRELOAD=$lib" "PATH=$PATH" | sort >"$tmp/want"
	diff "$tmp/want" "$tmp/out"
}
ok "environment is kept, nothing else added" environment

m=$(cc -print-file-name=libm.so.6)
list_is() {
	LD_PRELOAD=$1 "$fs" run sh -c 'echo "$LD_PRELOAD"' >"$tmp/out"
	echo "$2" | diff - "$tmp/out"
}
ok "LD_PRELOAD: others stay, behind" list_is "$m" "$lib:$m"
ok "LD_PRELOAD: separated by blanks" list_is "$m  $m" "$lib:$m:$m"
ok "LD_PRELOAD: not twice" list_is "$m:$lib" "$lib:$m"
ok "LD_PRELOAD: another copy goes" list_is "$tmp/a b/libfsocket.so" "$lib:$tmp/a"
loaded() {
	"$fs" run cat /proc/self/maps | grep -F "$lib"
}
ok "the library is loaded" loaded
ok "-v" prints "FASTSOCKET_LOG=info" run -v env
FASTSOCKET_LOG=debug
export FASTSOCKET_LOG
ok "-v does not make less of debug" prints "FASTSOCKET_LOG=debug" run -v env
unset FASTSOCKET_LOG

# A directory in PATH that may not be searched would make it 126, as in env(1).
path=$PATH
PATH=/usr/bin:/bin
ok "program that is not in PATH" gives 127 "no such program in PATH" run fs-no-such-program
PATH=$path
ok "path that is not there" gives 127 "cannot run /nope: No such file" run /nope
ok "file that is not executable" gives 126 "cannot run $tmp/lib.c: Permission denied" run "$tmp/lib.c"
ok "directory" gives 126 "cannot run $tmp: Permission denied" run "$tmp"
printf '#!/nope/sh\n' >"$tmp/script"
chmod +x "$tmp/script"
ok "script without its interpreter" gives 127 "interpreter it asks for does not exist" run "$tmp/script"
printf 'echo plain\n' >"$tmp/script"
ok "script without #!, as execvp() runs it" prints plain run "$tmp/script"

# Programs that a preload does not reach.
printf '#include <stdio.h>\nint main(void) { puts("ran"); return 0; }\n' >"$tmp/prog.c"
ran_with() {
	gives 0 "$@" && grep -q ran "$tmp/out" && [ "$(wc -l <"$tmp/err")" = 1 ]
}
cc -o "$tmp/prog" "$tmp/prog.c"
ok "no warning for a dynamic program" prints ran run "$tmp/prog"
cc -static -o "$tmp/static" "$tmp/prog.c"
ok "static program: one warning, and it runs" ran_with "is statically linked" run "$tmp/static"
cc -static-pie -o "$tmp/static-pie" "$tmp/prog.c"
ok "static PIE: one warning, and it runs" ran_with "is statically linked" run "$tmp/static-pie"
printf '#!%s\n' "$tmp/static" >"$tmp/script"
ok "script of a static interpreter: one warning" ran_with "is statically linked" run "$tmp/script"
if [ "$(id -u)" = 0 ]; then
	chmod 755 "$tmp" "$tmp/bin" "$tmp/empty"
	as_nobody() {
		want=$1
		shift
		setpriv --reuid=65534 --regid=65534 --clear-groups "$fs" "$@" \
			>"$tmp/out" 2>"$tmp/err"
		cat "$tmp/out" "$tmp/err"
		if [ "$want" ]; then
			grep -q ran "$tmp/out" && grep -F -- "$want" "$tmp/err"
		else
			grep -q ran "$tmp/out" && ! grep warning "$tmp/err"
		fi
	}
	cp "$tmp/prog" "$tmp/suid"
	chmod 4755 "$tmp/suid"
	ok "set-user-ID program: a warning" as_nobody "is set-user-ID" run "$tmp/suid"
	ok "set-user-ID program of the caller: none" prints ran run "$tmp/suid"
	cp "$tmp/prog" "$tmp/sgid"
	chmod 2755 "$tmp/sgid"
	ok "set-group-ID program: a warning" as_nobody "is set-group-ID" run "$tmp/sgid"
	chmod 0711 "$tmp/prog"
	ok "program that cannot be read" as_nobody "" run "$tmp/prog"
	cp "$tmp/static" "$tmp/caps"
	if setcap cap_net_bind_service+ep "$tmp/caps" 2>/dev/null; then
		chmod 755 "$tmp/caps"
		ok "program with capabilities: a warning" as_nobody "given capabilities" run "$tmp/caps"
	fi
fi

# Without the module.
if ! [ -e /proc/net/fastsocket ]; then
	ok "status without the module" gives 1 \
		"the module is not loaded in this kernel (no /proc/net/fastsocket); load it with: modprobe fastsocket" status
	ok "status --json without the module" gives 1 "is not loaded" status --json
	silent() {
		gives 1 "is not loaded" status --json && ! [ -s "$tmp/out" ]
	}
	ok "status --json without the module prints no object" silent
	ok "status --watch without the module" gives 1 "is not loaded" status --watch
	ok "unload without the module" gives 1 "fastsocket: " unload
fi

# Status, with /proc/net and the like read from a directory: a small library in
# front of libc stands for the module here.
cat >"$tmp/fake.c" <<'EOF'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *map(const char *path, char *buf)
{
	static const char * const dirs[] = {
		"/proc/net/", "/sys/module/fastsocket/", "/proc/sys/net/fastsocket/",
	};

	for (int i = 0; i < 3; i++) {
		size_t n = strlen(dirs[i]);

		if (strncmp(path, dirs[i], n))
			continue;
		snprintf(buf, 4096, "%s/%s", getenv("FAKE"), path + n);
		return buf;
	}
	return path;
}

int open(const char *path, int flags, ...)
{
	int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
	char buf[4096];

	return next(map(path, buf), flags, 0);
}

FILE *fopen(const char *path, const char *mode)
{
	FILE *(*next)(const char *, const char *) = dlsym(RTLD_NEXT, "fopen");
	char buf[4096];

	return next(map(path, buf), mode);
}
EOF
cc -shared -fPIC -o "$tmp/fake.so" "$tmp/fake.c"
# Sockets with processes that hold them: two workers with a local listener each
# and a master without, and a second listener that has none.
cat >"$tmp/server.py" <<'EOF'
import os, signal, socket, sys

top = sys.argv[1]
os.makedirs(top + "/fastsocket")

def name(text):
    open("/proc/self/comm", "w").write(text)

def listener(family, addr):
    sock = socket.socket(family)
    sock.bind((addr, 0))
    sock.listen()
    return sock

def inode(sock):
    return os.fstat(sock.fileno()).st_ino

def write(path, lines):
    open("%s/%s" % (top, path), "w").write("".join(line + "\n" for line in lines))

six = listener(socket.AF_INET6, "::1")
four = listener(socket.AF_INET, "127.0.0.1")
local = [listener(socket.AF_INET, "127.0.0.1") for _ in range(2)]
own = {str(inode(sock)) for sock in local}
for table in "tcp", "tcp6":
    lines = open("/proc/net/" + table).read().splitlines()
    keep = [line for line in lines[1:] if {str(inode(four)), str(inode(six))} & set(line.split())]
    write(table, [lines[0]] + keep)
port = four.getsockname()[1]
rows = ["cpu family local port inode parent_inode queue backlog half_open accepted drops state"]
for cpu, state in enumerate(("live", "stalled")):
    rows.append("%d 4 127.0.0.1 %d %d %d %d 128 0 10 %d %s" % (
        cpu, port, inode(local[cpu]), inode(four), cpu, 2 * cpu, state))
rows.append("1 4 127.0.0.1 %d 0 %d 3 128 1 5 0 draining" % (port, inode(four)))
write("fastsocket/listeners", rows)
write("fastsocket/stats", [
    "cpu syn_local syn_slow accept_local accept_remote accept_slow moved spawned closed cookies later",
    "0 100 1 98 0 2 0 1 0 0 7",
    "1 50 2 40 5 5 3 2 1 0 8"])
write("version", ["1.2.3"])
write("listen_spawn", ["2"])
workers = []
for cpu in 0, 1:
    pid = os.fork()
    if not pid:
        name("fs-worker")
        local[1 - cpu].close()
        six.close()
        signal.pause()
    workers.append(pid)
for sock in local:
    sock.close()
name("fs-master")
signal.signal(signal.SIGUSR1, lambda *_: name("fs\33[2J\xff"))
write("pids", ["%d %d %d %d %d" % (os.getpid(), *workers, port, six.getsockname()[1])])
while True:
    signal.pause()
EOF
mkdir "$tmp/proc"
python3 "$tmp/server.py" "$tmp/proc" &
pids=$!
for _ in $(seq 100); do
	[ -s "$tmp/proc/pids" ] && break
	sleep 0.1
done
sleep 0.3
read -r master w0 w1 port port6 <"$tmp/proc/pids"
pids="$master $w0 $w1"

status() {
	FAKE=$tmp/proc LD_PRELOAD=$tmp/fake.so "$fs" status "$@"
}
has() {
	pattern=$1
	shift
	status "$@" >"$tmp/out"
	cat "$tmp/out"
	tr -s ' ' <"$tmp/out" | grep -qE -- "$pattern"
}
without() {
	status >"$tmp/out"
	cat "$tmp/out"
	! grep -qE -- "$1" "$tmp/out"
}
if [ "$((w0 + 1))" = "$w1" ]; then workers="$w0,$w1"; else workers=".*"; fi
ok "status: version and mode" has '^fastsocket 1.2.3, net.fastsocket.listen_spawn = 2: each worker' 
ok "status: a core" has '^ *1 1 40 5 5 80\.0% 50 2 4 2$'
ok "status: totals" has '^ *all 2 138 5 7 92\.0% 150 3 4 2$'
ok "status: share" has '^Accepted on the core of the SYN: 92\.0%$'
ok "status without counters of packets: no table of them" without 'PASSIVE|core-local packets'
ok "status: workers" has "^fs-worker $workers 127\.0\.0\.1:$port 0,1 core-local$"
ok "status: the master takes the slow path" has "^fs-master $master 127\.0\.0\.1:$port - slow path$"
ok "status: a listener that does not use it" has "^fs-master $master \[::1\]:$port6 - not used$"

json() {
	status --json "$@" >"$tmp/out"
	cat "$tmp/out"
	python3 - "$tmp/out" "$master" "$w0" "$w1" "$port" "$port6" <<'EOF'
import json, sys

text = open(sys.argv[1]).read()
master, w0, w1, port, port6 = map(int, sys.argv[2:])
assert text.count("\n") == 1
s = json.loads(text)
assert s["version"] == "1.2.3" and s["listen_spawn"] == 2
assert [c["cpu"] for c in s["cpus"]] == [0, 1]
assert s["cpus"][1] == dict(
    cpu=1, syn_local=50, syn_slow=2, accept_local=40, accept_remote=5, accept_slow=5,
    moved=3, spawned=2, closed=1, cookies=0, later=8, listeners=1, queue=4, drops=2)
assert s["totals"]["accept_local"] == 138 and s["totals"]["later"] == 15
assert s["totals"]["listeners"] == 2 and s["totals"]["queue"] == 4
assert abs(s["local_share"] - 0.92) < 1e-6
assert "rates" not in s and s["passive_share"] is None and s["active_share"] is None
assert [l["state"] for l in s["listeners"]] == ["live", "stalled", "draining"]
assert [l["processes"] for l in s["listeners"]] == [
    [dict(pid=w0, name="fs-worker", threads=1)],
    [dict(pid=w1, name="fs-worker", threads=1)], []]
assert s["listeners"][0]["local"] == "127.0.0.1" and s["listeners"][0]["port"] == port
programs = {(p["name"], p["local"], p["port"]): p for p in s["programs"]}
assert len(programs) == len(s["programs"]) == 3
workers = programs["fs-worker", "127.0.0.1", port]
assert workers["pids"] == sorted([w0, w1]) and workers["cpus"] == [0, 1]
assert workers["connections"] == "core-local"
assert programs["fs-master", "127.0.0.1", port]["connections"] == "slow path"
assert programs["fs-master", "::1", port6]["pids"] == [master]
assert programs["fs-master", "::1", port6]["connections"] == "not used"
EOF
}
ok "status --json" json

# A module that counts packets, and one between that counts some.
cp "$tmp/proc/fastsocket/stats" "$tmp/before"
packets="passive_local passive_remote passive_missed active_local active_remote active_missed connect_local connect_stock"
sed "1s/\$/ $packets/; 2s/\$/ 900 60 40 0 0 0 7 0/; 3s/\$/ 99 1 0 30 20 10 5 2/" \
	"$tmp/before" >"$tmp/proc/fastsocket/stats"
ok "status: packets of a core" has '^ *1 99 1 0 99\.0% 30 20 10 66\.6% 5 2$'
ok "status: packets of a core that has made no connection" has '^ *0 900 60 40 94\.0% 0 0 0 - 7 0$'
ok "status: packets in all" has '^ *all 999 61 40 94\.4% 30 20 10 66\.6% 12 2$'
ok "status: core-local packets" has \
	'^core-local packets: passive 94\.4% \(1039 of 1100\), active 66\.6% \(40 of 60\)$'
packets_json() {
	status --json | python3 -c '
import json, sys
s = json.load(sys.stdin)
assert abs(s["passive_share"] - 1039 / 1100) < 1e-6 and abs(s["active_share"] - 2 / 3) < 1e-6
assert s["cpus"][1]["active_missed"] == 10 and s["totals"]["connect_local"] == 12
'
}
ok "status --json: packets" packets_json
sed "1s/\$/ passive_local passive_remote passive_missed/; 2s/\$/ 0 0 0/; 3s/\$/ 3 1 0/" \
	"$tmp/before" >"$tmp/proc/fastsocket/stats"
ok "status: columns that are not there" has '^ *all 3 1 0 75\.0% - - - - - -$'
ok "status: a share that is not known" has \
	'^core-local packets: passive 75\.0% \(3 of 4\), active -$'
cp "$tmp/before" "$tmp/proc/fastsocket/stats"

# Each frame once; the second one has rates of counters that have grown by then.
watch() {
	cp "$tmp/proc/fastsocket/stats" "$tmp/stats"
	# Not by status(): $! would be a shell around it.
	FAKE=$tmp/proc LD_PRELOAD=$tmp/fake.so "$fs" status --watch=1 "$@" >"$tmp/out" &
	watcher=$!
	sleep 0.5
	sed 's/^0 100 1 98 /0 300 1 298 /' "$tmp/stats" >"$tmp/stats.new"
	mv "$tmp/stats.new" "$tmp/proc/fastsocket/stats"
	i=0
	until [ "$(grep -cE 'Per second|"rates"' "$tmp/out")" -ge 1 ] || [ "$i" = 100 ]; do
		sleep 0.1
		i=$((i + 1))
	done
	sleep 0.2
	kill "$watcher"
	wait "$watcher"
	cp "$tmp/stats" "$tmp/proc/fastsocket/stats"
	cat "$tmp/out"
}
watch_text() {
	watch
	[ "$(grep -c '^Since the module was loaded:$' "$tmp/out")" = 1 ] &&
		grep -A4 '^Per second:$' "$tmp/out" | tr -s ' ' |
		grep -E '^ ?all 2 (1[0-9][0-9]|200) 0 0 100\.0% (1[0-9][0-9]|200) 0 4 2$'
}
ok "status --watch: totals first, then rates" watch_text
watch_json() {
	watch --json
	python3 -c '
import json, sys
first, second = [json.loads(line) for line in sys.stdin][:2]
assert "rates" not in first and 50 < second["rates"]["accept_local"] <= 200
assert second["totals"]["accept_local"] == 338 and second["time"] > first["time"]
' <"$tmp/out"
}
ok "status --watch --json: a line each time" watch_json
full() {
	! status --json >/dev/full 2>"$tmp/err" && grep -F "cannot write the output" "$tmp/err"
}
ok "status says so if its output cannot be written" full

echo 0 >"$tmp/proc/listen_spawn"
ok "listen_spawn 0: in words" has 'listen_spawn = 0: off, every connection takes the slow path$'
ok "listen_spawn 0: workers are off" has "^fs-worker $workers 127\.0\.0\.1:$port 0,1 off$"
echo 2 >"$tmp/proc/listen_spawn"
mv "$tmp/proc/version" "$tmp/version"
ok "version that cannot be read" has '^fastsocket \(unknown version\)'
mv "$tmp/version" "$tmp/proc/version"
if [ "$(id -u)" = 0 ]; then
	hidden() {
		chmod -R a+rX "$tmp"
		FAKE=$tmp/proc LD_PRELOAD=$tmp/fake.so setpriv --reuid=65534 \
			--regid=65534 --clear-groups "$fs" status >"$tmp/out"
		cat "$tmp/out"
		tr -s ' ' <"$tmp/out" | grep -F "? - 127.0.0.1:$port 0,1 core-local" &&
			grep "run as root to see all programs" "$tmp/out"
	}
	ok "status: processes that cannot be looked into" hidden
fi
renamed() {
	kill -USR1 "$master"
	sleep 0.2
	LC_ALL=C has '^fs\?\[2J\?\? '"$master " &&
		status --json | python3 -c 'import json, sys; json.load(sys.stdin)'
}
ok "status: a name that would speak to the terminal does not" renamed
gone() {
	mv "$tmp/proc/fastsocket" "$tmp/proc/away"
	status >"$tmp/out" 2>"$tmp/err"
	got=$?
	mv "$tmp/proc/away" "$tmp/proc/fastsocket"
	cat "$tmp/err"
	[ "$got" = 1 ] && grep "is not loaded" "$tmp/err"
}
ok "status once the module is gone" gone

# Manual pages.
if command -v mandoc >/dev/null; then
	lint() {
		! mandoc -Tlint -W warning "$top/Documentation/$1" 2>/dev/null | grep .
	}
	ok "fastsocket(8) has no lint" lint fastsocket.8
	ok "libfsocket(7) has no lint" lint libfsocket.7
fi
documented() {
	mandoc -Tutf8 "$top/Documentation/fastsocket.8" | col -b >"$tmp/man"
	for word in $("$fs" "$@" --help | grep -oE -- '--[a-z]+'); do
		echo "$word"
		grep -qF -- "$word" "$tmp/man" || return 1
	done
}
if command -v mandoc >/dev/null && command -v col >/dev/null; then
	ok "fastsocket(8) has every option of run" documented run
	ok "fastsocket(8) has every option of status" documented status
	ok "fastsocket(8) has every option of nic setup" documented nic setup
	ok "fastsocket(8) has every option of nic show" documented nic show
fi
columns() {
	for word in $(head -1 "$tmp/proc/fastsocket/stats" | sed 's/ later$//') $packets \
		    $(head -1 "$tmp/proc/fastsocket/listeners"); do
		grep -qE "^\.It Sy (.* , )?$word( ,.*)?$" "$top/Documentation/fastsocket.8" || {
			echo "$word"
			return 1
		}
	done
}
ok "fastsocket(8) has every column" columns

echo "1..$n"
exit $failed
