// SPDX-License-Identifier: GPL-2.0
/*
 * No connection is lost when a local listener closes: what waits in its
 * accept queue goes to the application's own, and its half-open connections
 * get time to finish first. The latter in a work item, because close() must not
 * wait for an RCU grace period.
 */
#include <linux/hash.h>
#include <linux/rculist.h>
#include <linux/workqueue.h>
#include <net/inet_connection_sock.h>
#include <net/sock_reuseport.h>
#include <net/tcp.h>

#include "local.h"

/* Between looks at half-open connections. */
#define FS_DRAIN_POLL		msecs_to_jiffies(5)
/* Connections looked at in one go, as others wait for the locks and for this CPU. */
#define FS_DRAIN_BATCH		64
/* Closed listeners of one parent that may drain at a time: bounds memory. */
#define FS_DRAIN_MAX		1024
/* What moves to a listener waits where it is beyond so many times its backlog: as well. */
#define FS_DRAIN_BACKLOGS	64
#define FS_DRAIN_BITS		10

static void fs_drain_work(struct work_struct *work);
static DECLARE_DELAYED_WORK(fs_drain, fs_drain_work);
static bool fs_drain_now;
/* Draining local listeners, linked by &fs_local.list; under fs_mutex. */
LIST_HEAD(fs_draining);
/* The same by parent, linked by &fs_local.drains. */
static struct hlist_head fs_drains[1 << FS_DRAIN_BITS];

/*
 * Whether a connection of @l's that completes has a listener to go to: the parent, or
 * where that listens no more, another of its group, see reuseport_stop_listen_sock().
 */
static bool fs_drain_has_heir(const struct fs_local *l)
{
	const struct sock_reuseport *reuse;
	const struct bpf_prog *prog;
	bool has = false;

	if (fs_parent_listens(l))
		return true;
	rcu_read_lock();
	reuse = rcu_dereference(l->parent->sk_reuseport_cb);
	if (reuse && READ_ONCE(reuse->num_socks)) {
		prog = rcu_dereference(reuse->prog);
		has = READ_ONCE(sock_net(l->sk)->ipv4.sysctl_tcp_migrate_req) ||
		      (prog && prog->expected_attach_type == BPF_SK_REUSEPORT_SELECT_OR_MIGRATE);
	}
	rcu_read_unlock();
	return has;
}

/*
 * The listener, held, that is to have the first request of @l's queue. NULL where none
 * may. Members of a group are chosen for each, so @max becomes 1.
 */
static struct sock *fs_drain_heir(const struct fs_local *l, unsigned int *max)
{
	struct request_sock_queue *queue = fs_queue(l->sk);
	struct sock *heir, *child = NULL;

	if (fs_parent_listens(l)) {
		sock_hold(l->parent);
		return l->parent;
	}
	*max = 1;
	spin_lock(&queue->rskq_lock);
	if (queue->rskq_accept_head)
		child = queue->rskq_accept_head->sk;
	spin_unlock(&queue->rskq_lock);
	if (!child || !fs_drain_has_heir(l))
		return NULL;
	/* As the parent has chosen for its own when it closed. */
	heir = reuseport_migrate_sock(l->parent, child, NULL);
	if (heir && (heir->sk_num != l->sk->sk_num || !fs_listens_for(heir, l->sk))) {
		sock_put(heir);
		return NULL;
	}
	return heir;
}

/*
 * Look at @max requests and move them to @heir; what cannot be moved is @l's to keep for
 * now, and goes behind the others.
 */
static unsigned int fs_drain_some(struct fs_local *l, struct sock *heir, unsigned int max)
{
	u64 most = FS_DRAIN_BACKLOGS * (READ_ONCE(heir->sk_max_ack_backlog) + 1ULL);
	struct request_sock_queue *from = fs_queue(l->sk), *to = fs_queue(heir);
	struct request_sock *req;
	unsigned int moved = 0;

	spin_lock(&from->rskq_lock);
	/* Always the local one first, so the order is fixed. */
	spin_lock_nested(&to->rskq_lock, SINGLE_DEPTH_NESTING);
	while (max-- && (req = from->rskq_accept_head) && fs_listens_for(heir, l->sk) &&
	       READ_ONCE(heir->sk_ack_backlog) < most) {
		struct request_sock *next = req->dl_next;

		req->dl_next = NULL;
		if (READ_ONCE(tcp_rsk(req)->tfo_listener)) {
			/* Alone it is at the end, and others look without the lock. */
			if (!next)
				break;
			from->rskq_accept_tail->dl_next = req;
			from->rskq_accept_tail = req;
			WRITE_ONCE(from->rskq_accept_head, next);
			continue;
		}
		WRITE_ONCE(from->rskq_accept_head, next);
		if (!next)
			from->rskq_accept_tail = NULL;
		if (to->rskq_accept_head)
			to->rskq_accept_tail->dl_next = req;
		else
			WRITE_ONCE(to->rskq_accept_head, req);
		to->rskq_accept_tail = req;
		sk_acceptq_removed(l->sk);
		sk_acceptq_added(heir);
		moved++;
	}
	spin_unlock(&to->rskq_lock);
	spin_unlock(&from->rskq_lock);
	return moved;
}

/*
 * Wake who waits for @sk's queue, to which @n connections have come: one exclusive waiter
 * each. All the others twice at most, as they may be as many as their owner likes.
 */
static void fs_drain_wake(struct sock *sk, unsigned int n)
{
	struct socket_wq *wq;

	if (!n)
		return;
	local_bh_disable();
	rcu_read_lock();
	sk->sk_data_ready(sk);
	wq = rcu_dereference(sk->sk_wq);
	if (n > 1 && skwq_has_sleeper(wq))
		__wake_up(&wq->wait, TASK_INTERRUPTIBLE, n - 1,
			  poll_to_key(EPOLLIN | EPOLLPRI | EPOLLRDNORM | EPOLLRDBAND));
	rcu_read_unlock();
	local_bh_enable();
}

/**
 * fs_drain_move() - move a local listener's accept queue to its parent's
 * @l: the local listener; its socket must not go away meanwhile
 *
 * Where the parent has left LISTEN, it goes where the parent's own has gone: to other
 * members of its SO_REUSEPORT group, or nowhere.
 *
 * A Fast Open request whose handshake is not complete stays: its listener's
 * fastopen lock guards it (see reqsk_fastopen_remove()). The heir's backlog alone is
 * not a limit here: these connections have been promised to their clients.
 *
 * Context: process. Who waits for the heir is called back, and there may be many of
 * them: so without fs_mutex, but for rmmod.
 * Return: false where a user's call holds the socket, so that not all could be
 * done.
 */
bool fs_drain_move(struct fs_local *l)
{
	/* Each once: those that stay are as many as their sender likes. */
	unsigned int left = READ_ONCE(l->sk->sk_ack_backlog);
	struct sock *heir, *former = NULL;
	unsigned int max, moved, news = 0;
	bool owned;

	do {
		max = min_t(unsigned int, left, FS_DRAIN_BATCH);
		moved = 0;
		heir = NULL;
		local_bh_disable();
		/* inet_csk_accept() counts on nobody else taking from the queue. */
		bh_lock_sock(l->sk);
		owned = sock_owned_by_user(l->sk);
		if (!owned && left)
			heir = fs_drain_heir(l, &max);
		if (heir)
			moved = fs_drain_some(l, heir, max);
		bh_unlock_sock(l->sk);
		fs_count_n(l->fn, moved, moved);
		local_bh_enable();

		if (former && heir != former) {
			fs_drain_wake(former, news);
			news = 0;
		}
		if (former)
			sock_put(former);
		former = heir;
		news += moved;
		cond_resched();
		left -= max;
	} while (left && heir);
	if (former) {
		fs_drain_wake(former, news);
		sock_put(former);
	}
	return !owned;
}

static bool fs_drain_done(struct fs_local *l)
{
	if (!fs_drain_has_heir(l))
		return true;
	if (time_after(jiffies, l->deadline) || READ_ONCE(fs_drain_now))
		return true;
	/* The first grace period only ends the table's readers. */
	return l->graces > 1 && l->idle && !fs_waits(l->sk);
}

static void fs_drain_work(struct work_struct *work)
{
	struct fs_local *l, *next, *tmp;
	bool wait = false, again = false, quick = false;
	unsigned long began, delay;
	LIST_HEAD(done);

	mutex_lock(&fs_mutex);
	list_for_each_entry(l, &fs_draining, list) {
		if (l->closing)
			continue;
		l->idle = !reqsk_queue_len(fs_queue(l->sk)) && !fs_waits(l->sk);
		l->fresh = false;
		wait |= l->idle || l->graces < 2;
	}
	mutex_unlock(&fs_mutex);

	/*
	 * An ACK that another CPU is processing leaves the half-open count
	 * before it enters the accept queue: see inet_csk_complete_hashdance().
	 * Expedited, because until then the port is held; and not for those that
	 * only wait for their clients, half-open or by Fast Open.
	 */
	if (wait)
		synchronize_rcu_expedited();

	mutex_lock(&fs_mutex);
	began = jiffies;
	for (l = list_first_entry(&fs_draining, struct fs_local, list);
	     !list_entry_is_head(l, &fs_draining, list); l = next) {
		if (l->fresh || l->closing) {
			/* Closed since the look above: not its grace period. */
			again |= l->fresh;
			quick |= l->fresh;
			next = list_next_entry(l, list);
			continue;
		}
		l->graces += wait;
		/* Nobody else removes one that is closed. */
		mutex_unlock(&fs_mutex);
		fs_drain_move(l);
		mutex_lock(&fs_mutex);
		next = list_next_entry(l, list);
		if (fs_drain_done(l)) {
			list_move(&l->list, &done);
			list_del_rcu(&l->of_net);
			hlist_del(&l->drains);
			continue;
		}
		again = true;
		if (l->graces < 2 || (l->idle && !fs_waits(l->sk)))
			quick = true;
	}
	/* Looking through long queues is to take half of a CPU at most. */
	delay = max(quick ? 0 : FS_DRAIN_POLL, jiffies - began);
	mutex_unlock(&fs_mutex);

	/* What the parent has left to them is reset, which takes its time. */
	list_for_each_entry_safe(l, tmp, &done, list) {
		l->sk->sk_prot->close(l->sk, 0);
		l->lite->sk = NULL;
		sock_release(l->lite);
		fs_listen_free(l);
	}

	if (again)
		queue_delayed_work(system_unbound_wq, &fs_drain, delay);
}

/*
 * How long, in jiffies, the half-open connections of @l get, which takes no SYN any more.
 * Under TCP_DEFER_ACCEPT a client's answer is dropped until it sends something. From now
 * on it is not, and the next SYN-ACK, at the timer that is running, asks for another.
 */
static unsigned long fs_drain_time(struct fs_local *l)
{
	u8 defer = READ_ONCE(fs_queue(l->sk)->rskq_defer_accept);
	u8 retries = READ_ONCE(inet_csk(l->sk)->icsk_syn_retries) ?:
		     READ_ONCE(sock_net(l->sk)->ipv4.sysctl_tcp_synack_retries);

	if (!defer)
		return FS_HALF_OPEN_TIME;
	/*
	 * The timer is to send it however many it has counted, and however full the
	 * queue is. (Those accepted have this for TCP_SYNCNT, of which they have no use.)
	 */
	WRITE_ONCE(inet_csk(l->sk)->icsk_syn_retries, max(retries, defer));
	WRITE_ONCE(l->sk->sk_max_ack_backlog, U32_MAX);
	WRITE_ONCE(fs_queue(l->sk)->rskq_defer_accept, 0);

	/* It has counted to @defer - 1 at most, and has doubled each time. */
	return min(TCP_TIMEOUT_INIT << min(defer - 1, 7), TCP_RTO_MAX) + FS_HALF_OPEN_TIME;
}

/**
 * fs_drain_deadline() - set until when a local listener waits for half-open connections
 * @l: the local listener; takes no SYN any more
 *
 * May be called again: the later time counts.
 *
 * Context: process, fs_mutex held.
 * Return: jiffies.
 */
unsigned long fs_drain_deadline(struct fs_local *l)
{
	unsigned long end = jiffies + fs_drain_time(l);

	if (!l->deadline || time_after(end, l->deadline))
		l->deadline = end;
	return l->deadline;
}

static struct hlist_head *fs_drain_slot(const struct fs_local *l)
{
	return &fs_drains[hash_ptr(l->parent, FS_DRAIN_BITS)];
}

/**
 * fs_drain_enter() - count a local listener being closed among those that drain
 * @l: the local listener, unpublished
 *
 * Context: process, on the way through close(), fs_mutex held; fs_drain_start() is next.
 */
void fs_drain_enter(struct fs_local *l)
{
	WRITE_ONCE(l->state, FS_DRAINING);
	fs_drain_deadline(l);
	l->closing = true;
	list_move_tail(&l->list, &fs_draining);
	hlist_add_head(&l->drains, fs_drain_slot(l));
}

/**
 * fs_drain_start() - take over the socket of a local listener being closed
 * @l: the local listener; fs_drain_enter() knows it
 *
 * Context: process, on the way through close().
 * Return: whether the connections need time and the sock is kept; otherwise
 * it is the caller's to close.
 */
bool fs_drain_start(struct fs_local *l)
{
	const struct fs_local *other;
	unsigned int n = 0;
	bool keep;

	/* The parent's turn to close may be next: it knows what to do with its queue. */
	fs_drain_move(l);
	/* Who closes it may have been the only one told, and has not taken what waits there. */
	if (fs_parent_waits(l))
		fs_drain_wake(l->parent, 1);

	mutex_lock(&fs_mutex);
	hlist_for_each_entry(other, fs_drain_slot(l), drains)
		n += other->parent == l->parent;
	keep = fs_drain_has_heir(l) && n <= FS_DRAIN_MAX;
	if (keep) {
		/* sock_graft() would label it as what belongs to who closes it. */
		write_lock_bh(&l->sk->sk_callback_lock);
		rcu_assign_pointer(l->sk->sk_wq, &l->lite->wq);
		l->lite->sk = l->sk;
		sk_set_socket(l->sk, l->lite);
		write_unlock_bh(&l->sk->sk_callback_lock);
		l->closing = false;
		l->fresh = true;
		queue_delayed_work(system_unbound_wq, &fs_drain, 0);
	} else {
		/* As when the application's listener itself closes. */
		list_del(&l->list);
		list_del_rcu(&l->of_net);
		hlist_del(&l->drains);
	}
	mutex_unlock(&fs_mutex);
	if (!keep) {
		sock_release(l->lite);
		fs_listen_free(l);
	}
	return keep;
}

/**
 * fs_drain_flush() - finish every drain, waiting no longer for half-open ones
 *
 * Context: process, at module exit; nothing starts to drain any more.
 */
void fs_drain_flush(void)
{
	WRITE_ONCE(fs_drain_now, true);
	do {
		mod_delayed_work(system_unbound_wq, &fs_drain, 0);
		flush_delayed_work(&fs_drain);
	} while (!list_empty(&fs_draining));
	cancel_delayed_work_sync(&fs_drain);
}
