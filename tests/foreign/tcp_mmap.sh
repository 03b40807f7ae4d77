#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's tcp_mmap, which comes without a script: one side maps what it receives
# (TCP_ZEROCOPY_RECEIVE), the other sends with MSG_ZEROCOPY. All has to arrive; on 6.12
# its digest is compared, too. prepare has made it 64 MB.

said=$(mktemp)
integrity=
grep -q "case 'i'" tcp_mmap.c && integrity=-i
stdbuf -oL ./tcp_mmap -s -z -M 4108 $integrity >"$said" 2>&1 &
trap 'kill $!; rm "$said"' EXIT
for _ in {1..100}; do
	ss -Htln 'sport = 8787' | grep -q . && break
	sleep 0.1
done
./tcp_mmap -H ::1 -z -M 4108 $integrity || exit 1
for _ in {1..100}; do
	grep -q '^received' "$said" && break
	sleep 0.1
done
cat "$said"
grep -q '^received 64 MB' "$said" && ! grep -q '^Error' "$said"
