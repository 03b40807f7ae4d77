#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# make install, make uninstall and DKMS, in a copy of the tree and directories
# of their own: nothing of the machine is changed.

tree=$(cd "$(dirname "$0")/../.." && pwd)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/fastsocket-install.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/src"
(cd "$tree" && cp -r Makefile kmod preload tools tests Documentation "$tmp/src/") || exit 1
cd "$tmp/src" || exit 1
kernel=$("$tree/tests/vm/kernel" 6.1) || exit 1
kdir=/lib/modules/$kernel/build
release=$(sed -n 's/^VERSION = //p' Makefile)

n=0 failed=0
check()	# NAME COMMAND...
{
	n=$((n + 1))
	if "${@:2}" >"$tmp/log" 2>&1; then
		echo "ok $n - $1"
	else
		failed=1
		sed 's/^/# /' "$tmp/log"
		echo "not ok $n - $1"
	fi
}

files()
{
	(cd "$1" && find . ! -type d | sort)
}

install_to()	# ROOT PREFIX
{
	make -s clean &&
	make -s DESTDIR="$1" prefix="$2" KDIR="$kdir" install || return 1
	diff <(files "$1") - <<-END
		./lib/modules/$kernel/updates/fastsocket.ko
		.$2/include/fastsocket.h
		.$2/lib/libfsocket.so
		.$2/sbin/fastsocket
		.$2/share/man/man7/libfsocket.7
		.$2/share/man/man8/fastsocket.8
	END
}

quiet()
{
	make -s clean && out=$(make -s KDIR="$kdir" 2>&1) || { echo "$out"; return 1; }
	! grep -iE 'warning|error' <<<"$out"
}

uninstall_from()	# ROOT PREFIX
{
	touch "$1$2/lib/other"
	make -s DESTDIR="$1" prefix="$2" KDIR="$kdir" uninstall || return 1
	[ "$(files "$1")" = ".$2/lib/other" ]
}

# The command looks where it was installed to.
finds_library()	# PREFIX
{
	make -s DESTDIR="" prefix="$1" user &&
	make -s DESTDIR="" prefix="$1" install-user &&
	"$1/sbin/fastsocket" run -- /bin/sh -c 'echo "$LD_PRELOAD"' 2>/dev/null |
		grep -qF "$1/lib/libfsocket.so"
}

no_headers()
{
	! out=$(make KDIR=/nonexistent 2>&1) &&
	grep -q 'No headers' <<<"$out" && grep -q 'linux-headers' <<<"$out"
}

dkms_builds()	# KERNEL
{
	dkms build --dkmstree "$tmp/dkms" --sourcetree "$tmp/root/usr/src" \
		--kernelsourcedir "/lib/modules/$1/build" \
		-m fastsocket -v "$release" -k "$1" || return 1
	ko=$(find "$tmp/dkms/fastsocket/$release/$1" -name 'fastsocket.ko*')
	[ "$(modinfo -F version "$ko")" = "$release" ] &&
	modinfo -F vermagic "$ko" | grep -q "^$1 "
}

dkms_adds()
{
	mkdir -p "$tmp/dkms" && make -s DESTDIR="$tmp/root" dkms-source &&
	dkms add --dkmstree "$tmp/dkms" --sourcetree "$tmp/root/usr/src" \
		-m fastsocket -v "$release"
}

echo "KTAP version 1"
echo 1..9
check "make builds everything without a warning" quiet
check "make install puts the files under DESTDIR and /usr/local, and no others" \
	install_to "$tmp/one" /usr/local
check "so it does with another prefix" install_to "$tmp/two" /opt/fast
check "make uninstall removes them and nothing else" uninstall_from "$tmp/two" /opt/fast
check "fastsocket run finds the library of its own prefix" finds_library "$tmp/prefix"
check "without headers make says which package is missing" no_headers
check "DKMS takes the sources" dkms_adds
check "DKMS builds the module for 6.1" dkms_builds "$kernel"
check "DKMS builds the module for 6.12" dkms_builds "$("$tree/tests/vm/kernel" 6.12)"
[ $failed = 0 ]
