#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC2046,SC2086,SC2317 # words meant, functions run by their names
# What can be fuzzed without a kernel, each with libFuzzer and sanitizers: the
# choice of ports, the command's options, its parsers of files; as KTAP.
# FUZZ_SECONDS is for how long each runs; SEED repeats a run.

tree=$(cd "$(dirname "$0")/../.." && pwd)
cd "$tree" || exit 1
seconds=${FUZZ_SECONDS:-60}
seed=${SEED:-$((RANDOM * 32768 + RANDOM + 1))}
dir=build/fuzz
flags="-g -O1 -Wall -Wextra -fno-sanitize-recover=all"
sanitizers=address,undefined
n=0 failed=0
# The command does not free what it has until it ends.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1

say()	# OK NAME
{
	n=$((n + 1))
	[ "$1" = 0 ] || { failed=1; printf 'not '; }
	echo "ok $n - $2"
}

echo "KTAP version 1"
echo "1..3"
mkdir -p $dir
if ! clang -fsanitize=fuzzer,$sanitizers -o $dir/empty -x c - 2>/dev/null <<-END
	#include <stddef.h>
	int LLVMFuzzerTestOneInput(const unsigned char *d, size_t n) { return !d && n; }
	END
then
	for name in ports options files; do
		say 0 "$name # SKIP libclang-rt-14-dev is not installed"
	done
	exit 0
fi
echo "# seed $seed: 'SEED=$seed $0' repeats it"

# The names of the command's objects.
object_names()
{
	(cd tools && printf '%s\n' *.c | sed '/\.bpf\./d; s/c$/o/')
}

# A copy, as the objects of the source tree are others.
objects()
{
	mkdir -p $dir/tools $dir/kmod
	cp -u tools/*.[ch] tools/Makefile $dir/tools/
	cp -ru kmod/uapi $dir/kmod/
	make -s -C $dir/tools CC=clang CPPFLAGS=-Dmain=fastsocket_main \
		CFLAGS="$flags -fsanitize=fuzzer-no-link,$sanitizers" \
		$(object_names)
}

# The command's objects without those of FILES, which the program includes.
with_objects()	# PROGRAM "FILE..." "WRAPPED..."
{
	local names
	names=$(object_names)
	for file in $2; do
		names=$(grep -vx "$file\.o" <<<"$names")
	done
	clang $flags -fsanitize=fuzzer,$sanitizers -D_GNU_SOURCE -DLIBDIR='"/usr/local/lib"' \
		-Itools -o $dir/$1 tests/fuzz/$1.c $(printf "$dir/tools/%s " $names) $(printf -- '-Wl,--wrap=%s ' $3) \
		$(pkg-config --cflags --libs json-c libmnl libbpf) -lm
}

build_ports_fuzz()
{
	clang $flags -fsanitize=fuzzer,$sanitizers -Ikmod -Ikmod/uapi \
		-include tests/fuzz/kernel.h -o $dir/ports_fuzz tests/fuzz/ports_fuzz.c kmod/ports.c
}

build_options_fuzz()
{
	objects && with_objects options_fuzz nic "argp_parse argp_error err errx" &&
		grep -oh '"[a-z-]\+"' tools/{fastsocket,nic,run,status}.c | tr -d '"' | sort -u |
		sed 's/.*/"&"\n"--&"/' >$dir/options_fuzz.dict
}

build_files_fuzz()
{
	objects && with_objects files_fuzz "nic_state run snapshot" "errx warnx" &&
		grep -oh '"[a-z0-9_-]\+"' tools/nic_{knob,state}.c | sort -u |
		sed 's/"\(.*\)"/"\\"\1\\""/' >$dir/files_fuzz.dict
}

# What it begins with, for what chance would not find.
examples()	# PROGRAM DIRECTORY
{
	case $1 in
	options_fuzz)
		printf 'run\n--library\n/lib.so\n--verbose\n--\ntrue\n-x' >"$2/run"
		printf 'status\n--json\n--watch=0.5' >"$2/status"
		printf 'nic\nsetup\n--steer=rss\n--cpus\n0\n--dry-run\neth0' >"$2/setup"
		printf 'nic\nshow\n--json\neth0' >"$2/show"
		;;
	files_fuzz)
		printf '00-3,8,10-8191' >"$2/list"
		printf '11f,00000000,0000000c' >"$2/mask"
		printf '2cpu queue drops\n0 1\t2\n1 3 4 5\n' >"$2/table"
		printf '3{"mode":"rss","told":"rss 0,1","xdp_cpus":"0-1","original":[%s],"rules":[%s]}' \
			'{"knob":"irq","index":1,"name":"eth0-rx","value":"0-3"}' \
			'{"index":65536,"classes":2,"queue":1,"location":7}' >"$2/state"
		printf '4#! /bin/sh -e\n' >"$2/script"
		{ printf 4; head -c 1000 /bin/true; } >"$2/program"
		printf '5 sl local remote\n   0: 0100007F:1F90 00000000:0000 %s\n' \
			'0A 00000000:00000000 00:00000000 00000000 0 0 12345 1' >"$2/tcp"
		;;
	esac
}

fuzz()	# PROGRAM NAME ARGUMENT...
{
	local program=$1 name=$2 log=$dir/$1.log status
	if ! build_"$program" >"$log" 2>&1; then
		tail -20 "$log" | sed 's/^/# /'
		say 1 "$name"
		return
	fi
	rm -rf "$dir/$program.corpus" "$dir/$program"-*
	mkdir "$dir/$program.corpus"
	examples "$program" "$dir/$program.corpus"
	# The shell, too, says that it was aborted.
	{
		"$dir/$program" -seed="$seed" -max_total_time="$seconds" -timeout=60 \
			-artifact_prefix="$dir/$program-" "${@:3}" "$dir/$program.corpus"
		status=$?
	} >"$log" 2>&1
	sed -n 's/^#\([0-9]*\).* cov: \([0-9]*\) ft: \([0-9]*\) corp: \([0-9]*\).*/# '"$program"': \1 executions, \2 edges, \3 features, \4 inputs kept/p' \
		"$log" | tail -1
	if [ $status != 0 ]; then
		grep -aE 'ERROR|runtime error|^ +#[0-9]+ |^SUMMARY|Test unit written' "$log" |
			head -25 | sed 's/^/# /'
		echo "# all of it: $log"
	fi
	say $status "$name"
}

fuzz ports_fuzz "every port whose replies come to a CPU is chosen for it, once, and no other" \
	-max_len=256 -len_control=0
# What is said of bad options is not to be seen.
fuzz options_fuzz "no options break the command" \
	-max_len=512 -dict=$dir/options_fuzz.dict -close_fd_mask=3
fuzz files_fuzz "no file's content breaks the command, and CPUs and states are read as they are written" \
	-max_len=1024 -dict=$dir/files_fuzz.dict
exit $failed
