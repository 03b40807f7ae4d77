/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the module share: the local listener, the packet, the
 * per-namespace state and the calls between the files.
 */
#ifndef _FS_LOCAL_H
#define _FS_LOCAL_H

#include <linux/hash.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/netfilter.h>
#include <linux/percpu.h>
#include <linux/seq_file.h>
#include <linux/srcu.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>
#include <net/sock.h>

#include "compat.h"
#include "fastsocket.h"
#include "ports.h"

/* One column each of /proc/net/fastsocket/stats, in this order. */
#define FS_STATS(X) \
	X(syn_local) X(syn_slow) X(accept_local) X(accept_remote) \
	X(accept_slow) X(moved) X(spawned) X(closed) X(cookies) \
	X(passive_local) X(passive_remote) X(passive_missed) \
	X(active_local) X(active_remote) X(active_missed) \
	X(connect_local) X(connect_stock)

struct fs_stats {
#define X(name) unsigned long name;
	FS_STATS(X)
#undef X
};

/* Two of each protocol. */
#define FS_HOOKS	(IS_ENABLED(CONFIG_IPV6) ? 4 : 2)

/**
 * struct fs_net - state of one network namespace
 * @listen_spawn: net.fastsocket.listen_spawn
 * @established: net.fastsocket.established
 * @receive_flow_deliver: net.fastsocket.receive_flow_deliver
 * @accept_patience: net.fastsocket.accept_patience, in ms
 * @hooked: the packet @hooks are registered; set under fs_mutex
 * @filed: some connection has been filed since the namespace began
 * @live: local listeners that take SYNs; under fs_mutex
 * @locals: all of its local listeners; changed under fs_mutex, RCU
 * @steers: how its devices steer; changed under the RTNL, RCU
 * @flood_until: jiffies until which a SYN cookie may still come back
 * @stats: per-CPU counters
 * @hooks: its packet hooks
 * @sysctl: registered table
 * @table: its entries
 */
struct fs_net {
	int listen_spawn;
	int established;
	int receive_flow_deliver;
	int accept_patience;
	bool hooked;
	bool filed;
	unsigned int live;
	struct list_head locals;
	struct list_head steers;
	unsigned long flood_until;
	struct fs_stats __percpu *stats;
	struct nf_hook_ops hooks[FS_HOOKS];
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
 * @of_net: in its namespace's list; RCU
 * @drains: among the draining ones of its parent; under fs_mutex
 * @sk: its socket. Not owned: the descriptor or, when draining, @lite does
 * @parent: the application's listener, held
 * @key: for @parent, or its SO_REUSEPORT group; what the table is searched for.
 *	Changed under fs_mutex
 * @follow: held while the parent's options are copied, outside fs_mutex
 * @lite: takes over @sk when the descriptor is closed
 * @fn: its namespace's state
 * @cpu: the CPU whose SYNs it takes
 * @state: &enum fs_state; changed under fs_mutex
 * @turn: accept() calls, for the turns that start with the parent's queue
 * @accepted: connections taken from its own queue
 * @watched: what enters its queue is seen by fs_stall_work(); changed under fs_stall_lock
 * @stall_time: how long SYNs pass it over whose worker has not come; 0 before the first time
 * @stalled_until: jiffies; until then they do
 * @deadline: jiffies at which a draining listener is released regardless; 0 before
 * @graces: RCU grace periods seen since it started to drain
 * @idle: had no connection, half-open or in its queue, before the last of them
 * @fresh: started to drain after the current grace period began
 * @closing: is in close() still, which has it; under fs_mutex
 * @watch: among those that fs_stall_work() looks at; this and the rest under fs_stall_lock
 * @unwatched: is not to be looked at any more
 * @unwatched_gp: the RCU grace period that @watch needs after @watched has been cleared
 * @waits: connections waited at the last look
 * @waits_since: jiffies of the first such look
 * @waits_since_accepted: what @accepted was then
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
	unsigned long key;
	int cpu;
	enum fs_state state;
	unsigned int turn;
	atomic_long_t accepted;
	bool watched;
	unsigned long stall_time;
	unsigned long stalled_until;

	struct list_head list;
	struct list_head of_net;
	struct hlist_node drains;
	/* One copy of options at a time. */
	struct mutex follow;
	struct socket *lite;
	struct fs_net *fn;
	unsigned long deadline;
	unsigned int graces;
	bool idle;
	bool fresh;
	bool closing;
	struct list_head watch;
	bool unwatched;
	bool waits;
	unsigned long unwatched_gp;
	unsigned long waits_since;
	long waits_since_accepted;
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

static inline struct inet_hashinfo *fs_hashinfo(const struct net *net)
{
	return net->ipv4.tcp_death_row.hashinfo;
}

/* Whether @parent can have @sk for a local listener: after IPV6_ADDRFORM it cannot any more. */
static inline bool fs_listens_for(const struct sock *parent, const struct sock *sk)
{
	return READ_ONCE(parent->sk_state) == TCP_LISTEN &&
	       READ_ONCE(parent->sk_family) == sk->sk_family;
}

static inline bool fs_parent_listens(const struct fs_local *l)
{
	return fs_listens_for(l->parent, l->sk);
}

/* Whether connections wait for accept(). */
static inline bool fs_waits(const struct sock *sk)
{
	return !reqsk_queue_empty(fs_queue(sk));
}

static inline bool fs_parent_waits(const struct fs_local *l)
{
	return fs_parent_listens(l) && fs_waits(l->parent);
}

/* Whether SYNs pass it over, as its worker does not come. */
static inline bool fs_stalled(const struct fs_local *l)
{
	return READ_ONCE(l->stall_time) && time_before(jiffies, READ_ONCE(l->stalled_until));
}

/* listen.c */
extern struct list_head fs_locals;
int fs_listen_parent(struct socket *sock);
int fs_listen_lock(struct sock *sk, struct sock *parent);
void fs_listen_unlock(struct sock *sk, struct sock *parent);
int fs_listen_spawn(struct socket *psock, int *cpu, struct file **filp);
int fs_listen_sync(struct socket *psock);
int fs_listen_setsockopt(struct sock *sk, int optname, void *val, unsigned int len);
struct fs_local *fs_listen_find(const struct sock *parent);
bool fs_listen_anywhere(const struct sock *parent);
void fs_listen_unpublish(struct fs_local *l);
void fs_listen_free(struct fs_local *l);
void fs_listen_detach_all(void);
int fs_listen_init(void);
void fs_listen_exit(void);

struct fs_local *fs_listen_of(const struct sock *sk);

/**
 * struct fs_packet - a TCP packet on its way in, and what lookups need of it
 * @net: the namespace
 * @skb: the packet
 * @th: its TCP header, pulled
 * @thoff: where that begins
 * @dif: ifindex of the device
 * @sdif: in a VRF, ifindex of the device's slave
 * @pf: NFPROTO_IPV4 or NFPROTO_IPV6
 */
struct fs_packet {
	struct net *net;
	struct sk_buff *skb;
	const struct tcphdr *th;
	int thoff;
	int dif, sdif;
	u8 pf;
};

/* hook.c */
int fs_hook(struct net *net);
void fs_unhook(struct net *net);

/* syn.c */
void fs_syn(struct fs_net *fn, const struct fs_packet *p);
void fs_cookie(struct fs_net *fn, const struct fs_packet *p);

enum fs_kind {
	FS_PASSIVE,	/* accepted through a local listener */
	FS_ACTIVE,	/* connected by a port of ours */
};

/* established.c */
int fs_established_init(void);
void fs_established_exit(void);
struct sock *fs_established_stock(const struct fs_packet *p);
void fs_established_find(struct fs_net *fn, const struct fs_packet *p);
bool fs_established_same(const struct sk_buff *skb, u8 pf);
void fs_established_count(struct fs_net *fn, const struct fs_packet *p);
void fs_established_accepted(struct fs_net *fn, struct sock *sk, int cpu,
			     gfp_t gfp);
void fs_established_connects(struct fs_net *fn, struct sock *sk, int cpu,
			     const struct fs_flow *flow);
void fs_established_forget(struct sock *sk);
void fs_established_show(struct seq_file *seq);

/* connect.c */
int fs_connect_port(struct socket *sock, struct sockaddr_storage *addr, int len,
		    u32 flags);
int fs_connect_release(struct socket *sock);

/* steer.c */
#define FS_STEER_MAX	4096	/* classes or queues of a device */
int fs_steer_init(void);
void fs_steer_exit(void);
int fs_steer_set(struct net *net, const struct fastsocket_steer *arg,
		 const s32 *cpus);
void fs_steer_show(struct seq_file *seq, const struct net *net);
bool fs_ports_init(struct fs_ports *ports, const struct fs_flow *flow, int ifindex, int cpu,
		   int low, int high);

/* drain.c */
extern struct list_head fs_draining;
bool fs_drain_move(struct fs_local *l);
unsigned long fs_drain_deadline(struct fs_local *l);
void fs_drain_enter(struct fs_local *l);
bool fs_drain_start(struct fs_local *l);
void fs_drain_flush(void);

/* stall.c */
void fs_stall_watch(struct fs_local *l);
void fs_stall_forget(struct fs_local *l);
void fs_stall_exit(void);

/* options.c */
int fs_options_copy(struct sock *to, struct sock *from);

/* control.c */
int fs_control_init(void);
void fs_control_exit(void);

/* stats.c */
int fs_stats_init(struct net *net);
void fs_stats_exit(struct net *net);

#endif /* _FS_LOCAL_H */
