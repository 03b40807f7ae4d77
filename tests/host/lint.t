#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# sparse, the compiler with W=1, checkpatch --strict and the man pages; as KTAP.

tree=$(cd "$(dirname "$0")/../.." && pwd)
cd "$tree" || exit 1
n=0 failed=0

# What checkpatch is not asked, and why: Documentation/limits.rst, "Style".
module=COMPLEX_MACRO,CONST_STRUCT,MACRO_ARG_PRECEDENCE,MACRO_ARG_REUSE,MACRO_ARG_UNUSED,TRAILING_SEMICOLON
user=ARRAY_SIZE,BIT_MACRO,BRACES,CAMELCASE,EMBEDDED_FUNCTION_NAME,ENOSYS,FUNCTION_ARGUMENTS,LONG_LINE,LONG_LINE_STRING,MACRO_ARG_REUSE,MACRO_WITH_FLOW_CONTROL,PREFER_DEFINED_ATTRIBUTE_MACRO,PREFER_KERNEL_TYPES,SPACING,SPLIT_STRING,SYMBOLIC_PERMS,VOLATILE

say()	# OK NAME OUTPUT
{
	n=$((n + 1))
	[ -z "$3" ] || sed 's/^/# /' <<<"$3"
	if [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		failed=$((failed + 1))
		echo "not ok $n - $2"
	fi
}

echo "KTAP version 1"
echo "1..$((2 * 4 + 2))"

# TARGET of the Makefile, its VARIABLE for where to build, and the MODULE that it makes
builds()
{
	local dir=build/lint-$1-$version out
	rm -rf "$dir"
	out=$(make -s "$1" KDIR="/lib/modules/$version/build" "$2=$dir" C=2 2>&1 |
		grep -E 'warning|error|Error')
	[ -z "$out" ] && [ -e "$dir/$3.ko" ]
	say $? "$series: $3 builds with W=1 and sparse without a warning" "$out"
	out=$(modinfo -F depends "$dir/$3.ko"; nm -u "$dir/$3.ko" | grep kallsyms)
	[ -z "$(tr -d ' \n' <<<"$out")" ]
	say $? "$series: $3 needs no other module and looks no symbol up" "$out"
}

for series in 6.1 6.12; do
	version=$(tests/vm/kernel "$series") || exit 1
	builds kmod KBUILD_DIR fastsocket
	builds nic NIC_DIR rssnic
done

tools=build/checkpatch
if [ ! -e $tools/scripts/checkpatch.pl ]; then
	mkdir -p $tools
	tar -xf /usr/src/linux-source-6.12.tar.xz -C $tools --strip-components=1 --occurrence=1 \
		linux-source-6.12/scripts/checkpatch.pl linux-source-6.12/scripts/spelling.txt \
		linux-source-6.12/scripts/const_structs.checkpatch
fi
checkpatch()	# IGNORE FILE...
{
	# From there and with a root, as it keeps a list of the kernel's names where it runs.
	local ignore=$1
	shift
	(cd $tools && mkdir -p include && perl scripts/checkpatch.pl --root=. --no-tree --strict \
		--terse --no-summary --show-types --ignore "$ignore" -f "${@/#/$tree/}" 2>&1)
}
out=$(checkpatch $module kmod/*.[ch] kmod/uapi/*.h tests/nic/*.[ch]
	checkpatch $user preload/*.[ch] tools/*.[ch] $(find tests benchmarks -name '*.c' ! -path 'tests/nic/*'))
[ -z "$out" ]
say $? "checkpatch --strict has nothing to say but what Documentation/limits.rst lists" "$out"

out=$(mandoc -T lint -W warning Documentation/*.[78] 2>&1)
say $? "the man pages are clean mdoc" "$out"

[ $failed = 0 ]
