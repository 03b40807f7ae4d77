/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the module share: the local listener, the per-namespace
 * state and the calls between the files.
 */
#ifndef _FS_LOCAL_H
#define _FS_LOCAL_H

#include <linux/hash.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/percpu.h>
#include <linux/seq_file.h>
#include <linux/srcu.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>
#include <net/sock.h>

#include "compat.h"
#include "fastsocket.h"

/* One column each of /proc/net/fastsocket/stats, in this order. */
#define FS_STATS(X) \
	X(syn_local) X(syn_slow) X(accept_local) X(accept_remote) \
	X(accept_slow) X(moved) X(spawned) X(closed) X(cookies)

struct fs_stats {
#define X(name) unsigned long name;
	FS_STATS(X)
#undef X
};

/**
 * struct fs_net - state of one network namespace
 * @listen_spawn: net.fastsocket.listen_spawn
 * @hooked: the packet hooks are registered; under fs_mutex
 * @live: local listeners that take SYNs; under fs_mutex
 * @flood_until: jiffies until which a SYN cookie may still come back
 * @stats: per-CPU counters
 * @sysctl: registered table
 * @table: its entries
 */
struct fs_net {
	int listen_spawn;
	bool hooked;
	unsigned int live;
	unsigned long flood_until;
	struct fs_stats __percpu *stats;
	struct ctl_table_header *sysctl;
	struct ctl_table *table;
};

extern unsigned int fs_net_id;

static inline struct fs_net *fs_net(const struct net *net)
{
	return net_generic(net, fs_net_id);
}

#define fs_count(fn, name)	this_cpu_inc((fn)->stats->name)
#define fs_count_n(fn, name, n)	this_cpu_add((fn)->stats->name, n)

/*
 * How long half-open connections get to finish on a listener that goes: a
 * client that has not answered four SYN-ACKs (at 0, 1, 3 and 7 s) is gone.
 */
#define FS_HALF_OPEN_TIME	(10 * HZ)

enum fs_state {
	FS_LIVE,	/* takes SYNs */
	FS_OFF,		/* has a descriptor, takes no SYN */
	FS_DRAINING,	/* closed; waits for its half-open connections */
};

/**
 * struct fs_local - a local listener
 * @node: in its CPU's listen table; RCU
 * @anywhere: in the table of all CPUs' local listeners; RCU
 * @list: in fs_locals or, draining, in fs_draining; under fs_mutex
 * @sk: its socket. Not owned: the descriptor or, when draining, @lite does
 * @parent: the application's listener, held
 * @key: @parent, or its SO_REUSEPORT group; what the table is searched for
 * @lite: takes over @sk when the descriptor is closed
 * @fn: its namespace's state
 * @cpu: the CPU whose SYNs it takes
 * @state: &enum fs_state; under fs_mutex
 * @turn: accept() calls, for the turns that start with the parent's queue
 * @accepted: connections taken from its own queue
 * @deadline: jiffies at which a draining listener is released regardless
 * @graces: RCU grace periods seen since it started to drain
 * @idle: had no half-open connection before the last of them
 * @fresh: started to drain after the current grace period began
 * @rcu: for freeing
 *
 * Its socket's sk_user_data points here (with SK_USER_DATA_NOCOPY, so that
 * children do not).
 */
struct fs_local {
	struct hlist_node node;
	struct hlist_node anywhere;
	struct sock *sk;
	struct sock *parent;
	const void *key;
	int cpu;
	enum fs_state state;
	unsigned int turn;
	atomic_long_t accepted;

	struct list_head list;
	struct socket *lite;
	struct fs_net *fn;
	unsigned long deadline;
	unsigned int graces;
	bool idle;
	bool fresh;
	struct rcu_head rcu;
};

/* Guards lists, tables and states; never taken in softirq. */
extern struct mutex fs_mutex;
/* Read side: inside a wrapped socket operation, so that unload can wait. */
extern struct srcu_struct fs_srcu;

static inline struct request_sock_queue *fs_queue(const struct sock *sk)
{
	return (struct request_sock_queue *)&inet_csk(sk)->icsk_accept_queue;
}

/* listen.c */
extern struct list_head fs_locals;
int fs_listen_parent(struct socket *sock);
int fs_listen_spawn(struct socket *psock, int *cpu, struct file **filp);
int fs_listen_sync(struct socket *psock);
struct fs_local *fs_listen_find(const struct sock *parent);
bool fs_listen_anywhere(const struct sock *parent);
void fs_listen_unpublish(struct fs_local *l);
void fs_listen_free(struct fs_local *l);
void fs_lite_free(struct socket *lite);
void fs_listen_detach_all(void);

/* syn.c */
int fs_syn_hook(struct net *net);
void fs_syn_unhook(struct net *net);

/* drain.c */
extern struct list_head fs_draining;
void fs_drain_move(struct fs_local *l);
void fs_drain_start(struct fs_local *l, struct socket *sock);
void fs_drain_flush(void);

/* options.c */
int fs_options_check(const struct sock *sk);
int fs_options_copy(struct socket *to, struct sock *from);

/* control.c */
int fs_control_init(void);
void fs_control_exit(void);

/* stats.c */
int fs_stats_init(struct net *net);
void fs_stats_exit(struct net *net);

#endif /* _FS_LOCAL_H */
