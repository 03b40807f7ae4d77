#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What is taken for a complaint in a kernel's log, and what is not.

tree=$(cd "$(dirname "$0")/../.." && pwd)
n=0 failed=0

# Whether the log on standard input is one of a kernel that complains, as $1 says.
judge()	# yes|no NAME
{
	local log got=no said
	log=$(cat)
	said=$("$tree/tests/vm/splats" --first <<<"$log") && got=yes
	n=$((n + 1))
	if [ $got = "$1" ]; then
		echo "ok $n - $2"
	else
		failed=1
		echo "# $said"
		echo "not ok $n - $2"
	fi
}

trace()
{
	printf '%s\n' 'CPU: 0 PID: 7 Comm: a' 'Call Trace:' ' <TASK>' ' f+0x1/0x2' ' </TASK>'
}

echo "KTAP version 1"
lines=(
	'BUG: KASAN: slab-use-after-free in fs_close+0x1/0x2 [fastsocket]'
	'BUG: KCSAN: data-race in fs_syn [fastsocket] / tcp_close'
	'BUG kmalloc-64 (Tainted: G           O      ): Poison overwritten'
	'kernel BUG at net/core/skbuff.c:200!'
	'Oops: 0000 [#1] PREEMPT SMP'
	'divide error: 0000 [#1] PREEMPT SMP'
	'Kernel panic - not syncing: Fatal exception'
	'WARNING: CPU: 1 PID: 2 at net/ipv4/af_inet.c:160 inet_sock_destruct+0x1/0x2'
	'WARNING: possible circular locking dependency detected'
	'INFO: trying to register non-static key.'
	'UBSAN: array-index-out-of-bounds in net/a.c:1:2'
	'ODEBUG: free active (active state 0) object type: timer_list'
	'refcount_t: underflow; use-after-free.'
	'rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:'
	'INFO: task nginx:7 blocked for more than 120 seconds.'
	'huh, entered softirq 3 NET_RX with preempt_count 00000100, exited with 00000101?'
	'IPv4: Attempt to release TCP socket in state 1 00000000f0000000'
	'sysctl duplicate entry: /net/fastsocket/established'
	'kmem_cache_destroy fs_conn: Slab cache still has objects when called from fs_exit'
	'unregister_netdevice: waiting for lo to become free. Usage count = 2'
	'kmemleak: Cannot allocate a kmemleak_object structure'
	'kmemleak: Kernel memory leak detector disabled'
)
echo "1..$((${#lines[@]} + 8))"
for line in "${lines[@]}"; do
	judge yes "$line" <<<"[   12.345678] $line"
done

judge no "what a kernel says that is well" <<-END
	Linux version 6.1.0 (root@host)
	kmemleak: Kernel memory leak detector initialized (mem pool available: 39000)
	fastsocket: loading out-of-tree module taints kernel.
	nginx[7]: segfault at 0 ip 0 sp 0 error 4
END
judge no "a data race of the kernel's own" <<-END
	BUG: KCSAN: data-race in tick_irq_enter / tick_do_update
	Call Trace:
	==================================================================
END
judge yes "a data race of the module's after it" <<-END
	BUG: KCSAN: data-race in tick_irq_enter / tick_do_update
	==================================================================
	BUG: KCSAN: data-race in fs_syn [fastsocket] / fs_close [fastsocket]
	==================================================================
END
judge no "a report of memory that a test withholds" <<-END
	memory is withheld
	insmod: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL)
	$(trace)
	sysctl could not get directory: /net/fastsocket -12
	ref_tracker: memory allocation failure, unreliable refcount tracker.
	memory is given again
END
judge yes "the same report otherwise" <<-END
	memory is withheld
	memory is given again
	insmod: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL)
	$(trace)
END
judge yes "another soon after such a report" <<-END
	memory is withheld
	sysctl could not get directory: /net/fastsocket -12
	BUG: KASAN: slab-use-after-free in fs_close+0x1/0x2 [fastsocket]
	$(trace)
END
judge yes "another within its stack trace" <<-END
	memory is withheld
	insmod: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL)
	Call Trace:
	BUG: KASAN: slab-use-after-free in fs_close+0x1/0x2 [fastsocket]
END
judge yes "a stack trace later than such a report's own" <<-END
	memory is withheld
	sysctl could not get directory: /net/fastsocket -12
	$(printf 'line %d\n' {1..9})
	$(trace)
END
exit $failed
