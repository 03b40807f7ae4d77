// SPDX-License-Identifier: GPL-2.0
/*
 * poll() and select() on a listener that has locals in this process. They get
 * the locals' connections, too: who waits in epoll_wait() elsewhere may have
 * stopped to.
 */
#include <errno.h>

#include "fsocket.h"

/* More than this is left to the slow path. */
#define MAX_FDS		1024
#define READABLE	(POLLIN | POLLRDNORM)

struct extended {
	struct pollfd fds[MAX_FDS];
	uint16_t owner[MAX_FDS];
	nfds_t n;
};

static bool wanted(const struct pollfd *p)
{
	return p->events & READABLE && fs_kind(p->fd) == FS_LISTENER;
}

/* The application's descriptors and our locals, or 0 if none is of concern. */
static bool extend(struct extended *x, const struct pollfd *fds, nfds_t n)
{
	struct fs_listener *l;
	struct fs_waiter *w;
	struct fs_guard g;
	nfds_t i;

	x->n = n;
	for (i = 0; i < n; i++)
		if (wanted(&fds[i]))
			break;
	if (i == n || !fs_lock(&g))
		return false;
	for (i = 0; i < n; i++) {
		if (!wanted(&fds[i]))
			continue;
		l = fs_object(fds[i].fd);
		for (w = l->waiters; w; w = w->next) {
			if (w->local < 0)
				continue;
			if (x->n >= MAX_FDS) {
				fs_waiter_drop(w);
				continue;
			}
			x->fds[x->n].fd = w->local;
			x->fds[x->n].events = fds[i].events & READABLE;
			x->owner[x->n++] = i;
		}
	}
	fs_unlock(&g);
	if (x->n == n)
		return false;
	for (i = 0; i < n; i++)
		x->fds[i] = fds[i];
	return true;
}

/* Tell the application of its own descriptors only; -1 to call again. */
static int merge(const struct extended *x, struct pollfd *fds, nfds_t n, int ret)
{
	struct fs_guard g;
	nfds_t i;
	int count = 0;

	if (ret < 0)
		return ret;
	for (i = 0; i < n; i++) {
		fds[i].revents = x->fds[i].revents;
		count += !!fds[i].revents;
	}
	for (; i < x->n; i++) {
		struct pollfd *p = &fds[x->owner[i]];
		short revents = x->fds[i].revents;

		if (revents & READABLE) {
			count += !p->revents;
			p->revents |= revents & READABLE;
		} else if (revents && fs_lock(&g)) {
			/* Closed meanwhile: do not look at it again. */
			if (fs_kind(x->fds[i].fd) == FS_LOCAL)
				fs_waiter_drop(fs_object(x->fds[i].fd));
			fs_unlock(&g);
		}
	}
	return !count && ret ? -1 : count;
}

static bool concerned(nfds_t n)
{
	return fs_any_locals() && n;
}

/* Too many to extend: without locals the plain call is right. */
static void drop_all(const struct pollfd *fds, nfds_t n)
{
	struct fs_guard g;
	nfds_t i;

	for (i = 0; i < n; i++)
		if (wanted(&fds[i]) && fs_lock(&g)) {
			if (fs_kind(fds[i].fd) == FS_LISTENER)
				fs_listener_drop(fs_object(fds[i].fd));
			fs_unlock(&g);
		}
}

int fs_poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct extended x;
	int ret;

	while (concerned(n)) {
		if (n > MAX_FDS)
			drop_all(fds, n);
		if (n > MAX_FDS || !extend(&x, fds, n))
			break;
		ret = real(poll)(x.fds, x.n, timeout);
		if (ret < 0)
			return ret;
		ret = merge(&x, fds, n, ret);
		if (ret >= 0)
			return ret;
	}
	return real(poll)(fds, n, timeout);
}

int fs_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
	     const sigset_t *mask)
{
	struct extended x;
	int ret;

	while (concerned(n)) {
		if (n > MAX_FDS)
			drop_all(fds, n);
		if (n > MAX_FDS || !extend(&x, fds, n))
			break;
		ret = real(ppoll)(x.fds, x.n, timeout, mask);
		if (ret < 0)
			return ret;
		ret = merge(&x, fds, n, ret);
		if (ret >= 0)
			return ret;
	}
	return real(ppoll)(fds, n, timeout, mask);
}

/* A descriptor set has room for numbers below FD_SETSIZE only: slow path. */
void fs_before_select(int n, const fd_set *set)
{
	struct fs_guard g;
	int fd;

	if (!set || !fs_any_locals())
		return;
	for (fd = 0; fd < n; fd++) {
		/* Programs do allocate larger sets than FD_SETSIZE. */
		if (!(set->fds_bits[fd / NFDBITS] & (1UL << (fd % NFDBITS))) ||
		    fs_kind(fd) != FS_LISTENER || !fs_lock(&g))
			continue;
		if (fs_kind(fd) == FS_LISTENER) {
			struct fs_listener *l = fs_object(fd);

			l->never = true;
			fs_listener_drop(l);
		}
		fs_unlock(&g);
	}
}
