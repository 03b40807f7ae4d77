// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/net/fastsocket/: stats, a line per CPU; listeners, a line per local
 * listener of the namespace; nics, a line per device that steers; and, in the
 * first namespace, established, the shape of the tables. fastsocket(8)
 * describes the columns.
 */
#include <linux/proc_fs.h>
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

static void fs_listener_show(struct seq_file *seq, const struct fs_local *l)
{
	static const char * const states[] = {
		[FS_LIVE] = "live",
		[FS_OFF] = "off",
		[FS_DRAINING] = "draining",
	};
	struct sock *sk = l->sk;

	if (sk->sk_family == AF_INET6)
		seq_printf(seq, "%d 6 %pI6c", l->cpu, &sk->sk_v6_rcv_saddr);
	else
		seq_printf(seq, "%d 4 %pI4", l->cpu, &sk->sk_rcv_saddr);
	seq_printf(seq, " %u %lu %lu %u %u %d %ld %d %s\n", sk->sk_num,
		   l->state == FS_DRAINING ? 0 : sock_i_ino(sk),
		   sock_i_ino(l->parent), READ_ONCE(sk->sk_ack_backlog),
		   READ_ONCE(sk->sk_max_ack_backlog),
		   inet_csk_reqsk_queue_len(sk), atomic_long_read(&l->accepted),
		   atomic_read(&sk->sk_drops), states[l->state]);
}

static int fs_listeners_show(struct seq_file *seq, void *v)
{
	const struct fs_net *fn = fs_net(seq_file_single_net(seq));
	const struct fs_local *l;

	seq_puts(seq, "cpu family local port inode parent_inode queue backlog half_open accepted drops state\n");
	mutex_lock(&fs_mutex);
	list_for_each_entry(l, &fs_locals, list)
		if (l->fn == fn)
			fs_listener_show(seq, l);
	list_for_each_entry(l, &fs_draining, list)
		if (l->fn == fn)
			fs_listener_show(seq, l);
	mutex_unlock(&fs_mutex);
	return 0;
}

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
	    proc_create_net_single("listeners", 0444, dir, fs_listeners_show, NULL) &&
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
