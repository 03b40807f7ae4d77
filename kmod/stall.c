// SPDX-License-Identifier: GPL-2.0
/*
 * A worker that does not come: it is stopped, busy with one request for long, or waits for
 * its turn to wait (a lock around epoll_wait() and accept()). What waits in its local
 * listener's queue goes to the application's, from which any worker accepts, and for a
 * while SYNs pass the local listener over.
 */
#include <linux/file.h>
#include <linux/net.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "local.h"

/* Between looks at the queues. */
#define FS_STALL_POLL	msecs_to_jiffies(50)
/* How long a local listener is passed over: twice as long each time it happens again soon. */
#define FS_STALL_TIME	HZ
#define FS_STALL_MAX	(64 * HZ)
/* Queues looked at in one go, as softirqs wait for the lock. */
#define FS_STALL_BATCH	64

static void fs_stall_work(struct work_struct *work);
static DECLARE_DELAYED_WORK(fs_stall, fs_stall_work);
/* Guards the list, and of its members what belongs to it. Inside fs_mutex. */
static DEFINE_SPINLOCK(fs_stall_lock);
static LIST_HEAD(fs_watched);

/**
 * fs_stall_watch() - see to it that a connection does not wait for ever
 * @l: the local listener whose queue it is about to enter
 *
 * Context: RCU read side, in which the connection enters the queue.
 */
void fs_stall_watch(struct fs_local *l)
{
	if (READ_ONCE(l->watched) || !READ_ONCE(l->fn->accept_patience))
		return;
	spin_lock_bh(&fs_stall_lock);
	if (!l->unwatched) {
		WRITE_ONCE(l->watched, true);
		if (list_empty(&l->watch))
			list_add_tail(&l->watch, &fs_watched);
		/* Under the lock: none comes after fs_stall_forget(). */
		queue_delayed_work(system_unbound_wq, &fs_stall, FS_STALL_POLL);
	}
	spin_unlock_bh(&fs_stall_lock);
}

/**
 * fs_stall_forget() - look no more at a local listener's queue
 * @l: the local listener, whose socket is still there
 *
 * Context: process. fs_stall_work() may be moving its connections, and has its file.
 */
void fs_stall_forget(struct fs_local *l)
{
	spin_lock_bh(&fs_stall_lock);
	l->unwatched = true;
	list_del_init(&l->watch);
	spin_unlock_bh(&fs_stall_lock);
}

/* Whether nobody has come for what waits in @l's queue. Takes it off the list if it can. */
static bool fs_stall_look(struct fs_local *l)
{
	unsigned long patience = msecs_to_jiffies(READ_ONCE(l->fn->accept_patience));
	long accepted = atomic_long_read(&l->accepted);
	unsigned long time = FS_STALL_TIME;

	if (patience && fs_waits(l->sk)) {
		WRITE_ONCE(l->watched, true);
		if (!l->waits || l->waits_since_accepted != accepted) {
			l->waits = true;
			l->waits_since_accepted = accepted;
			l->waits_since = jiffies;
			return false;
		}
		if (time_before(jiffies, l->waits_since + patience))
			return false;
		l->waits = false;
		if (l->stall_time && time_before(jiffies, l->stalled_until + 8 * l->stall_time))
			time = min(2 * l->stall_time, FS_STALL_MAX);
		WRITE_ONCE(l->stalled_until, jiffies + time);
		WRITE_ONCE(l->stall_time, time);
		return true;
	}

	l->waits = false;
	/* Who has seen @watched set is still to enter the queue. */
	if (l->watched) {
		WRITE_ONCE(l->watched, false);
		l->unwatched_gp = start_poll_synchronize_rcu();
	} else if (poll_state_synchronize_rcu(l->unwatched_gp)) {
		list_del_init(&l->watch);
	}
	return false;
}

static void fs_stall_work(struct work_struct *work)
{
	unsigned long began = jiffies;
	unsigned int n = 0;
	struct fs_local *l;
	struct file *file;
	LIST_HEAD(todo);

	spin_lock_bh(&fs_stall_lock);
	list_splice_init(&fs_watched, &todo);
	while ((l = list_first_entry_or_null(&todo, struct fs_local, watch))) {
		list_move_tail(&l->watch, &fs_watched);
		file = fs_stall_look(l) ? l->sk->sk_socket->file : NULL;
		/* One of which nobody has the file closes as soon as we let it. */
		if (file && !fs_file_get(file))
			file = NULL;
		if (!file && ++n % FS_STALL_BATCH)
			continue;
		spin_unlock_bh(&fs_stall_lock);
		if (file) {
			fs_drain_move(l);
			fput(file);
		}
		cond_resched();
		spin_lock_bh(&fs_stall_lock);
	}
	/* Looking through long queues is to take half of a CPU at most. */
	if (!list_empty(&fs_watched))
		queue_delayed_work(system_unbound_wq, &fs_stall,
				   max(FS_STALL_POLL, jiffies - began));
	spin_unlock_bh(&fs_stall_lock);
}

/**
 * fs_stall_exit() - wait until nobody looks at queues
 *
 * Context: process, at module exit; fs_stall_forget() has been called for all.
 */
void fs_stall_exit(void)
{
	cancel_delayed_work_sync(&fs_stall);
}
