// SPDX-License-Identifier: GPL-2.0
/*
 * The established tables: per CPU, the connections that it owns, found by
 * address and port before the stock lookup in the table of all CPUs.
 *
 * An entry holds a reference on its socket, and nothing of the socket is
 * changed: whatever else happens to it (kTLS, sockmap, IPV6_ADDRFORM, listen()
 * after a disconnect) does not concern the table, and unloading drops the
 * references. The price is that a closed socket is freed later: when the next
 * connections of its CPU end, or some FS_ENDING_TICK later. The packets that end a
 * connection come through the table, so it knows which sockets to look at; one
 * that ends without a packet is found by going round all of them, slowly where
 * little comes and goes: several are looked at for each that has come and not
 * gone, so that the dead remain a fraction of the table.
 *
 * Sockets of TCP keep their type for a grace period after they are freed
 * (SLAB_TYPESAFE_BY_RCU), as the stock lookup needs: so does this one. Where the
 * entry has gone meanwhile, what it points to may be another connection, or none.
 *
 * An index by socket tells of a packet that the stock lookup has found whether
 * its connection has an owner. All CPUs have it in common and seldom meet there,
 * as it is laid out like the memory that the sockets are in.
 */
#include <linux/jhash.h>
#include <linux/log2.h>
#include <linux/rculist.h>
#include <linux/rhashtable.h>
#include <linux/timer.h>
#include <linux/workqueue.h>
#include <net/inet6_hashtables.h>
#include <net/inet_hashtables.h>
#include <net/netns/hash.h>
#include <net/tcp.h>

#include "local.h"

/* Between looks at connections that are about to end. */
#define FS_ENDING_TICK		(HZ / 10)
/* The longest waiting of them that are looked at when one more comes. */
#define FS_ENDING_EACH		2U
/* Ticks after which one that has not ended is one of all again. */
#define FS_ENDING_TICKS		10
/* The round looks at this many connections of each CPU a second, or more: */
#define FS_ROUND		4096
/* at these for each that has come since and is still there, */
#define FS_ROUND_GROWTH		4
/* at once when so many have come, */
#define FS_GROWTH		(FS_ROUND / FS_ROUND_GROWTH)
/* and soon again where more than one in these was dead. */
#define FS_ROUND_DEAD		8
/* A socket that has a port may take this long to connect(). */
#define FS_CONNECT_TIME		(2 * HZ)
/* Buckets at least: a table grows in a work item, which a burst outruns. */
#define FS_BUCKETS		4096
/* Entries to look at under one lock, and in one timer. */
#define FS_BATCH		64U

/* A slab of sockets: 32 KiB, with more than 2 KiB for each. */
#define FS_SLAB_SHIFT		15
/* Lists in a bucket of the index, so that it is one cache line. */
#define FS_BUCKET_LISTS		7
/* The index has a bucket for 8 of the stock table's, but from 2^9 to 2^17. */
#define FS_INDEX_SHIFT		3
#define FS_INDEX_MIN		9
#define FS_INDEX_MAX		17

#define FS_ALIVE	(TCPF_ESTABLISHED | TCPF_SYN_SENT | TCPF_SYN_RECV | \
			 TCPF_FIN_WAIT1 | TCPF_FIN_WAIT2 | TCPF_CLOSE_WAIT | \
			 TCPF_LAST_ACK | TCPF_CLOSING)
#define FS_CLOSING	(TCPF_FIN_WAIT1 | TCPF_FIN_WAIT2 | TCPF_LAST_ACK | \
			 TCPF_CLOSING)

enum fs_conn_state {
	FS_CONN_FILED,
	FS_CONN_ENDING,
	FS_CONN_GONE,	/* out of the tables */
};

/**
 * struct fs_conn - a connection in the tables
 * @flow: in its core's table; RCU
 * @index: in the index by socket; RCU
 * @list: in its core's list of those in this state, under the core's lock;
 *	then in one of those to be freed
 * @rcu: for freeing
 * @sk: its socket, held until its removal
 * @hash: keyed hash of its addresses and ports
 * @born: jiffies when it was filed
 * @cpu: its owner
 * @kind: &enum fs_kind
 * @state: &enum fs_conn_state; under the core's lock
 * @ticks: that have looked at it since it is ending
 * @begun: a packet has come, so connect() has been called
 *
 * One cache line, so that no other CPU's connection is in it.
 */
struct fs_conn {
	struct rhash_head flow;
	struct hlist_node index;
	union {
		struct list_head list;
		struct rcu_head rcu;
	};
	struct sock *sk;
	u32 hash;
	u32 born;
	u16 cpu;
	u8 kind;
	u8 state;
	u8 ticks;
	bool begun;
};

/**
 * struct fs_core - what one CPU owns
 * @flows: its connections by address and port
 * @lock: guards the lists and the connections' states
 * @filed: those that go on, in the order in which they are looked at
 * @ending: those that have seen a FIN or RST
 * @nending: their number
 * @timer: looks at @ending, and queues @work
 * @work: looks at some of @filed
 * @looked: jiffies when it began to
 * @left: connections that this left in @flows
 * @ticking: @timer is set, or about to set itself
 */
struct fs_core {
	struct rhashtable flows;
	spinlock_t lock;	/* lists, states */
	struct list_head filed;
	struct list_head ending;
	unsigned int nending;
	struct timer_list timer;
	struct work_struct work;
	unsigned long looked;
	int left;
	bool ticking;
};

/**
 * struct fs_bucket - of the index: the connections of some slabs of sockets
 * @lock: guards the lists
 * @lists: each for a part of a slab; RCU
 *
 * The CPU that has made the sockets of a slab nearly always keeps them, and a
 * bucket is seldom of two slabs: so CPUs do not meet here.
 */
struct fs_bucket {
	spinlock_t lock;	/* lists */
	struct hlist_head lists[FS_BUCKET_LISTS];
} ____cacheline_aligned;

/* What a packet is searched by. */
struct fs_key {
	const struct fs_packet *p;
	__portpair ports;
	u32 hash;
};

static DEFINE_PER_CPU(struct fs_core, fs_cores);
static struct fs_bucket *fs_index;
static unsigned int fs_index_bits __read_mostly;
static struct kmem_cache *fs_conns;
static u32 fs_secret __read_mostly;

static u32 fs_hash4(const struct net *net, __be32 saddr, __be32 daddr, u32 ports)
{
	return jhash_3words((__force u32)saddr, (__force u32)daddr, ports,
			    fs_secret ^ net_hash_mix(net));
}

static u32 fs_hash6(const struct net *net, const struct in6_addr *saddr,
		    const struct in6_addr *daddr, u32 ports)
{
	u32 seed = fs_secret ^ net_hash_mix(net);

	seed = jhash2((__force const u32 *)saddr->s6_addr32, 4, seed);
	seed = jhash2((__force const u32 *)daddr->s6_addr32, 4, seed);
	return jhash_1word(ports, seed);
}

static u32 fs_hash_ports(__be16 sport, __be16 dport)
{
	return (__force u32)sport << 16 | (__force u32)dport;
}

static u32 fs_hash(const struct net *net, const struct fs_flow *flow)
{
	u32 ports = fs_hash_ports(flow->sport, flow->dport);

	if (flow->v6)
		return fs_hash6(net, &flow->saddr, &flow->daddr, ports);
	return fs_hash4(net, flow->saddr.s6_addr32[0], flow->daddr.s6_addr32[0], ports);
}

/* So that other ones of the keyed hashes share a chain when the table has grown. */
static u32 fs_mix(u32 hash, u32 seed)
{
	hash = (hash ^ seed) * GOLDEN_RATIO_32;
	return hash ^ hash >> 16;
}

static u32 fs_key_hash(const void *data, u32 len, u32 seed)
{
	const struct fs_key *key = data;

	return fs_mix(key->hash, seed);
}

static u32 fs_conn_hash(const void *data, u32 len, u32 seed)
{
	const struct fs_conn *conn = data;

	return fs_mix(conn->hash, seed);
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

static struct fs_bucket *fs_bucket_of(const struct sock *sk)
{
	return &fs_index[hash_long((unsigned long)sk >> FS_SLAB_SHIFT, fs_index_bits)];
}

static struct hlist_head *fs_list_of(struct fs_bucket *bucket, const struct sock *sk)
{
	unsigned long place = (unsigned long)sk & (BIT(FS_SLAB_SHIFT) - 1);

	return &bucket->lists[place * FS_BUCKET_LISTS >> FS_SLAB_SHIFT];
}

static struct fs_conn *fs_conn_of(const struct sock *sk)
{
	struct fs_bucket *bucket = fs_bucket_of(sk);
	struct fs_conn *conn;

	hlist_for_each_entry_rcu(conn, fs_list_of(bucket, sk), index,
				 lockdep_is_held(&bucket->lock))
		if (conn->sk == sk)
			return conn;
	return NULL;
}

/* False where its socket is in the index already. */
static bool fs_index_add(struct fs_conn *conn)
{
	struct fs_bucket *bucket = fs_bucket_of(conn->sk);
	bool fresh;

	spin_lock_bh(&bucket->lock);
	fresh = !fs_conn_of(conn->sk);
	if (fresh)
		hlist_add_head_rcu(&conn->index, fs_list_of(bucket, conn->sk));
	spin_unlock_bh(&bucket->lock);
	return fresh;
}

static void fs_index_remove(struct fs_conn *conn)
{
	struct fs_bucket *bucket = fs_bucket_of(conn->sk);

	spin_lock_bh(&bucket->lock);
	hlist_del_rcu(&conn->index);
	spin_unlock_bh(&bucket->lock);
}

static void fs_conn_free_rcu(struct rcu_head *rcu)
{
	kmem_cache_free(fs_conns, container_of(rcu, struct fs_conn, rcu));
}

static void fs_conn_set(struct fs_core *core, struct fs_conn *conn,
			enum fs_conn_state state)
{
	lockdep_assert_held(&core->lock);
	WRITE_ONCE(core->nending, core->nending + (state == FS_CONN_ENDING) -
				  (conn->state == FS_CONN_ENDING));
	WRITE_ONCE(conn->state, state);
}

/* To @gone, as the last reference on a socket is not to be put under the lock. */
static void fs_conn_remove(struct fs_core *core, struct fs_conn *conn,
			   struct list_head *gone)
{
	fs_conn_set(core, conn, FS_CONN_GONE);
	list_move(&conn->list, gone);
	fs_index_remove(conn);
	rhashtable_remove_fast(&core->flows, &conn->flow, fs_flow_params);
}

static void fs_conns_free(struct list_head *gone)
{
	struct fs_conn *conn, *next;

	list_for_each_entry_safe(conn, next, gone, list) {
		sock_put(conn->sk);
		call_rcu(&conn->rcu, fs_conn_free_rcu);
	}
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
 * A look at @n of a list, which are its last ones then; returns how many were dead.
 * Those that wait to end do so for a number of ticks, however many others end.
 */
static unsigned int fs_look(struct fs_core *core, struct list_head *list, unsigned int n,
			    bool tick, struct list_head *gone)
{
	unsigned int dead = 0;
	struct fs_conn *conn;

	lockdep_assert_held(&core->lock);
	for (; n && !list_empty(list); n--) {
		conn = list_first_entry(list, struct fs_conn, list);
		if (fs_conn_dead(conn)) {
			dead++;
			fs_conn_remove(core, conn, gone);
		} else if (tick && ++conn->ticks == FS_ENDING_TICKS) {
			fs_conn_set(core, conn, FS_CONN_FILED);
			list_move_tail(&conn->list, &core->filed);
		} else {
			list_move_tail(&conn->list, list);
		}
	}
	return dead;
}

/*
 * On the CPU that calls, nearly always the owner; should it go offline, on another.
 * A delayed work's timer would go to whichever CPU is awake. Never later than it is
 * set already.
 */
static void fs_tick(struct fs_core *core, unsigned long delay)
{
	timer_reduce(&core->timer, jiffies + delay);
}

/* A packet has come after which the connection may end. */
static void fs_conn_ending(struct fs_conn *conn)
{
	struct fs_core *core = &per_cpu(fs_cores, conn->cpu);
	bool first = false;
	LIST_HEAD(gone);

	if (READ_ONCE(conn->state) != FS_CONN_FILED)
		return;
	spin_lock_bh(&core->lock);
	if (conn->state == FS_CONN_FILED) {
		first = !core->nending;
		/* Before it is one of them: it goes on yet. */
		fs_look(core, &core->ending, min(core->nending, FS_ENDING_EACH),
			false, &gone);
		fs_conn_set(core, conn, FS_CONN_ENDING);
		conn->ticks = 0;
		list_move_tail(&conn->list, &core->ending);
	}
	spin_unlock_bh(&core->lock);
	fs_conns_free(&gone);
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

static int fs_grown(const struct fs_core *core)
{
	return atomic_read(&core->flows.nelems) - READ_ONCE(core->left);
}

static bool fs_round_due(const struct fs_core *core)
{
	return fs_grown(core) >= FS_GROWTH ||
	       time_after_eq(jiffies, READ_ONCE(core->looked) + HZ);
}

static void fs_core_timer(struct timer_list *timer)
{
	struct fs_core *core = container_of(timer, struct fs_core, timer);
	unsigned long delay = HZ;
	unsigned int n;
	LIST_HEAD(gone);

	spin_lock(&core->lock);
	n = core->nending;
	fs_look(core, &core->ending, min(n, FS_BATCH), true, &gone);
	if (core->nending)
		delay = n > FS_BATCH ? 1 : FS_ENDING_TICK;
	spin_unlock(&core->lock);
	fs_conns_free(&gone);

	if (fs_round_due(core))
		queue_work_on(smp_processor_id(), system_wq, &core->work);
	if (!atomic_read(&core->flows.nelems)) {
		/* Pairs with fs_file(): one of the two sees the other. */
		smp_store_mb(core->ticking, false);
		if (!atomic_read(&core->flows.nelems) || xchg(&core->ticking, true))
			return;
	}
	fs_tick(core, delay);
}

/* The round: more than a timer may do. */
static void fs_core_work(struct work_struct *work)
{
	struct fs_core *core = container_of(work, struct fs_core, work);
	unsigned int goal = max(fs_grown(core) * FS_ROUND_GROWTH, FS_ROUND);
	unsigned int n, left, dead = 0;

	/* Queued again while it was at work. */
	if (!fs_round_due(core))
		return;
	WRITE_ONCE(core->looked, jiffies);
	/* Once round at most. */
	left = min_t(unsigned int, goal, atomic_read(&core->flows.nelems));
	for (; left; left -= n) {
		LIST_HEAD(gone);

		n = min(left, FS_BATCH);
		spin_lock_bh(&core->lock);
		dead += fs_look(core, &core->filed, n, false, &gone);
		spin_unlock_bh(&core->lock);
		fs_conns_free(&gone);
		cond_resched();
	}
	WRITE_ONCE(core->left, atomic_read(&core->flows.nelems));
	if (dead > goal / FS_ROUND_DEAD) {
		WRITE_ONCE(core->looked, jiffies - HZ);
		fs_tick(core, 1);
	}
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
	return fs_mix(*(const u32 *)data, seed);
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
	bool grown, fresh;
	LIST_HEAD(gone);

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
		fs_conn_remove(core, old, &gone);
	fresh = fs_index_add(conn);
	list_add_tail(&conn->list, fresh ? &core->filed : &gone);
	if (fresh && rhashtable_insert_fast(&core->flows, &conn->flow, fs_flow_params)) {
		fs_conn_remove(core, conn, &gone);
		fresh = false;
	}
	grown = fs_grown(core) == FS_GROWTH;
	spin_unlock_bh(&core->lock);
	fs_conns_free(&gone);
	if (!fresh)
		return;

	if (!READ_ONCE(fn->filed))
		WRITE_ONCE(fn->filed, true);
	/* Pairs with fs_core_timer(). */
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
	LIST_HEAD(gone);

	rcu_read_lock();
	conn = fs_conn_of(sk);
	if (conn) {
		core = &per_cpu(fs_cores, conn->cpu);
		spin_lock_bh(&core->lock);
		if (conn->state != FS_CONN_GONE)
			fs_conn_remove(core, conn, &gone);
		spin_unlock_bh(&core->lock);
		fs_conns_free(&gone);
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
 * The socket is assigned with sock_efree(), which nobody else uses for one of
 * TCP: so it can be told from what early demux assigns.
 *
 * Context: softirq, RCU read side.
 */
void fs_established_find(struct fs_net *fn, const struct fs_packet *p)
{
	struct fs_core *core = this_cpu_ptr(&fs_cores);
	const struct tcphdr *th = p->th;
	struct fs_key key = {
		.p = p,
		.ports = INET_COMBINED_PORTS(th->source, ntohs(th->dest)),
	};
	u32 ports = fs_hash_ports(th->source, th->dest);
	struct fs_conn *conn;
	struct sock *sk;

	if (!atomic_read(&core->flows.nelems))
		return;
	if (p->pf == NFPROTO_IPV6)
		key.hash = fs_hash6(p->net, &ipv6_hdr(p->skb)->saddr,
				    &ipv6_hdr(p->skb)->daddr, ports);
	else
		key.hash = fs_hash4(p->net, ip_hdr(p->skb)->saddr,
				    ip_hdr(p->skb)->daddr, ports);
	conn = rhashtable_lookup(&core->flows, &key, fs_flow_params);
	if (!conn)
		return;

	sk = conn->sk;
	if (unlikely(!refcount_inc_not_zero(&sk->sk_refcnt)))
		return;
	/* Pairs with the reference that is put when the entry has gone. */
	smp_rmb();
	if (unlikely(READ_ONCE(conn->state) == FS_CONN_GONE)) {
		sock_put(sk);
		return;
	}
	p->skb->sk = sk;
	p->skb->destructor = sock_efree;
	fs_set_route(p->skb, sk, p->pf);
	if (conn->kind == FS_PASSIVE)
		fs_count(fn, passive_local);
	else
		fs_count(fn, active_local);
	fs_conn_note(conn, th);
}

/**
 * fs_established_same() - whether a packet is still of the socket it was given
 * @skb: the packet, at LOCAL_IN; a rule may have rewritten anything since
 * @pf: NFPROTO_IPV4 or NFPROTO_IPV6
 *
 * Context: softirq, RCU read side.
 */
bool fs_established_same(const struct sk_buff *skb, u8 pf)
{
	const struct sock *sk = skb->sk;
	const __be16 *ports;
	__be16 buf[2];

	ports = skb_header_pointer(skb, skb_transport_offset(skb), sizeof(buf), buf);
	if (!ports || sk->sk_dport != ports[0] || sk->sk_num != ntohs(ports[1]))
		return false;
#if IS_ENABLED(CONFIG_IPV6)
	if (pf == NFPROTO_IPV6)
		return ipv6_hdr(skb)->nexthdr == IPPROTO_TCP &&
		       ipv6_addr_equal(&sk->sk_v6_daddr, &ipv6_hdr(skb)->saddr) &&
		       ipv6_addr_equal(&sk->sk_v6_rcv_saddr, &ipv6_hdr(skb)->daddr);
#endif
	return ip_hdr(skb)->protocol == IPPROTO_TCP &&
	       sk->sk_daddr == ip_hdr(skb)->saddr && sk->sk_rcv_saddr == ip_hdr(skb)->daddr;
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
	fs_index_bits = clamp(ilog2(fs_hashinfo(&init_net)->ehash_mask + 1) - FS_INDEX_SHIFT,
			      FS_INDEX_MIN, FS_INDEX_MAX);
	fs_index = kvcalloc(BIT(fs_index_bits), sizeof(*fs_index), GFP_KERNEL);
	fs_conns = KMEM_CACHE(fs_conn, SLAB_HWCACHE_ALIGN);
	if (!fs_conns || !fs_index) {
		err = -ENOMEM;
		goto out;
	}
	for (i = 0; i < BIT(fs_index_bits); i++)
		spin_lock_init(&fs_index[i].lock);
	for_each_possible_cpu(cpu) {
		core = &per_cpu(fs_cores, cpu);
		spin_lock_init(&core->lock);
		INIT_LIST_HEAD(&core->filed);
		INIT_LIST_HEAD(&core->ending);
		timer_setup(&core->timer, fs_core_timer, TIMER_PINNED);
		INIT_WORK(&core->work, fs_core_work);
		core->looked = jiffies;
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
out:
	kvfree(fs_index);
	kmem_cache_destroy(fs_conns);
	return err;
}

static void fs_conn_release(void *ptr, void *arg)
{
	struct fs_conn *conn = ptr;

	sock_put(conn->sk);
	kmem_cache_free(fs_conns, conn);
}

/* At module exit: no hook, local listener or ioctl leads here any more. */
void fs_established_exit(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		/* The work can no longer set it. */
		timer_shutdown_sync(&per_cpu(fs_cores, cpu).timer);
		cancel_work_sync(&per_cpu(fs_cores, cpu).work);
	}
	rcu_barrier();
	for_each_possible_cpu(cpu)
		rhashtable_free_and_destroy(&per_cpu(fs_cores, cpu).flows,
					    fs_conn_release, NULL);
	kvfree(fs_index);
	kmem_cache_destroy(fs_conns);
}
