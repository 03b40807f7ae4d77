// SPDX-License-Identifier: GPL-2.0
/*
 * epoll_ctl() on a listener: who is a worker, its local listener, and the
 * application's registration beside it.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

/* With other events the kernel refuses EPOLLEXCLUSIVE. */
#define EXCLUSIVE_OK	(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLET | EPOLLWAKEUP)

/* Locals are numbered from here, where applications seldom come. */
#define LOCAL_BASE	448

static int ctl(int epfd, int op, int fd, uint32_t events, epoll_data_t data)
{
	struct epoll_event ev = { .events = events, .data = data };

	return syscall(SYS_epoll_ctl, epfd, op, fd, &ev);
}

static struct fs_waiter *find_waiter(struct fs_listener *l, int epfd, int fd)
{
	struct fs_epoll *ep = fs_kind(epfd) == FS_EPOLL ? fs_object(epfd) : NULL;
	struct fs_waiter *w;

	for (w = l->waiters; w; w = w->next)
		if (w->fd == fd && w->ep == ep && (ep || w->epfd == epfd))
			return w;
	return NULL;
}

/*
 * The application waits for connections with it. Not for one at a time: after
 * EPOLLONESHOT has disarmed one of the two descriptors, the other would still
 * report.
 */
static bool waits(const struct fs_waiter *w)
{
	return w->ev.events & EPOLLIN && !(w->ev.events & EPOLLONESHOT);
}

/**
 * fs_may_work() - whether the calling thread is a worker with this waiter
 * @w: a waiter of the calling thread, without a local
 *
 * The first thread of the process that called listen() may be all there is of
 * the server; binding it to a CPU would then take the others from it.
 */
bool fs_may_work(const struct fs_waiter *w)
{
	const struct fs_listener *l = w->l;

	if (!waits(w) || l->never || !w->ep || w->ep->shared || w->tid != fs_tid())
		return false;
	return l->pid != fs_owner() || w->tid != fs_owner() || l->nlocals ||
	       fs_affinity_single() >= 0;
}

static int port(int fd)
{
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} addr = { 0 };
	socklen_t len = sizeof(addr);

	getsockname(fd, &addr.sa, &len);
	return ntohs(addr.sa.sa_family == AF_INET6 ? addr.in6.sin6_port :
						     addr.in.sin_port);
}

/* To a high number: the application's next descriptor is what it would be. */
static int move_up(int fd)
{
	int base = LOCAL_BASE, high, err;
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < LOCAL_BASE + 64)
		base = limit.rlim_cur > 128 ? limit.rlim_cur - 64 : limit.rlim_cur / 2;
	high = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, base);
	err = errno;
	syscall(SYS_close, fd);
	return high < 0 ? -err : high;
}

/* Beside a local it is for the slow path, where waking one worker is enough. */
static void make_exclusive(struct fs_waiter *w)
{
	uint32_t events = w->ev.events;

	if (w->exclusive || events & ~EXCLUSIVE_OK || fs_kind(w->fd) != FS_LISTENER ||
	    fs_object(w->fd) != w->l)
		return;
	if (syscall(SYS_epoll_ctl, w->epfd, EPOLL_CTL_DEL, w->fd, NULL))
		return;
	w->exclusive = !ctl(w->epfd, EPOLL_CTL_ADD, w->fd, events | EPOLLEXCLUSIVE, w->ev.data);
	if (!w->exclusive)
		ctl(w->epfd, EPOLL_CTL_ADD, w->fd, events, w->ev.data);
}

/* Give a waiter its local listener. Under the lock; it may come out without. */
void fs_spawn(struct fs_waiter *w)
{
	int single = fs_affinity_single();
	int fd = w->fd, cpu, local;

	w->want = false;
	/* Bound by us and then unbound by the application: it knows better. */
	if ((single < 0 && !fs_affinity_bindable()) || !fs_worker_here())
		return;

	local = fs_control_spawn(fd, single, &cpu);
	if (local >= 0)
		local = move_up(local);
	if (local < 0) {
		fs_log(FS_INFO, "port %d: no local listener: %s", port(fd),
		       strerrordesc_np(-local));
		return;
	}
	/* In case the module goes: then it is an ordinary socket. */
	syscall(SYS_fcntl, local, F_SETFL, O_RDWR | O_NONBLOCK);

	if ((single < 0 && !fs_affinity_bind(cpu)) ||
	    ctl(w->epfd, EPOLL_CTL_ADD, local, w->ev.events, w->ev.data) ||
	    !fs_slot_set(local, w, FS_LOCAL)) {
		fs_log(FS_INFO, "port %d: no local listener: %s", port(fd),
		       strerrordesc_np(errno));
		syscall(SYS_close, local);
		return;
	}
	w->local = local;
	w->silent = 0;
	w->l->nlocals++;
	fs_nlocals++;
	fs_generation++;
	make_exclusive(w);
	fs_log(FS_INFO, "port %d: local listener on CPU %d", port(fd), cpu);
}

/* After a successful EPOLL_CTL_ADD. */
void fs_epoll_added(int epfd, int fd, const struct epoll_event *ev)
{
	struct fs_listener *l;
	struct fs_waiter *w;
	struct fs_guard g;

	if (fs_kind(fd) == FS_PLAIN || !fs_lock(&g))
		return;
	l = fs_listener_get(fd, 0);
	if (!l || !fs_control_ready())
		goto out;
	w = find_waiter(l, epfd, fd);
	/* The kernel had none, so it was closed without the C library. */
	if (w)
		fs_waiter_free(w);
	w = fs_waiter_new(l);
	if (!w)
		goto out;
	w->ep = fs_kind(epfd) == FS_EPOLL ? fs_object(epfd) : NULL;
	w->epfd = epfd;
	w->fd = fd;
	w->tid = fs_tid();
	w->ev = *ev;
	w->want = true;
	if (fs_may_work(w))
		fs_spawn(w);
out:
	fs_unlock(&g);
}

/* Change the application's registration, which may be ours in part. */
static int modify(struct fs_waiter *w, int epfd, int fd, struct epoll_event *ev)
{
	uint32_t events = ev->events;

	if (!w->exclusive)
		return real(epoll_ctl)(epfd, EPOLL_CTL_MOD, fd, ev);
	/* The kernel does not modify an exclusive one. */
	if (syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_DEL, fd, NULL))
		return -1;
	w->exclusive = w->local >= 0 && events & EPOLLIN && !(events & ~EXCLUSIVE_OK);
	if (w->exclusive)
		events |= EPOLLEXCLUSIVE;
	return ctl(epfd, EPOLL_CTL_ADD, fd, events, ev->data);
}

int fs_epoll_mod(int epfd, int fd, struct epoll_event *ev)
{
	struct fs_waiter *w = NULL;
	struct fs_guard g;
	int ret;

	if (!fs_lock(&g))
		return real(epoll_ctl)(epfd, EPOLL_CTL_MOD, fd, ev);
	if (fs_kind(fd) == FS_LISTENER)
		w = find_waiter(fs_object(fd), epfd, fd);
	/* Not ours, or refused by the kernel for the application's own doing. */
	if (!w || !ev || (w->ev.events | ev->events) & EPOLLEXCLUSIVE) {
		ret = real(epoll_ctl)(epfd, EPOLL_CTL_MOD, fd, ev);
		if (ret)
			g.err = errno;
		goto out;
	}
	ret = modify(w, epfd, fd, ev);
	if (ret) {
		g.err = errno;
		if (g.err == ENOENT)
			fs_waiter_free(w);
		goto out;
	}
	w->ev = *ev;
	if (w->local >= 0) {
		/* Paused: others may have what comes meanwhile. */
		if (!waits(w) || ctl(epfd, EPOLL_CTL_MOD, w->local, ev->events, ev->data))
			fs_waiter_drop(w);
	} else if (fs_may_work(w)) {
		fs_spawn(w);
	}
out:
	fs_unlock(&g);
	return ret;
}

int fs_epoll_del(int epfd, int fd, struct epoll_event *ev)
{
	struct fs_waiter *w;
	struct fs_guard g;
	int ret, err;

	ret = real(epoll_ctl)(epfd, EPOLL_CTL_DEL, fd, ev);
	err = errno;
	if ((ret && err != ENOENT) || !fs_lock(&g))
		return ret;
	if (fs_kind(fd) == FS_LISTENER) {
		w = find_waiter(fs_object(fd), epfd, fd);
		if (w)
			fs_waiter_free(w);
	}
	fs_unlock(&g);
	return ret;
}

/* After a successful listen(). */
void fs_listened(int fd)
{
	struct fs_listener *l;
	struct fs_waiter *w;
	struct fs_guard g;

	if (!fs_lock(&g))
		return;
	l = fs_listener_get(fd, fs_owner());
	if (!l || !fs_control_ready()) {
		goto out;
	}
	if (l->nlocals)
		fs_control_sync(fd);
	/* After a shutdown(): workers find out when they next accept. */
	for (w = l->waiters; w; w = w->next) {
		if (w->local >= 0)
			continue;
		w->want = true;
		if (fs_may_work(w))
			fs_spawn(w);
	}
	fs_generation++;
out:
	fs_unlock(&g);
}
