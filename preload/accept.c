// SPDX-License-Identifier: GPL-2.0
/*
 * accept() on a listener: from the calling thread's local listener, which also
 * gives what waits at the application's.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#include "fsocket.h"

/* Others' locals that are looked at, at most. */
#define MAX_OTHERS	64
/* How long a local without its module is looked at for late connections. */
#define SILENT_SECONDS	10

/* What a thread remembers of a descriptor. */
struct cache {
	unsigned int generation;
	int fd;
	int local;
	bool others;	/* locals there are that are not this one */
	int misses;	/* calls in a row that found nothing */
};

static __thread struct cache caches[8];

/* A thread that may be a worker by now becomes one here. */
static void lookup(struct cache *c, int fd)
{
	struct fs_waiter *w;
	struct fs_guard g;

	c->generation = 0;
	c->fd = fd;
	c->local = -1;
	c->others = false;
	c->misses = 0;
	if (!fs_lock(&g))
		return;
	if (fs_kind(fd) == FS_LISTENER) {
		struct fs_listener *l = fs_object(fd);

		for (w = l->waiters; w; w = w->next)
			if (w->want && w->local < 0 && fs_may_work(w))
				fs_spawn(w);
		for (w = l->waiters; w && c->local < 0; w = w->next)
			if (w->tid == fs_tid())
				c->local = w->local;
		c->others = l->nlocals > (c->local >= 0);
	}
	c->generation = fs_generation;
	fs_unlock(&g);
}

/* The locals of a listener in this process. */
static int locals(int fd, int *list)
{
	struct fs_waiter *w;
	struct fs_guard g;
	int n = 0;

	if (!fs_lock(&g))
		return 0;
	if (fs_kind(fd) == FS_LISTENER)
		for (w = ((struct fs_listener *)fs_object(fd))->waiters; w; w = w->next)
			if (w->local >= 0 && n < MAX_OTHERS)
				list[n++] = w->local;
	fs_unlock(&g);
	return n;
}

/*
 * The module has been unloaded. Connections that were half open then may still
 * arrive at what was the local listener; later it is of no use.
 */
static void silent(int local)
{
	struct fs_waiter *w;
	struct timespec now;
	struct fs_guard g;

	if (!fs_lock(&g))
		return;
	if (fs_kind(local) == FS_LOCAL) {
		w = fs_object(local);
		clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
		if (!w->silent)
			w->silent = now.tv_sec;
		else if (now.tv_sec - w->silent > SILENT_SECONDS)
			fs_waiter_drop(w);
	}
	fs_unlock(&g);
}

/* Not a local listener any more: it has been closed behind our back. */
static void broken(int local)
{
	struct fs_guard g;

	if (!fs_lock(&g))
		return;
	if (fs_kind(local) == FS_LOCAL)
		fs_waiter_drop(fs_object(local));
	fs_unlock(&g);
}

/*
 * Whether the kernel would have restarted an accept(). poll() is never
 * restarted and does not say which signal came; if every handler that the
 * application has asks for it, it would have been.
 */
static bool restarts(void)
{
	struct sigaction sa;
	int sig;

	for (sig = 1; sig < NSIG; sig++)
		if (!sigaction(sig, NULL, &sa) && sa.sa_handler != SIG_DFL &&
		    sa.sa_handler != SIG_IGN && !(sa.sa_flags & SA_RESTART))
			return false;
	return true;
}

/* Until something may be there, for a listener that is not O_NONBLOCK. */
static int wait_for(int fd)
{
	struct pollfd fds[MAX_OTHERS + 1];
	int list[MAX_OTHERS], i, n, ret;
	struct timeval tv = { 0 };
	socklen_t len = sizeof(tv);
	int64_t ms = -1;

	n = locals(fd, list);
	for (i = 0; i < n; i++)
		fds[i] = (struct pollfd){ .fd = list[i], .events = POLLIN };
	fds[n] = (struct pollfd){ .fd = fd, .events = POLLIN };

	getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len);
	if (tv.tv_sec || tv.tv_usec)
		ms = tv.tv_sec * 1000LL + (tv.tv_usec + 999) / 1000;
	if (ms > INT32_MAX)
		ms = -1;
	do
		ret = real(poll)(fds, n + 1, ms);
	while (ret < 0 && errno == EINTR && ms < 0 && restarts());
	if (!ret) {
		errno = EAGAIN;
		return -1;
	}
	for (i = 0; ret > 0 && i < n; i++)
		if (fds[i].revents & POLLNVAL)
			broken(list[i]);
	return ret < 0 ? -1 : 0;
}

static bool nothing(int err)
{
	return err == ENODATA || err == EAGAIN;
}

/* These speak of the descriptor, and the application's has the last word. */
static bool of_descriptor(int err)
{
	return err == EINVAL || err == EBADF || err == ENOTSOCK || err == EOPNOTSUPP;
}

/*
 * From other threads' locals: this thread takes events of an epoll set that
 * another has filled, or another has told it to accept.
 */
static int accept_others(int fd, int own, __SOCKADDR_ARG addr, socklen_t *len,
			 int flags)
{
	int list[MAX_OTHERS], i, n, ret;

	n = locals(fd, list);
	for (i = 0; i < n; i++) {
		if (list[i] == own)
			continue;
		ret = real(accept4)(list[i], addr, len, flags);
		if (ret >= 0 || !(nothing(errno) || of_descriptor(errno)))
			return ret;
	}
	errno = ENODATA;
	return -1;
}

int fs_accept(int fd, __SOCKADDR_ARG addr, socklen_t *len, int flags)
{
	struct cache *c = &caches[fd % (sizeof(caches) / sizeof(*caches))];
	int ret, fl, err = errno;

again:
	if (c->fd != fd || c->generation != fs_generation)
		lookup(c, fd);

	errno = EAGAIN;
	if (c->local >= 0) {
		/*
		 * Another thread may close it in between; its number is then
		 * nothing or, hardly, a socket that the same thread just made.
		 */
		ret = real(accept4)(c->local, addr, len, flags);
		if (ret >= 0)
			goto accepted;
		if (errno == EAGAIN)
			silent(c->local);
		else if (errno != ENODATA && !of_descriptor(errno))
			return ret;
		else if (errno == EBADF || errno == ENOTSOCK)
			broken(c->local);
	}
	/*
	 * With an own local the others' are not ours to take, unless we were
	 * woken for nothing: once may be a race, twice is for one of them.
	 */
	if (c->others && (c->local < 0 || ++c->misses > 1)) {
		int own = errno;

		ret = accept_others(fd, c->local, addr, len, flags);
		if (ret >= 0)
			goto accepted;
		if (errno != ENODATA)
			return ret;
		if (c->local >= 0)
			errno = own;
	}
	/* ENODATA: nothing at the application's listener, either. */
	if (errno == ENODATA) {
		fl = fcntl(fd, F_GETFL);
		if (fl >= 0 && fl & O_NONBLOCK) {
			errno = EAGAIN;
			return -1;
		}
		if (fl >= 0) {
			if (wait_for(fd))
				return -1;
			goto again;
		}
	}
	ret = real(accept4)(fd, addr, len, flags);
	if (ret >= 0)
		errno = err;
	return ret;

accepted:
	c->misses = 0;
	errno = err;
	return ret;
}
