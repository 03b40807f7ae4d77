// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/net/fastsocket/: stats, a line per CPU; listeners, a line per local
 * listener of the namespace; nics, a line per device that steers; and, in the
 * first namespace, established, the shape of the tables. fastsocket(8)
 * describes the columns.
 */
#include <linux/proc_fs.h>
#include <linux/rculist.h>
#include <linux/seq_file_net.h>
#include <net/inet_connection_sock.h>
#include <net/tcp.h>

#include "local.h"

static int fs_stats_show(struct seq_file *seq, void *v)
{
	const struct fs_net *fn = fs_net(seq_file_single_net(seq));
	int cpu;

	seq_puts(seq, "cpu");
#define X(name) seq_puts(seq, " " #name);
	FS_STATS(X)
#undef X
	seq_putc(seq, '\n');

	for_each_possible_cpu(cpu) {
		const struct fs_stats *st = per_cpu_ptr(fn->stats, cpu);

		seq_printf(seq, "%d", cpu);
#define X(name) seq_printf(seq, " %lu", READ_ONCE(st->name));
		FS_STATS(X)
#undef X
		seq_putc(seq, '\n');
	}
	return 0;
}

static void *fs_listeners_start(struct seq_file *seq, loff_t *pos)
	__acquires(RCU)
{
	rcu_read_lock();
	return seq_list_start_head_rcu(&fs_net(seq_file_net(seq))->locals, *pos);
}

static void *fs_listeners_next(struct seq_file *seq, void *v, loff_t *pos)
{
	return seq_list_next_rcu(v, &fs_net(seq_file_net(seq))->locals, pos);
}

static void fs_listeners_stop(struct seq_file *seq, void *v)
	__releases(RCU)
{
	rcu_read_unlock();
}

/* Sockets of listeners are freed a grace period after their last user has gone. */
static int fs_listeners_show(struct seq_file *seq, void *v)
{
	static const char * const states[] = {
		[FS_LIVE] = "live",
		[FS_OFF] = "off",
		[FS_DRAINING] = "draining",
	};
	const struct fs_local *l = list_entry(v, struct fs_local, of_net);
	enum fs_state state;
	struct sock *sk;

	if (v == &fs_net(seq_file_net(seq))->locals) {
		seq_puts(seq, "cpu family local port inode parent_inode queue backlog half_open accepted drops state\n");
		return 0;
	}
	sk = l->sk;
	state = READ_ONCE(l->state);
	if (sk->sk_family == AF_INET6)
		seq_printf(seq, "%d 6 %pI6c", l->cpu, &sk->sk_v6_rcv_saddr);
	else
		seq_printf(seq, "%d 4 %pI4", l->cpu, &sk->sk_rcv_saddr);
	seq_printf(seq, " %u %lu %lu %u %u %d %ld %d %s\n", sk->sk_num,
		   state == FS_DRAINING ? 0 : sock_i_ino(sk),
		   sock_i_ino(l->parent), READ_ONCE(sk->sk_ack_backlog),
		   READ_ONCE(sk->sk_max_ack_backlog),
		   inet_csk_reqsk_queue_len(sk), atomic_long_read(&l->accepted),
		   atomic_read(&sk->sk_drops),
		   state == FS_LIVE && fs_stalled(l) ? "stalled" : states[state]);
	return 0;
}

static const struct seq_operations fs_listeners_ops = {
	.start = fs_listeners_start,
	.next = fs_listeners_next,
	.stop = fs_listeners_stop,
	.show = fs_listeners_show,
};

static int fs_nics_show(struct seq_file *seq, void *v)
{
	fs_steer_show(seq, seq_file_single_net(seq));
	return 0;
}

static int fs_tables_show(struct seq_file *seq, void *v)
{
	fs_established_show(seq);
	return 0;
}

int fs_stats_init(struct net *net)
{
	struct fs_net *fn = fs_net(net);
	struct proc_dir_entry *dir;

	fn->stats = alloc_percpu(struct fs_stats);
	if (!fn->stats)
		return -ENOMEM;
	dir = proc_net_mkdir(net, "fastsocket", net->proc_net);
	if (dir &&
	    proc_create_net_single("stats", 0444, dir, fs_stats_show, NULL) &&
	    proc_create_net("listeners", 0444, dir, &fs_listeners_ops,
			    sizeof(struct seq_net_private)) &&
	    proc_create_net_single("nics", 0444, dir, fs_nics_show, NULL) &&
	    (net != &init_net ||
	     proc_create_net_single("established", 0400, dir, fs_tables_show, NULL)))
		return 0;
	fs_stats_exit(net);
	return -ENOMEM;
}

void fs_stats_exit(struct net *net)
{
	remove_proc_subtree("fastsocket", net->proc_net);
	free_percpu(fs_net(net)->stats);
}
