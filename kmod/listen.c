// SPDX-License-Identifier: GPL-2.0
/*
 * Local listeners: making one from the application's listener, the per-CPU
 * listen tables that hold them, and what accept() and close() do on one.
 *
 * A local listener is a listening TCP socket like any other, except that the
 * global listen table does not have it and that some operations of its protocol
 * and the one that makes its connections' sockets are wrapped. Nothing of the
 * module stays on a connection accepted from it.
 *
 * Those of the protocol (struct proto) and not those of the socket (struct
 * proto_ops): sys_accept() looks at the latter twice and sleeps in between,
 * and no module could know when it may go. The former are loaded and called
 * with nothing between.
 */
#include <linux/cpumask.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/jhash.h>
#include <linux/kmemleak.h>
#include <linux/random.h>
#include <linux/security.h>
#include <net/inet_connection_sock.h>
#include <net/inet_sock.h>
#include <net/sock_reuseport.h>
#include <net/tcp.h>

#include "local.h"

/*
 * Large enough that somebody's 100,000 local listeners make nobody's SYN look
 * at more than some tens.
 */
#define FS_TABLE_BITS		10
#define FS_ANYWHERE_BITS	12

struct fs_table {
	struct hlist_head heads[1 << FS_TABLE_BITS];
};

static struct fs_table __percpu *fs_table;
/* A user knows the number of his group, and is not to know its place. */
static u32 fs_secret __read_mostly;
/* All of them: whether a SYN that finds none here would elsewhere. */
static struct hlist_head fs_anywhere[1 << FS_ANYWHERE_BITS];

/* Of one key on a CPU, as each SYN looks at all of them. */
#define FS_CORE_MAX		64

/* A turn in this many begins with the parent's queue, so it cannot starve. */
#define FS_TURNS	8

/*
 * At unload, between looks at half-open connections, and at sockets that a
 * user's call holds: the last look is repeated so often for all together.
 */
#define FS_DETACH_SLEEP_US	5000
#define FS_DETACH_TRIES		20

/* Lists, tables and states; never taken in softirq. */
DEFINE_MUTEX(fs_mutex);
/* Local listeners that have a descriptor; under fs_mutex. */
LIST_HEAD(fs_locals);
/* Calls of fs_listen_sync(); under fs_mutex. */
static unsigned int fs_syncs;
DEFINE_SRCU(fs_srcu);

/*
 * The operations of a local listener, per family: the stock ones with some
 * wrapped. Copied from the first socket seen, so no symbol has to be exported.
 *
 * The protocol is not the module's memory and never freed: what has it from a
 * local listener may look at its data when the module has gone. These are
 * request sockets, and sockets that syn_recv_sock() has made and dropped, which
 * wait for sock_diag to tell of their end.
 */
static struct fs_family {
	struct proto *stock_prot;
	struct proto *prot;
	const struct inet_connection_sock_af_ops *stock_af;
	struct inet_connection_sock_af_ops af;
} fs_families[2];

static struct fs_family *fs_family(const struct sock *sk)
{
	return &fs_families[sk->sk_family == AF_INET6];
}

/* Under fs_mutex, or in an fs_srcu read side: until that ends. */
static struct fs_local *fs_local(const struct sock *sk)
{
	return (void *)((uintptr_t)READ_ONCE(sk->sk_user_data) &
			SK_USER_DATA_PTRMASK);
}

/**
 * fs_listen_of() - the local listener that a listening socket is
 * @sk: the socket
 *
 * Context: softirq, RCU read side.
 * Return: NULL where it is none, or has been closed.
 */
struct fs_local *fs_listen_of(const struct sock *sk)
{
	if (READ_ONCE(inet_csk(sk)->icsk_af_ops) != &fs_family(sk)->af)
		return NULL;
	return fs_local(sk);
}

static u32 fs_hash(unsigned long key, unsigned int bits)
{
	return jhash_2words(lower_32_bits(key), upper_32_bits(key), fs_secret) >> (32 - bits);
}

static struct hlist_head *fs_head(int cpu, unsigned long key)
{
	return &per_cpu_ptr(fs_table, cpu)->heads[fs_hash(key, FS_TABLE_BITS)];
}

static struct hlist_head *fs_anywhere_head(unsigned long key)
{
	return &fs_anywhere[fs_hash(key, FS_ANYWHERE_BITS)];
}

/*
 * Listeners that SO_REUSEPORT has put into one group are one listener to
 * clients, unless a program selects among them: then the choice is the
 * application's. A group goes by its number, which it keeps when it grows.
 */
static unsigned long fs_key(const struct sock *parent)
{
	struct sock_reuseport *reuse = rcu_dereference(parent->sk_reuseport_cb);

	if (reuse && !rcu_access_pointer(reuse->prog))
		return (unsigned long)reuse->reuseport_id << 1 | 1;	/* no address is odd */
	return (unsigned long)parent;
}

/* A sk_lookup program may have picked the very listener that the lookup gives. */
static bool fs_lookup_program(const struct net *net)
{
	return rcu_access_pointer(net->bpf.run_array[NETNS_BPF_SK_LOOKUP]);
}

static bool fs_takes(const struct fs_local *l, const struct sock *parent,
		     unsigned long key)
{
	if (READ_ONCE(l->key) != key)
		return false;
	if (l->parent != parent &&
	    (fs_key(l->parent) != key || fs_lookup_program(sock_net(parent))))
		return false;
	/* shutdown() and listen() again may have given it another port. */
	return READ_ONCE(l->sk->sk_state) == TCP_LISTEN && fs_parent_listens(l) &&
	       l->sk->sk_num == l->parent->sk_num &&
	       !sk_acceptq_is_full(l->sk) && !fs_stalled(l);
}

/**
 * fs_listen_find() - this CPU's local listener for a listener
 * @parent: the listener that the stock lookup gives
 *
 * Where a CPU has several (two workers on one core, or an old and a new one
 * during a reload) they take turns. One whose accept queue is full, or for which
 * no worker comes, is passed over.
 *
 * Context: softirq, RCU read side.
 * Return: the local listener, valid until the end of the read side, or NULL.
 */
struct fs_local *fs_listen_find(const struct sock *parent)
{
	static DEFINE_PER_CPU(unsigned int, turn);
	unsigned long key = fs_key(parent);
	struct hlist_head *head = fs_head(smp_processor_id(), key);
	struct fs_local *l, *first = NULL;
	unsigned int n = 0;

	hlist_for_each_entry_rcu(l, head, node) {
		if (!fs_takes(l, parent, key))
			continue;
		if (!first)
			first = l;
		n++;
	}
	if (n < 2)
		return first;

	n = this_cpu_inc_return(turn) % n;
	hlist_for_each_entry_rcu(l, head, node)
		if (fs_takes(l, parent, key) && !n--)
			return l;
	return first;
}

/**
 * fs_listen_anywhere() - whether any CPU has a local listener for a listener
 * @parent: the listener that the stock lookup gives
 *
 * Context: softirq, RCU read side.
 */
bool fs_listen_anywhere(const struct sock *parent)
{
	unsigned long key = fs_key(parent);
	const struct fs_local *l;

	hlist_for_each_entry_rcu(l, fs_anywhere_head(key), anywhere)
		if (READ_ONCE(l->key) == key)
			return true;
	return false;
}

static void fs_listen_publish(struct fs_local *l)
{
	lockdep_assert_held(&fs_mutex);
	hlist_add_head_rcu(&l->anywhere, fs_anywhere_head(l->key));
	hlist_add_head_rcu(&l->node, fs_head(l->cpu, l->key));
	WRITE_ONCE(l->fn->live, l->fn->live + 1);
}

/* Out of the tables: no SYN finds it after the next grace period. */
void fs_listen_unpublish(struct fs_local *l)
{
	lockdep_assert_held(&fs_mutex);
	if (hlist_unhashed(&l->node))
		return;
	hlist_del_init_rcu(&l->node);
	hlist_del_init_rcu(&l->anywhere);
	WRITE_ONCE(l->fn->live, l->fn->live - 1);
}

/* Its socket is gone or is stock again; nothing but RCU readers see @l. */
void fs_listen_free(struct fs_local *l)
{
	sock_put(l->parent);
	kfree_rcu(l, rcu);
}

/* Both queues wait. Two tasks may count as one: it is no more than a habit. */
static bool fs_parents_turn(struct fs_local *l)
{
	unsigned int turn = READ_ONCE(l->turn) + 1;

	WRITE_ONCE(l->turn, turn);
	return turn % FS_TURNS == 0;
}

static struct sock *fs_accept(struct sock *sk, FS_ACCEPT_PARAMS)
{
	int idx = srcu_read_lock(&fs_srcu);
	struct fs_family *f = fs_family(sk);
	struct sock *parent, *child;
	struct fs_local *l;
	bool own;

	/* A sleeper here would keep the module from being unloaded. */
	FS_ACCEPT_FLAGS |= O_NONBLOCK;

	l = fs_local(sk);
	if (!l) {
		child = f->stock_prot->accept(sk, FS_ACCEPT_ARGS);
		goto out;
	}
	parent = l->parent;

	/* Another task may be quicker: then look again, as a wake-up is due. */
	do {
		own = fs_waits(sk);
		if (fs_parent_waits(l) && (!own || fs_parents_turn(l))) {
			own = false;
		} else if (!own) {
			child = NULL;
			FS_ACCEPT_ERR = fs_parent_listens(l) ? -ENODATA : -EINVAL;
			goto out;
		}
		child = f->stock_prot->accept(own ? sk : parent, FS_ACCEPT_ARGS);
	} while (!child && FS_ACCEPT_ERR == -EAGAIN);

	if (!child)
		goto out;
	/* The parent has changed since: the caller's socket is of another family. */
	if (unlikely(child->sk_family != sk->sk_family)) {
		child->sk_prot->close(child, 0);
		child = NULL;
		FS_ACCEPT_ERR = -ECONNABORTED;
		goto out;
	}
	FS_ACCEPT_MORE(fs_waits(sk) || fs_parent_waits(l));
	if (!own) {
		fs_count(l->fn, accept_slow);
		fs_established_accepted(l->fn, child, l->cpu, GFP_KERNEL);
		goto out;
	}
	atomic_long_inc(&l->accepted);
	if (raw_smp_processor_id() == l->cpu)
		fs_count(l->fn, accept_local);
	else
		fs_count(l->fn, accept_remote);
out:
	srcu_read_unlock(&fs_srcu, idx);
	return child;
}

static void fs_close(struct sock *sk, long timeout)
{
	int idx = srcu_read_lock(&fs_srcu);
	struct fs_local *l;

	mutex_lock(&fs_mutex);
	WRITE_ONCE(sk->sk_prot, fs_family(sk)->stock_prot);
	/* Of a group of its own, which takes no notice of one that is not hashed. */
	if (rcu_access_pointer(sk->sk_reuseport_cb))
		reuseport_detach_sock(sk);
	l = fs_local(sk);
	if (l) {
		fs_listen_unpublish(l);
		fs_stall_forget(l);
		rcu_assign_sk_user_data(sk, NULL);
		fs_count(l->fn, closed);
		fs_drain_enter(l);
	}
	mutex_unlock(&fs_mutex);

	if (!l || !fs_drain_start(l))
		READ_ONCE(sk->sk_prot)->close(sk, timeout);
	srcu_read_unlock(&fs_srcu, idx);
}

/*
 * After shutdown() it could connect, and with a ULP keep the operations that
 * it has now beyond the module's time. Nobody has a use for that.
 */
static int fs_connect(struct sock *sk, struct sockaddr *addr, int len)
{
	return -EOPNOTSUPP;
}

/* The parent's options are its own. And the stock call may wait for the caller's memory. */
static int fs_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
			 unsigned int optlen)
{
	return -EOPNOTSUPP;
}

/**
 * fs_listen_setsockopt() - setsockopt(SOL_TCP) on a local listener, for the module
 * @sk: the local listener
 * @optname: as in setsockopt()
 * @val: as in setsockopt(), in the kernel
 * @len: as in setsockopt()
 *
 * Context: process; takes the socket lock.
 * Return: as of setsockopt().
 */
int fs_listen_setsockopt(struct sock *sk, int optname, void *val, unsigned int len)
{
	return fs_family(sk)->stock_prot->setsockopt(sk, SOL_TCP, optname,
						     KERNEL_SOCKPTR(val), len);
}

/* What listen() does last: file it nowhere. */
static int fs_hash_nowhere(struct sock *sk)
{
	/* As the global table's members: a packet needs no reference. */
	sock_set_flag(sk, SOCK_RCU_FREE);
	return 0;
}

/*
 * The last step of a handshake. The new socket is locked until its first
 * packet has been processed, so nobody has used its operations yet.
 */
static struct sock *fs_syn_recv_sock(FS_SYN_RECV_SOCK_PARAMS)
{
	struct fs_family *f = fs_family(sk);
	struct sock *child;
	struct fs_local *l;

	child = f->stock_af->syn_recv_sock(FS_SYN_RECV_SOCK_ARGS);
	if (!child)
		return NULL;
	if (inet_csk(child)->icsk_af_ops == &f->af)
		inet_csk(child)->icsk_af_ops = f->stock_af;
	if (child->sk_prot == f->prot)
		WRITE_ONCE(child->sk_prot, f->stock_prot);
	/* Its memory is the stock protocol's, see sk_clone_lock(). */
	if (child->sk_prot_creator == f->prot)
		child->sk_prot_creator = f->stock_prot;
	/* Otherwise another CPU has been quicker, or it is a second cookie ACK. */
	if (*own_req) {
		l = fs_local(sk);
		if (l) {
			fs_established_accepted(l->fn, child, l->cpu, GFP_ATOMIC);
			fs_stall_watch(l);
		}
	}
	return child;
}

/* @sock has no other user yet. */
static int fs_family_init(struct fs_family *f, const struct socket *sock)
{
	struct proto *prot = READ_ONCE(sock->sk->sk_prot);
	const struct inet_connection_sock_af_ops *af = inet_csk(sock->sk)->icsk_af_ops;

	if (f->stock_prot)
		return f->stock_prot == prot && f->stock_af == af ? 0 : -EOPNOTSUPP;

	f->prot = kmemdup(prot, sizeof(*prot), GFP_KERNEL);
	if (!f->prot)
		return -ENOMEM;
	f->prot->hash = fs_hash_nowhere;
	f->prot->accept = fs_accept;
	f->prot->close = fs_close;
	f->prot->connect = fs_connect;
	f->prot->setsockopt = fs_setsockopt;
#ifdef CONFIG_BPF_SYSCALL
	f->prot->psock_update_sk_prot = NULL;	/* no sockmap would give it back */
#endif
	f->af = *af;
	f->af.syn_recv_sock = fs_syn_recv_sock;
	f->stock_af = af;
	f->stock_prot = prot;
	return 0;
}

/**
 * fs_listen_parent() - whether local listeners can be made from a socket
 * @sock: the socket
 *
 * Return: 0, -EPROTONOSUPPORT, -EALREADY or -EINVAL, see
 * &struct fastsocket_spawn.
 */
int fs_listen_parent(struct socket *sock)
{
	const struct sock *sk = sock->sk;

	if (!sk || (sk->sk_family != AF_INET && sk->sk_family != AF_INET6) ||
	    sock->type != SOCK_STREAM || sk->sk_protocol != IPPROTO_TCP)
		return -EPROTONOSUPPORT;
	if (READ_ONCE(sk->sk_prot) == READ_ONCE(fs_family(sk)->prot))
		return -EALREADY;
	if (READ_ONCE(sk->sk_state) != TCP_LISTEN)
		return -EINVAL;
	return 0;
}

/**
 * fs_listen_lock() - lock a local listener and its parent
 * @sk: the local listener
 * @parent: its parent
 *
 * Whoever has the parent may change what it is for as long as it is not locked.
 *
 * Context: process; takes both socket locks, the parent's first.
 * Return: 0, or -EINVAL where the parent listens no longer or is of another
 * family: then neither is locked.
 */
int fs_listen_lock(struct sock *sk, struct sock *parent)
{
	lock_sock(parent);
	if (!fs_listens_for(parent, sk)) {
		release_sock(parent);
		return -EINVAL;
	}
	lock_sock_nested(sk, SINGLE_DEPTH_NESTING);
	return 0;
}

/* Undoes fs_listen_lock(). */
void fs_listen_unlock(struct sock *sk, struct sock *parent)
{
	release_sock(sk);
	release_sock(parent);
}

/* Address, port and LISTEN, as the parent has them; no lookup finds it. */
static int fs_listen_start(struct socket *sock, struct sock *parent)
{
	struct sock *sk = sock->sk;
	int err = fs_listen_lock(sk, parent);

	if (err)
		return err;
	inet_sk(sk)->inet_rcv_saddr = inet_sk(parent)->inet_rcv_saddr;
	inet_sk(sk)->inet_saddr = inet_sk(parent)->inet_saddr;
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		sk->sk_v6_rcv_saddr = parent->sk_v6_rcv_saddr;
		inet6_sk(sk)->saddr = inet6_sk(parent)->saddr;
		sk->sk_ipv6only = parent->sk_ipv6only;
	}
#endif
	sk->sk_bound_dev_if = READ_ONCE(parent->sk_bound_dev_if);
	sk->sk_reuseport = parent->sk_reuseport;
	/* Joins the parent's bind bucket, whatever its options. */
	sk->sk_reuse = SK_FORCE_REUSE;
	err = sk->sk_prot->get_port(sk, inet_sk(parent)->inet_num);
	fs_listen_unlock(sk, parent);
	if (err)
		return err;

	/* __inet_hash() is the one thing listen() must not do. */
	WRITE_ONCE(sk->sk_prot, fs_family(sk)->prot);
	err = sock->ops->listen(sock, READ_ONCE(parent->sk_max_ack_backlog));

	/* From here on a bind() that conflicts with one conflicts with both. */
	sk->sk_reuse = parent->sk_reuse;
	return err;
}

static unsigned int fs_listen_count(int cpu, unsigned long key)
{
	const struct fs_local *l;
	unsigned int n = 0;

	lockdep_assert_held(&fs_mutex);
	hlist_for_each_entry(l, fs_head(cpu, key), node)
		n += l->key == key;
	return n;
}

/* The allowed CPU with the fewest local listeners of this key. */
static int fs_pick_cpu(unsigned long key)
{
	const struct cpumask *allowed = current->cpus_ptr;
	int cpu, best = -ENXIO;
	unsigned int least = UINT_MAX;

	for_each_cpu_and(cpu, allowed, cpu_online_mask) {
		unsigned int n = fs_listen_count(cpu, key);

		if (n < least) {
			least = n;
			best = cpu;
		}
	}
	return best;
}

static int fs_cpu_check(int cpu)
{
	if (cpu == FASTSOCKET_CPU_ANY)
		return 0;
	if (cpu < 0 || cpu >= nr_cpu_ids || !cpu_possible(cpu))
		return -EINVAL;
	return cpu_online(cpu) ? 0 : -ENXIO;
}

/*
 * The parent's options and backlog on one of its local listeners, whose file
 * the caller holds. One copy at a time, so that the last has the newest.
 */
static int fs_listen_follow(struct fs_local *l)
{
	unsigned long key;
	int err;

	mutex_lock(&l->follow);
	WRITE_ONCE(l->sk->sk_max_ack_backlog,
		   READ_ONCE(l->parent->sk_max_ack_backlog));
	err = fs_options_copy(l->sk, l->parent);

	mutex_lock(&fs_mutex);
	rcu_read_lock();
	key = fs_key(l->parent);
	rcu_read_unlock();
	/* A reader that goes on into another chain sees less, and comes to its end. */
	if (err || l->state == FS_OFF || l->key != key)
		fs_listen_unpublish(l);
	if (!err && hlist_unhashed(&l->node) && fs_listen_count(l->cpu, key) >= FS_CORE_MAX)
		err = -ENOSPC;
	WRITE_ONCE(l->state, err ? FS_OFF : FS_LIVE);
	WRITE_ONCE(l->key, key);
	if (!err && hlist_unhashed(&l->node))
		fs_listen_publish(l);
	mutex_unlock(&fs_mutex);
	mutex_unlock(&l->follow);
	return err;
}

/**
 * fs_listen_spawn() - make a local listener
 * @psock: the parent; fs_listen_parent() has passed it
 * @cpu: in, a CPU or %FASTSOCKET_CPU_ANY; out, the CPU chosen
 * @filp: out, its file; fput() undoes everything
 *
 * Context: process.
 * Return: 0 or an errno of &struct fastsocket_spawn.
 */
int fs_listen_spawn(struct socket *psock, int *cpu, struct file **filp)
{
	struct sock *parent = psock->sk;
	struct net *net = sock_net(parent);
	struct fs_net *fn = fs_net(net);
	struct socket *sock = NULL;
	struct fs_local *l;
	struct file *file;
	unsigned int syncs;
	int err;

	err = fs_cpu_check(*cpu);
	if (err)
		return err;
	if (!READ_ONCE(fn->listen_spawn))
		return -EAGAIN;

	l = kzalloc(sizeof(*l), GFP_KERNEL_ACCOUNT);
	if (!l)
		return -ENOMEM;
	mutex_init(&l->follow);
	INIT_LIST_HEAD(&l->watch);
	err = sock_create_lite(parent->sk_family, SOCK_STREAM, IPPROTO_TCP,
			       &l->lite);
	if (err)
		goto out_free;
	/* kern = 0: children must hold the namespace. */
	err = __sock_create(net, parent->sk_family, SOCK_STREAM, IPPROTO_TCP,
			    &sock, 0);
	if (err)
		goto out_lite;

	/* Bind conflicts go by the owner of the inode. */
	SOCK_INODE(sock)->i_uid = SOCK_INODE(psock)->i_uid;
	SOCK_INODE(l->lite)->i_uid = SOCK_INODE(psock)->i_uid;

	mutex_lock(&fs_mutex);
	syncs = fs_syncs;
	err = fs_family_init(fs_family(sock->sk), sock);
	mutex_unlock(&fs_mutex);
	if (!err)
		err = fs_hook(net);
	if (!err)
		err = fs_options_copy(sock->sk, parent);
	if (!err)
		err = fs_listen_start(sock, parent);
	if (err)
		goto out_sock;

	file = sock_alloc_file(sock, O_NONBLOCK, NULL);
	if (IS_ERR(file)) {
		/* It has released the socket. */
		err = PTR_ERR(file);
		goto out_lite;
	}

	mutex_lock(&fs_mutex);
	rcu_read_lock();
	l->key = fs_key(parent);
	rcu_read_unlock();
	l->cpu = *cpu == FASTSOCKET_CPU_ANY ? fs_pick_cpu(l->key) : *cpu;
	err = l->cpu < 0 ? l->cpu : 0;
	if (!err && fs_listen_count(l->cpu, l->key) >= FS_CORE_MAX)
		err = -ENOSPC;
	if (err) {
		/* It is closed later, and in no list to be found before. */
		WRITE_ONCE(sock->sk->sk_prot, fs_family(sock->sk)->stock_prot);
		mutex_unlock(&fs_mutex);
		fput(file);
		goto out_lite;
	}
	sock_hold(parent);
	l->parent = parent;
	l->sk = sock->sk;
	l->fn = fn;
	*cpu = l->cpu;
	__rcu_assign_sk_user_data_with_flags(sock->sk, l, SK_USER_DATA_NOCOPY);
	inet_csk(sock->sk)->icsk_af_ops = &fs_family(sock->sk)->af;
	list_add_tail(&l->list, &fs_locals);
	list_add_tail_rcu(&l->of_net, &fn->locals);
	fs_listen_publish(l);
	fs_count(fn, spawned);
	syncs -= fs_syncs;
	mutex_unlock(&fs_mutex);
	/* It was in no list yet when options changed that it may have from before. */
	err = syncs ? fs_listen_follow(l) : 0;
	if (err) {
		fput(file);
		return err;
	}

	*filp = file;
	return 0;

out_sock:
	sock_release(sock);
out_lite:
	sock_release(l->lite);
out_free:
	kfree(l);
	return err;
}

/**
 * fs_listen_sync() - repeat the parent's options and backlog on its locals
 * @psock: the parent; fs_listen_parent() has passed it
 *
 * The parent's lock is its user's to hold for as long as he likes, so nothing
 * that others need is held meanwhile.
 *
 * Context: process.
 * Return: 0, or -EINVAL where the parent listens no longer, -EOPNOTSUPP where an
 * option has come that a local listener cannot have, -ENOSPC where there are too
 * many of its new group on a CPU: then its local listeners take no new connections.
 */
int fs_listen_sync(struct socket *psock)
{
	struct sock *parent = psock->sk;
	struct fs_local *l;
	int ret = 0;

	mutex_lock(&fs_mutex);
	fs_syncs++;
	list_for_each_entry(l, &fs_net(sock_net(parent))->locals, of_net) {
		struct file *file;

		if (l->parent != parent || l->state == FS_DRAINING)
			continue;
		/* One of which nobody has the file closes as soon as we let it. */
		if (!fs_file_get(l->sk->sk_socket->file))
			continue;
		file = l->sk->sk_socket->file;
		mutex_unlock(&fs_mutex);
		ret = fs_listen_follow(l) ?: ret;
		mutex_lock(&fs_mutex);
		/* Deferred where it closes, and waits for fs_mutex there. */
		fput(file);
	}
	mutex_unlock(&fs_mutex);
	return ret;
}

/* At module load. */
int fs_listen_init(void)
{
	fs_secret = get_random_u32();
	fs_table = alloc_percpu(struct fs_table);
	return fs_table ? 0 : -ENOMEM;
}

/* At module exit: no hook looks for a local listener any more. */
void fs_listen_exit(void)
{
	free_percpu(fs_table);
}

/**
 * fs_listen_detach_all() - make every local listener a stock socket
 *
 * The descriptors stay open and silent: nothing assigns SYNs to them any more,
 * and what they had has gone to the application's own listeners.
 *
 * Context: process, at module exit; nobody can spawn any more.
 */
void fs_listen_detach_all(void)
{
	unsigned long deadline = jiffies + FS_HALF_OPEN_TIME;
	struct fs_local *l, *tmp;
	struct fs_family *f;
	LIST_HEAD(gone);
	bool busy, moved;
	int tries = 0;

	mutex_lock(&fs_mutex);
	list_for_each_entry(l, &fs_locals, list) {
		unsigned long end = fs_drain_deadline(l);

		fs_listen_unpublish(l);
		fs_stall_forget(l);
		if (time_after(end, deadline))
			deadline = end;
	}
	list_for_each_entry(l, &fs_draining, list)
		if (time_after(l->deadline, deadline))
			deadline = l->deadline;
	mutex_unlock(&fs_mutex);
	fs_stall_exit();
	synchronize_rcu();

	/* Half-open connections finish meanwhile; a flood's never do. */
	do {
		fsleep(FS_DETACH_SLEEP_US);
		busy = false;
		moved = true;
		mutex_lock(&fs_mutex);
		list_for_each_entry(l, &fs_locals, list) {
			busy |= reqsk_queue_len(fs_queue(l->sk));
			moved &= fs_drain_move(l);
		}
		list_for_each_entry(l, &fs_draining, list)
			busy |= reqsk_queue_len(fs_queue(l->sk));
		mutex_unlock(&fs_mutex);
	} while ((busy || !moved) && time_before(jiffies, deadline));
	synchronize_rcu();

	mutex_lock(&fs_mutex);
	list_for_each_entry(l, &fs_locals, list) {
		/* From here on it closes without us. */
		fs_drain_move(l);
		sock_hold(l->sk);
		WRITE_ONCE(l->sk->sk_prot, fs_family(l->sk)->stock_prot);
	}
	/* Until no child is made with the former, it is to be given the stock one. */
	synchronize_rcu();
	list_for_each_entry(l, &fs_locals, list) {
		/* For a handshake that has outlived the deadline only. */
		for (; !fs_drain_move(l) && tries < FS_DETACH_TRIES; tries++)
			fsleep(FS_DETACH_SLEEP_US);
		/* It may have begun to connect, with those of another family. */
		f = fs_family(l->sk);
		cmpxchg(&inet_csk(l->sk)->icsk_af_ops, &f->af, f->stock_af);
		rcu_assign_sk_user_data(l->sk, NULL);
		list_del_rcu(&l->of_net);
		sock_put(l->sk);
	}
	list_splice_init(&fs_locals, &gone);
	mutex_unlock(&fs_mutex);

	for (f = fs_families; f < fs_families + ARRAY_SIZE(fs_families); f++) {
		if (!f->prot)
			continue;
		f->prot->hash = f->stock_prot->hash;
		f->prot->accept = f->stock_prot->accept;
		f->prot->close = f->stock_prot->close;
		f->prot->connect = f->stock_prot->connect;
		f->prot->setsockopt = f->stock_prot->setsockopt;
		kmemleak_not_leak(f->prot);
	}

	/* An accept() in progress may still use them. */
	synchronize_srcu(&fs_srcu);
	list_for_each_entry_safe(l, tmp, &gone, list) {
		sock_release(l->lite);
		fs_listen_free(l);
	}
}
