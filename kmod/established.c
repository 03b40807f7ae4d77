// SPDX-License-Identifier: GPL-2.0
/*
 * The established tables: per CPU, the connections that it owns, found by
 * address and port before the stock lookup in the table of all CPUs.
 *
 * An entry holds a reference on its socket, and nothing of the socket is
 * changed: whatever else happens to it (kTLS, sockmap, IPV6_ADDRFORM, listen()
 * after a disconnect) does not concern the table, and unloading drops the
 * references. The price is that a closed socket is freed up to FS_ENDING_TICK
 * later. The packets that end a connection come through the table, so it
 * knows which sockets to look at; one that ends without a packet is found by
 * a walk over the table, slow where little comes and goes: it looks at several
 * connections for each that has come and not gone, so that the dead remain a
 * fraction of the table.
 *
 * A second index, by socket, tells of a packet that the stock lookup has found
 * whether its connection has an owner. It is split so that CPUs seldom meet.
 */
#include <linux/jhash.h>
#include <linux/rhashtable.h>
#include <linux/workqueue.h>
#include <net/inet6_hashtables.h>
#include <net/inet_hashtables.h>
#include <net/netns/hash.h>
#include <net/tcp.h>

#include "local.h"

/* Between looks at connections that are about to end. */
#define FS_ENDING_TICK		(HZ / 10)
/* Looks after which one that has not ended is left to the walk. */
#define FS_ENDING_LOOKS		10
/* The walk looks at this many connections of each CPU a second, or more: */
#define FS_WALK			4096
/* at these for each that has come since and is still there, */
#define FS_WALK_GROWTH		4
/* at once when so many have come, */
#define FS_GROWTH		(FS_WALK / FS_WALK_GROWTH)
/* and soon again where more than one in these was dead. */
#define FS_WALK_DEAD		8
/* A socket that has a port may take this long to connect(). */
#define FS_CONNECT_TIME		(2 * HZ)
/* Buckets at least: a table grows in a work item, which a burst outruns. */
#define FS_BUCKETS		4096
/* Entries to look at before softirqs may run again. */
#define FS_BATCH		64

#define FS_ALIVE	(TCPF_ESTABLISHED | TCPF_SYN_SENT | TCPF_SYN_RECV | \
			 TCPF_FIN_WAIT1 | TCPF_FIN_WAIT2 | TCPF_CLOSE_WAIT | \
			 TCPF_LAST_ACK | TCPF_CLOSING)
#define FS_CLOSING	(TCPF_FIN_WAIT1 | TCPF_FIN_WAIT2 | TCPF_LAST_ACK | \
			 TCPF_CLOSING)

enum fs_conn_state {
	FS_CONN_FILED,
	FS_CONN_ENDING,	/* in its core's list */
	FS_CONN_GONE,	/* out of the tables */
};

/**
 * struct fs_conn - a connection in the tables
 * @flow: in its core's table; RCU
 * @index: in the index by socket; RCU
 * @sk: its socket, held until a grace period after its removal
 * @hash: keyed hash of its addresses and ports
 * @born: jiffies when it was filed
 * @cpu: its owner
 * @kind: &enum fs_kind
 * @state: &enum fs_conn_state; under the core's lock
 * @looks: at it since it is in @ending
 * @begun: a packet has come, so connect() has been called
 * @ending: in its core's list; under the core's lock
 * @rcu: for freeing
 */
struct fs_conn {
	struct rhash_head flow;
	struct rhash_head index;
	struct sock *sk;
	u32 hash;
	u32 born;
	u16 cpu;
	u8 kind;
	u8 state;
	u8 looks;
	bool begun;
	union {
		struct list_head ending;
		struct rcu_head rcu;
	};
};

/**
 * struct fs_core - what one CPU owns
 * @flows: its connections by address and port
 * @lock: guards @ending and the connections' states
 * @ending: connections that have seen a FIN or RST
 * @nending: their number
 * @work: looks at @ending, and walks
 * @iter: where the walk is
 * @walked: jiffies of its last step
 * @left: connections that this step left in @flows
 * @walking: @iter is valid
 * @ticking: @work is queued
 */
struct fs_core {
	struct rhashtable flows;
	spinlock_t lock;	/* @ending, states */
	struct list_head ending;
	unsigned int nending;
	struct delayed_work work;
	struct rhashtable_iter iter;
	unsigned long walked;
	int left;
	bool walking;
	bool ticking;
};

/* What a packet is searched by. */
struct fs_key {
	const struct fs_packet *p;
	__portpair ports;
	u32 hash;
};

static DEFINE_PER_CPU(struct fs_core, fs_cores);
static struct rhashtable *fs_index;
static struct kmem_cache *fs_conns;
static u32 fs_secret __read_mostly;

static u32 fs_hash(const struct net *net, const struct fs_flow *flow)
{
	u32 ports = (__force u32)flow->sport << 16 | (__force u32)flow->dport;
	u32 seed = fs_secret ^ net_hash_mix(net);

	if (!flow->v6)
		return jhash_3words((__force u32)flow->saddr.s6_addr32[0],
				    (__force u32)flow->daddr.s6_addr32[0],
				    ports, seed);
	seed = jhash2((__force const u32 *)flow->saddr.s6_addr32, 4, seed);
	seed = jhash2((__force const u32 *)flow->daddr.s6_addr32, 4, seed);
	return jhash_1word(ports, seed);
}

/* The table has a secret of its own for each size, against chosen hashes. */
static u32 fs_key_hash(const void *data, u32 len, u32 seed)
{
	const struct fs_key *key = data;

	return jhash_1word(key->hash, seed);
}

static u32 fs_conn_hash(const void *data, u32 len, u32 seed)
{
	const struct fs_conn *conn = data;

	return jhash_1word(conn->hash, seed);
}

static bool fs_conn_match(const struct sock *sk, const struct fs_packet *p,
			  __portpair ports)
{
	INET_ADDR_COOKIE(cookie, ip_hdr(p->skb)->saddr, ip_hdr(p->skb)->daddr);

#if IS_ENABLED(CONFIG_IPV6)
	if (p->pf == NFPROTO_IPV6)
		return inet6_match(p->net, sk, &ipv6_hdr(p->skb)->saddr,
				   &ipv6_hdr(p->skb)->daddr, ports, p->dif, p->sdif);
#endif
	return inet_match(p->net, sk, cookie, ports, p->dif, p->sdif);
}

/*
 * 0 where it is the one. A socket that has left the stock table is not: there
 * may be a TIME_WAIT or a new connection in its place.
 */
static int fs_conn_cmp(struct rhashtable_compare_arg *arg, const void *obj)
{
	const struct fs_key *key = arg->key;
	const struct fs_conn *conn = obj;
	const struct sock *sk = conn->sk;

	return conn->hash != key->hash ||
	       !fs_conn_match(sk, key->p, key->ports) ||
	       !(BIT(READ_ONCE(sk->sk_state)) & FS_ALIVE) || sk_unhashed(sk);
}

static const struct rhashtable_params fs_flow_params = {
	.head_offset = offsetof(struct fs_conn, flow),
	.key_len = sizeof(struct fs_key),
	.hashfn = fs_key_hash,
	.obj_hashfn = fs_conn_hash,
	.obj_cmpfn = fs_conn_cmp,
	.min_size = FS_BUCKETS,
	.automatic_shrinking = true,
};

static const struct rhashtable_params fs_index_params = {
	.head_offset = offsetof(struct fs_conn, index),
	.key_offset = offsetof(struct fs_conn, sk),
	.key_len = sizeof(struct sock *),
	.min_size = FS_BUCKETS,
	.automatic_shrinking = true,
};

static struct rhashtable *fs_index_of(const struct sock *sk)
{
	return &fs_index[hash_ptr(sk, 16) % nr_cpu_ids];
}

static struct fs_conn *fs_conn_of(const struct sock *sk)
{
	return rhashtable_lookup(fs_index_of(sk), &sk, fs_index_params);
}

static void fs_conn_free(struct fs_conn *conn)
{
	sock_put(conn->sk);
	kmem_cache_free(fs_conns, conn);
}

static void fs_conn_free_rcu(struct rcu_head *rcu)
{
	fs_conn_free(container_of(rcu, struct fs_conn, rcu));
}

static void fs_conn_unlist(struct fs_core *core, struct fs_conn *conn)
{
	list_del(&conn->ending);
	WRITE_ONCE(core->nending, core->nending - 1);
}

static void fs_conn_remove(struct fs_core *core, struct fs_conn *conn)
{
	lockdep_assert_held(&core->lock);
	if (conn->state == FS_CONN_ENDING)
		fs_conn_unlist(core, conn);
	conn->state = FS_CONN_GONE;
	rhashtable_remove_fast(fs_index_of(conn->sk), &conn->index, fs_index_params);
	rhashtable_remove_fast(&core->flows, &conn->flow, fs_flow_params);
	call_rcu(&conn->rcu, fs_conn_free_rcu);
}

/* Its socket is no connection any more. */
static bool fs_conn_dead(const struct fs_conn *conn)
{
	int state = inet_sk_state_load(conn->sk);

	if (state == TCP_LISTEN)
		return true;
	if (state != TCP_CLOSE)
		return false;
	return conn->kind == FS_PASSIVE || READ_ONCE(conn->begun) ||
	       sock_flag(conn->sk, SOCK_DEAD) ||
	       (u32)jiffies - conn->born > FS_CONNECT_TIME;
}

/*
 * On the CPU that calls, nearly always the owner: a named one may go offline
 * before its timer is set.
 */
static void fs_tick(struct fs_core *core, unsigned long delay)
{
	mod_delayed_work(system_wq, &core->work, delay);
}

/* A packet has come after which the connection may end. */
static void fs_conn_ending(struct fs_conn *conn)
{
	struct fs_core *core = &per_cpu(fs_cores, conn->cpu);
	bool first = false;

	if (READ_ONCE(conn->state) != FS_CONN_FILED)
		return;
	spin_lock_bh(&core->lock);
	if (conn->state == FS_CONN_FILED) {
		first = !core->nending;
		WRITE_ONCE(core->nending, core->nending + 1);
		WRITE_ONCE(conn->state, FS_CONN_ENDING);
		conn->looks = 0;
		list_add_tail(&conn->ending, &core->ending);
	}
	spin_unlock_bh(&core->lock);
	if (first)
		fs_tick(core, FS_ENDING_TICK);
}

static void fs_conn_note(struct fs_conn *conn, const struct tcphdr *th)
{
	if (!READ_ONCE(conn->begun))
		WRITE_ONCE(conn->begun, true);
	if (th->fin || th->rst || (BIT(READ_ONCE(conn->sk->sk_state)) & FS_CLOSING))
		fs_conn_ending(conn);
}

/* One look at each of the list, oldest first. */
static void fs_look_at_ending(struct fs_core *core)
{
	struct fs_conn *conn;
	unsigned int n;

	spin_lock_bh(&core->lock);
	for (n = core->nending; n && core->nending; n--) {
		conn = list_first_entry(&core->ending, struct fs_conn, ending);
		if (fs_conn_dead(conn)) {
			fs_conn_remove(core, conn);
		} else if (++conn->looks == FS_ENDING_LOOKS) {
			fs_conn_unlist(core, conn);
			WRITE_ONCE(conn->state, FS_CONN_FILED);
		} else {
			list_move_tail(&conn->ending, &core->ending);
		}
		if (n % FS_BATCH == 0) {
			spin_unlock_bh(&core->lock);
			cond_resched();
			spin_lock_bh(&core->lock);
		}
	}
	spin_unlock_bh(&core->lock);
}

/* Some further steps over all of the core's connections; returns how many were dead. */
static unsigned int fs_walk(struct fs_core *core, unsigned int steps)
{
	unsigned int n, dead = 0;
	struct fs_conn *conn;

	if (!core->walking) {
		rhashtable_walk_enter(&core->flows, &core->iter);
		core->walking = true;
	}
	rhashtable_walk_start(&core->iter);
	for (n = 0; n < steps; n++) {
		conn = rhashtable_walk_next(&core->iter);
		if (IS_ERR(conn))
			continue;	/* resized: it begins again */
		if (!conn)
			break;
		if (fs_conn_dead(conn)) {
			dead++;
			spin_lock_bh(&core->lock);
			if (conn->state != FS_CONN_GONE)
				fs_conn_remove(core, conn);
			spin_unlock_bh(&core->lock);
		}
		if (n % FS_BATCH == 0 && need_resched()) {
			rhashtable_walk_stop(&core->iter);
			cond_resched();
			rhashtable_walk_start(&core->iter);
		}
	}
	rhashtable_walk_stop(&core->iter);
	if (n < steps) {
		rhashtable_walk_exit(&core->iter);
		core->walking = false;
	}
	return dead;
}

static int fs_grown(const struct fs_core *core)
{
	return atomic_read(&core->flows.nelems) - READ_ONCE(core->left);
}

static void fs_core_work(struct work_struct *work)
{
	struct fs_core *core = container_of(to_delayed_work(work),
					    struct fs_core, work);
	unsigned long delay;
	unsigned int steps;
	int grown;

	fs_look_at_ending(core);
	delay = READ_ONCE(core->nending) ? FS_ENDING_TICK : HZ;
	grown = fs_grown(core);
	if (grown >= FS_GROWTH || time_after_eq(jiffies, core->walked + HZ)) {
		steps = max(grown * FS_WALK_GROWTH, FS_WALK);
		core->walked = jiffies;
		if (fs_walk(core, steps) > steps / FS_WALK_DEAD) {
			core->walked -= HZ;
			delay = 1;
		}
		WRITE_ONCE(core->left, atomic_read(&core->flows.nelems));
	}

	if (!atomic_read(&core->flows.nelems)) {
		/* Pairs with fs_file(): one of the two sees the other. */
		smp_store_mb(core->ticking, false);
		if (!atomic_read(&core->flows.nelems) || xchg(&core->ticking, true))
			return;
	}
	fs_tick(core, delay);
}

static void fs_sock_flow(const struct sock *sk, struct fs_flow *flow)
{
	*flow = (struct fs_flow){
		.sport = sk->sk_dport,
		.dport = htons(sk->sk_num),
	};
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6 && !ipv6_addr_v4mapped(&sk->sk_v6_daddr)) {
		flow->v6 = true;
		flow->saddr = sk->sk_v6_daddr;
		flow->daddr = sk->sk_v6_rcv_saddr;
		return;
	}
#endif
	flow->saddr.s6_addr32[0] = sk->sk_daddr;
	flow->daddr.s6_addr32[0] = sk->sk_rcv_saddr;
}

/*
 * 0 where the entry is in the way of a new one with this hash: its socket has
 * not, or not any more, the addresses and ports that it was filed by.
 */
static int fs_conn_cmp_stale(struct rhashtable_compare_arg *arg, const void *obj)
{
	const struct fs_conn *conn = obj;
	u32 hash = *(const u32 *)arg->key;
	struct fs_flow flow;

	if (conn->hash != hash)
		return 1;
	if (!(BIT(READ_ONCE(conn->sk->sk_state)) & FS_ALIVE))
		return 0;
	fs_sock_flow(conn->sk, &flow);
	return fs_hash(sock_net(conn->sk), &flow) == hash;
}

static u32 fs_stale_hash(const void *data, u32 len, u32 seed)
{
	return jhash_1word(*(const u32 *)data, seed);
}

static const struct rhashtable_params fs_stale_params = {
	.head_offset = offsetof(struct fs_conn, flow),
	.key_len = sizeof(u32),
	.hashfn = fs_stale_hash,
	.obj_hashfn = fs_conn_hash,
	.obj_cmpfn = fs_conn_cmp_stale,
};

/* Both tables or none. */
static void fs_file(struct fs_net *fn, struct sock *sk, int cpu,
		    enum fs_kind kind, u32 hash, gfp_t gfp)
{
	struct fs_core *core = &per_cpu(fs_cores, cpu);
	struct fs_conn *conn, *old;
	bool grown;
	int err;

	conn = kmem_cache_zalloc(fs_conns, gfp | __GFP_NOWARN);
	if (!conn)
		return;
	sock_hold(sk);
	conn->sk = sk;
	conn->hash = hash;
	conn->born = jiffies;
	conn->cpu = cpu;
	conn->kind = kind;

	/* Under the lock, as whoever finds it in one table may remove it. */
	spin_lock_bh(&core->lock);
	/* However often a tuple is used again, no chain grows by it. */
	while ((old = rhashtable_lookup_fast(&core->flows, &hash, fs_stale_params)))
		fs_conn_remove(core, old);
	err = rhashtable_lookup_insert_fast(fs_index_of(sk), &conn->index,
					    fs_index_params);
	if (!err) {
		err = rhashtable_insert_fast(&core->flows, &conn->flow, fs_flow_params);
		if (err)
			fs_conn_remove(core, conn);
	} else {
		/* Nobody has seen it. */
		fs_conn_free(conn);
	}
	grown = fs_grown(core) == FS_GROWTH;
	spin_unlock_bh(&core->lock);
	if (err)
		return;

	if (!READ_ONCE(fn->filed))
		WRITE_ONCE(fn->filed, true);
	/* Pairs with fs_core_work(). */
	smp_mb();
	if (!READ_ONCE(core->ticking) && !xchg(&core->ticking, true))
		fs_tick(core, HZ);
	else if (grown)
		fs_tick(core, 0);
}

/**
 * fs_established_accepted() - file a connection of a local listener
 * @fn: the namespace's state
 * @sk: its socket, in the stock table
 * @cpu: the local listener's CPU
 * @gfp: for its entry
 *
 * Where there is no memory, the stock lookup finds it. Does nothing for one
 * that is filed already.
 *
 * Context: any but hard interrupt.
 */
void fs_established_accepted(struct fs_net *fn, struct sock *sk, int cpu,
			     gfp_t gfp)
{
	struct fs_flow flow;

	if (!READ_ONCE(fn->established))
		return;
	fs_sock_flow(sk, &flow);
	fs_file(fn, sk, cpu, FS_PASSIVE, fs_hash(sock_net(sk), &flow), gfp);
}

/**
 * fs_established_connects() - file a connection that is about to be made
 * @fn: the namespace's state
 * @sk: its socket, locked
 * @cpu: its owner
 * @flow: its addresses and ports; should connect() choose others, the
 *	table does not find it
 *
 * Before connect(), so that the SYN-ACK finds it.
 *
 * Context: process.
 */
void fs_established_connects(struct fs_net *fn, struct sock *sk, int cpu,
			     const struct fs_flow *flow)
{
	if (READ_ONCE(fn->established))
		fs_file(fn, sk, cpu, FS_ACTIVE, fs_hash(sock_net(sk), flow), GFP_KERNEL);
}

/**
 * fs_established_forget() - take a socket out of the tables, if it is there
 * @sk: the socket, locked
 *
 * Context: process.
 */
void fs_established_forget(struct sock *sk)
{
	struct fs_conn *conn;
	struct fs_core *core;

	rcu_read_lock();
	conn = fs_conn_of(sk);
	if (conn) {
		core = &per_cpu(fs_cores, conn->cpu);
		spin_lock_bh(&core->lock);
		if (conn->state != FS_CONN_GONE)
			fs_conn_remove(core, conn);
		spin_unlock_bh(&core->lock);
	}
	rcu_read_unlock();
}

/**
 * fs_established_stock() - the stock lookup of a packet's connection
 * @p: the packet
 *
 * Context: softirq, RCU read side.
 * Return: a connection, request or TIME_WAIT socket, held, or NULL.
 */
struct sock *fs_established_stock(const struct fs_packet *p)
{
	const struct tcphdr *th = p->th;

#if IS_ENABLED(CONFIG_IPV6)
	if (p->pf == NFPROTO_IPV6)
		return __inet6_lookup_established(p->net, fs_hashinfo(p->net),
						  &ipv6_hdr(p->skb)->saddr,
						  th->source,
						  &ipv6_hdr(p->skb)->daddr,
						  ntohs(th->dest), p->dif,
						  p->sdif);
#endif
	return __inet_lookup_established(p->net, fs_hashinfo(p->net),
					 ip_hdr(p->skb)->saddr, th->source,
					 ip_hdr(p->skb)->daddr, ntohs(th->dest),
					 p->dif, p->sdif);
}

/* The route that the socket's packets came by, as early demux does. */
static void fs_set_route(struct sk_buff *skb, const struct sock *sk, u8 pf)
{
	struct dst_entry *dst = rcu_dereference(sk->sk_rx_dst);

	if (!dst || skb_dst(skb) || sk->sk_rx_dst_ifindex != skb->skb_iif)
		return;
	dst = dst_check(dst, pf == NFPROTO_IPV6 ? sk->sk_rx_dst_cookie : 0);
	if (dst)
		skb_dst_set_noref(skb, dst);
}

/**
 * fs_established_find() - give a packet its socket and route, if this CPU owns it
 * @fn: the namespace's state
 * @p: the packet; it has no socket
 *
 * The socket is assigned with sock_efree(), which no other hook uses: so it
 * can be told from what early demux assigns.
 *
 * Context: softirq, RCU read side.
 */
void fs_established_find(struct fs_net *fn, const struct fs_packet *p)
{
	const struct tcphdr *th = p->th;
	struct fs_key key = {
		.p = p,
		.ports = INET_COMBINED_PORTS(th->source, ntohs(th->dest)),
	};
	struct fs_flow flow = { .sport = th->source, .dport = th->dest };
	struct fs_core *core = this_cpu_ptr(&fs_cores);
	struct fs_conn *conn;

	if (!atomic_read(&core->flows.nelems))
		return;
	if (p->pf == NFPROTO_IPV6) {
		flow.v6 = true;
		flow.saddr = ipv6_hdr(p->skb)->saddr;
		flow.daddr = ipv6_hdr(p->skb)->daddr;
	} else {
		flow.saddr.s6_addr32[0] = ip_hdr(p->skb)->saddr;
		flow.daddr.s6_addr32[0] = ip_hdr(p->skb)->daddr;
	}
	key.hash = fs_hash(p->net, &flow);
	conn = rhashtable_lookup(&core->flows, &key, fs_flow_params);
	if (!conn)
		return;

	/* The entry's own reference lasts until a grace period has passed. */
	sock_hold(conn->sk);
	p->skb->sk = conn->sk;
	p->skb->destructor = sock_efree;
	fs_set_route(p->skb, conn->sk, p->pf);
	if (conn->kind == FS_PASSIVE)
		fs_count(fn, passive_local);
	else
		fs_count(fn, active_local);
	fs_conn_note(conn, th);
}

/**
 * fs_established_same() - whether a packet is still of the socket it was given
 * @p: the packet; a rule may have rewritten it since
 *
 * Context: softirq, RCU read side.
 */
bool fs_established_same(const struct fs_packet *p)
{
	const struct sock *sk = p->skb->sk;

	if (sk->sk_dport != p->th->source || sk->sk_num != ntohs(p->th->dest))
		return false;
#if IS_ENABLED(CONFIG_IPV6)
	if (p->pf == NFPROTO_IPV6)
		return ipv6_addr_equal(&sk->sk_v6_daddr, &ipv6_hdr(p->skb)->saddr) &&
		       ipv6_addr_equal(&sk->sk_v6_rcv_saddr, &ipv6_hdr(p->skb)->daddr);
#endif
	return sk->sk_daddr == ip_hdr(p->skb)->saddr &&
	       sk->sk_rcv_saddr == ip_hdr(p->skb)->daddr;
}

static void fs_count_packet(struct fs_net *fn, enum fs_kind kind, bool here,
			    bool found)
{
	if (kind == FS_PASSIVE) {
		if (!here)
			fs_count(fn, passive_remote);
		else if (found)
			fs_count(fn, passive_local);
		else
			fs_count(fn, passive_missed);
	} else if (!here) {
		fs_count(fn, active_remote);
	} else {
		fs_count(fn, active_missed);
	}
}

/**
 * fs_established_count() - count a packet that the table did not find
 * @fn: the namespace's state
 * @p: the packet; what early demux has not found is looked up and assigned
 *
 * The ACK that ends a handshake counts by the CPU of its local listener.
 *
 * Context: softirq, RCU read side.
 */
void fs_established_count(struct fs_net *fn, const struct fs_packet *p)
{
	int cpu = smp_processor_id();
	const struct fs_local *l;
	struct fs_conn *conn;
	struct sock *sk;

	if (!p->skb->sk) {
		sk = fs_established_stock(p);
		if (!sk)
			return;
		p->skb->sk = sk;
		p->skb->destructor = sock_edemux;
	}
	sk = p->skb->sk;
	if (sk->sk_state == TCP_NEW_SYN_RECV) {
		l = fs_listen_of(inet_reqsk(sk)->rsk_listener);
		if (l)
			fs_count_packet(fn, FS_PASSIVE, l->cpu == cpu, true);
	} else if (sk_fullsock(sk)) {
		conn = fs_conn_of(sk);
		if (conn) {
			fs_count_packet(fn, conn->kind, conn->cpu == cpu, false);
			fs_conn_note(conn, p->th);
		}
	}
}

/* Nodes in the longest chain; a resize may make it wrong by a few. */
static unsigned int fs_longest(struct rhashtable *ht, unsigned int *buckets)
{
	const struct bucket_table *tbl;
	struct rhash_head *pos;
	unsigned int i, n, longest = 0;

	rcu_read_lock();
	tbl = rht_dereference_rcu(ht->tbl, ht);
	*buckets = tbl->size;
	for (i = 0; i < tbl->size; i++) {
		n = 0;
		rht_for_each_rcu(pos, tbl, i)
			n++;
		longest = max(longest, n);
	}
	rcu_read_unlock();
	return longest;
}

/**
 * fs_established_show() - the shape of the tables, a line per CPU
 * @seq: where to
 */
void fs_established_show(struct seq_file *seq)
{
	unsigned int longest, buckets;
	struct fs_core *core;
	int cpu;

	seq_puts(seq, "cpu connections buckets longest ending\n");
	for_each_possible_cpu(cpu) {
		core = &per_cpu(fs_cores, cpu);
		longest = fs_longest(&core->flows, &buckets);
		seq_printf(seq, "%d %d %u %u %u\n", cpu,
			   atomic_read(&core->flows.nelems), buckets, longest,
			   READ_ONCE(core->nending));
		cond_resched();
	}
}

int fs_established_init(void)
{
	struct fs_core *core;
	int cpu, i, err;

	get_random_bytes(&fs_secret, sizeof(fs_secret));
	fs_conns = KMEM_CACHE(fs_conn, 0);
	fs_index = kcalloc(nr_cpu_ids, sizeof(*fs_index), GFP_KERNEL);
	if (!fs_conns || !fs_index) {
		err = -ENOMEM;
		goto out;
	}
	for (i = 0; i < nr_cpu_ids; i++) {
		err = rhashtable_init(&fs_index[i], &fs_index_params);
		if (err)
			goto out_index;
	}
	for_each_possible_cpu(cpu) {
		core = &per_cpu(fs_cores, cpu);
		spin_lock_init(&core->lock);
		INIT_LIST_HEAD(&core->ending);
		INIT_DELAYED_WORK(&core->work, fs_core_work);
		core->walked = jiffies;
		err = rhashtable_init(&core->flows, &fs_flow_params);
		if (err)
			goto out_cores;
	}
	return 0;

out_cores:
	for_each_possible_cpu(i) {
		if (i == cpu)
			break;
		rhashtable_destroy(&per_cpu(fs_cores, i).flows);
	}
	i = nr_cpu_ids;
out_index:
	while (i--)
		rhashtable_destroy(&fs_index[i]);
out:
	kfree(fs_index);
	kmem_cache_destroy(fs_conns);
	return err;
}

static void fs_conn_release(void *ptr, void *arg)
{
	fs_conn_free(ptr);
}

/* At module exit: no hook, local listener or ioctl leads here any more. */
void fs_established_exit(void)
{
	struct fs_core *core;
	int cpu, i;

	for_each_possible_cpu(cpu) {
		core = &per_cpu(fs_cores, cpu);
		cancel_delayed_work_sync(&core->work);
		if (core->walking)
			rhashtable_walk_exit(&core->iter);
	}
	rcu_barrier();
	/* First: until then its own work may look at entries, to shrink it. */
	for (i = 0; i < nr_cpu_ids; i++)
		rhashtable_destroy(&fs_index[i]);
	for_each_possible_cpu(cpu)
		rhashtable_free_and_destroy(&per_cpu(fs_cores, cpu).flows,
					    fs_conn_release, NULL);
	kfree(fs_index);
	kmem_cache_destroy(fs_conns);
}
