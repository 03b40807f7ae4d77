// SPDX-License-Identifier: GPL-2.0
/*
 * The libc functions that the library stands in front of. Each does what libc
 * does, with its errno; what is about neither a listener nor connect() goes
 * straight through.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fsocket.h"

#define API __attribute__((visibility("default")))

static struct real table;
static bool on;

static void resolve(void)
{
#define GET(name) table.name = dlsym(RTLD_NEXT, #name)
	GET(listen);
	GET(bind);
	GET(connect);
	GET(getsockname);
	GET(sendmsg);
	GET(sendmmsg);
	GET(epoll_create);
	GET(epoll_create1);
	GET(epoll_ctl);
	GET(epoll_wait);
	GET(epoll_pwait);
	GET(epoll_pwait2);
	GET(accept);
	GET(accept4);
	GET(close_range);
	GET(closefrom);
	GET(dup);
	GET(dup2);
	GET(dup3);
	GET(fcntl);
	GET(shutdown);
	GET(setsockopt);
	GET(poll);
	GET(ppoll);
	GET(select);
	GET(pselect);
	GET(system);
	GET(popen);
	GET(posix_spawn);
	GET(posix_spawnp);
	GET(execv);
	GET(execvp);
	GET(execve);
	GET(execvpe);
	GET(fexecve);
	GET(pthread_create);
	/* Last: it says that all are there. */
	GET(close);
#undef GET
}

/* Other libraries' constructors may call us before ours has run. */
const struct real *real(void)
{
	if (!table.close)
		resolve();
	return &table;
}

__attribute__((constructor)) static void start(void)
{
	const char *set = secure_getenv("FASTSOCKET");

	real();
	log_init();
	if (set && !strcmp(set, "off"))
		return;
	listener_init();
	port_init();
	busy_init();
	on = true;
}

/*
 * Whether the kernel could read @len bytes, at their first and last word: an
 * argument that gives EFAULT without us must not be a crash with us. The call
 * reads its second argument before it rejects the first (abseil does the same).
 */
static bool readable(const void *at, size_t len)
{
	const char *last = (const char *)at + len - 8;
	int saved = errno;
	bool yes;

	if (!at)
		return false;
	yes = syscall(SYS_rt_sigprocmask, -1, at, NULL, 8) && errno == EINVAL &&
	      syscall(SYS_rt_sigprocmask, -1, last, NULL, 8) && errno == EINVAL;
	errno = saved;
	return yes;
}

static enum kind kind(int fd)
{
	return on ? listener_kind(fd) : KIND_OTHER;
}

/* A child that fork() does not know of has calls of libc only: see listener_ours(). */
static enum kind kind_here(int fd)
{
	enum kind k = kind(fd);

	return k > KIND_OTHER && !listener_ours() ? KIND_OTHER : k;
}

API int listen(int fd, int backlog)
{
	int ret = real()->listen(fd, backlog);

	if (!ret && on) {
		port_seen(fd);
		if (listener_ours())
			listener_listen(fd);
	}
	return ret;
}

API int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	int before = errno;
	int ret = real()->bind(fd, addr, len);

	if (ret && errno == EADDRINUSE && on && listener_vacate()) {
		errno = before;
		ret = real()->bind(fd, addr, len);
	}
	if (!ret && on)
		port_bound(fd, addr, len);
	return ret;
}

API int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
	port_seen(fd);
	return real()->getsockname(fd, addr, len);
}

API int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	return on ? port_connect(fd, addr, len) : real()->connect(fd, addr, len);
}

/* Control data may hand descriptors to another process. */
API ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	ssize_t ret = real()->sendmsg(fd, msg, flags);

	if (ret >= 0 && msg->msg_controllen)
		port_all_seen();
	return ret;
}

API int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int n, int flags)
{
	int ret = real()->sendmmsg(fd, msgs, n, flags);

	for (int i = 0; i < ret; i++)
		if (msgs[i].msg_hdr.msg_controllen)
			port_all_seen();
	return ret;
}

API int epoll_create(int size)
{
	int fd = real()->epoll_create(size);

	if (fd >= 0)
		busy_epoll(fd);
	return fd;
}

API int epoll_create1(int flags)
{
	int fd = real()->epoll_create1(flags);

	if (fd >= 0)
		busy_epoll(fd);
	return fd;
}

/*
 * Which set the calling thread has last waited for, and whether it has had an
 * event since that no accept() has answered yet.
 */
static __thread int waited = -1;
static __thread bool told;

API int epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	enum kind k = kind_here(fd);
	bool given;

	if (k == KIND_OTHER)
		return real()->epoll_ctl(epfd, op, fd, ev);
	if (k == KIND_LOCAL) {
		errno = EBADF;
		return -1;
	}
	given = op != EPOLL_CTL_DEL && readable(ev, sizeof(*ev));
	if (op == EPOLL_CTL_ADD && given && listener_detect(fd))
		return listener_add(epfd, fd, ev);
	if (kind(fd) == KIND_LISTENER && op == EPOLL_CTL_MOD && given)
		return listener_mod(epfd, fd, ev);
	if (kind(fd) == KIND_LISTENER && op == EPOLL_CTL_DEL)
		return listener_del(epfd, fd, waited == epfd);
	return real()->epoll_ctl(epfd, op, fd, ev);
}

static int waits(int epfd, int n)
{
	waited = kind(epfd) == KIND_EPOLL ? epfd : -1;
	told = n > 0;
	return n;
}

API int epoll_wait(int epfd, struct epoll_event *evs, int n, int timeout)
{
	listener_settle();
	return waits(epfd, real()->epoll_wait(epfd, evs, n, timeout));
}

API int epoll_pwait(int epfd, struct epoll_event *evs, int n, int timeout,
		    const sigset_t *mask)
{
	listener_settle();
	return waits(epfd, real()->epoll_pwait(epfd, evs, n, timeout, mask));
}

API int epoll_pwait2(int epfd, struct epoll_event *evs, int n,
		     const struct timespec *timeout, const sigset_t *mask)
{
	listener_settle();
	return waits(epfd, real()->epoll_pwait2(epfd, evs, n, timeout, mask));
}

/* How long a blocking accept() may wait: SO_RCVTIMEO in ms, or -1. */
static int accept_timeout(int fd)
{
	struct timeval tv = {};
	socklen_t len = sizeof(tv);

	if (getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len) ||
	    (!tv.tv_sec && !tv.tv_usec))
		return -1;
	if (tv.tv_sec >= INT_MAX / 1000)
		return INT_MAX;
	return tv.tv_sec * 1000 + (tv.tv_usec + 999) / 1000;
}

/*
 * Another local listener of @fd that has something: for a thread that has not
 * waited itself, or whose wake-up nothing else explains; or one in the same set
 * @epfd, which has been told of both.
 */
static int accept_other(int fd, int epfd, int own, struct sockaddr *addr, socklen_t *len,
			int flags)
{
	int local = -1, conn = -1;

	while (conn < 0 && (local = listener_next_local(fd, epfd, local)) >= 0)
		if (local != own)
			conn = real()->accept4(local, addr, len, flags);
	return conn;
}

/* @plain: accept() was called, not accept4(). */
static int accept_any(int fd, struct sockaddr *addr, socklen_t *len, int flags,
		      bool plain)
{
	int local, conn;

	if (kind(fd) != KIND_LISTENER)
		goto stock;

	while ((local = listener_local(fd, waited)) >= 0) {
		struct pollfd wait[] = { { fd, POLLIN, 0 }, { local, POLLIN, 0 } };
		int n;

		conn = real()->accept4(local, addr, len, flags);
		if (conn < 0 && errno == EAGAIN) {
			/* A stock answer: the module is gone. */
			if (!listener_ours())
				break;
			listener_drop_local(local);
			continue;
		}
		if (conn < 0 && errno == ENODATA) {
			if (waited < 0 || told)
				conn = accept_other(fd, -1, local, addr, len, flags);
			else if (listener_twice())
				conn = accept_other(fd, waited, local, addr, len, flags);
			if (conn < 0) {
				told = false;
				errno = ENODATA;
			}
		} else {
			told = false;
		}
		if (conn >= 0) {
			listener_other(conn);
			return conn;
		}
		/* The application's own descriptor knows best. */
		if (errno == EINVAL || errno == EBADF || errno == ENOTSOCK ||
		    errno == EOPNOTSUPP)
			break;
		if (errno != ENODATA)
			return -1;

		if (real()->fcntl(fd, F_GETFL) & O_NONBLOCK) {
			errno = EAGAIN;
			return -1;
		}
		n = real()->poll(wait, 2, accept_timeout(fd));
		if (n <= 0) {
			if (!n)
				errno = EAGAIN;
			return -1;
		}
	}
stock:
	conn = plain ? real()->accept(fd, addr, len) :
		       real()->accept4(fd, addr, len, flags);
	if (conn >= 0 && on)
		listener_other(conn);
	return conn;
}

API int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	return accept_any(fd, addr, len, 0, true);
}

API int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	return accept_any(fd, addr, len, flags, false);
}

/*
 * Not by libc, whose close() is where a thread may be cancelled: with the lock
 * held, and the descriptor closed or not.
 */
static int close_known(int fd)
{
	int ret, saved;

	pthread_testcancel();
	lock_acquire();
	listener_closing(fd, fd);
	ret = syscall(SYS_close, fd);
	saved = errno;
	listener_closed(fd, fd);
	lock_release();
	errno = saved;
	return ret;
}

API int close(int fd)
{
	enum kind k = kind_here(fd);

	if (k == KIND_LOCAL || control_owns(fd)) {
		/* Not open, as far as the application goes. */
		errno = EBADF;
		return -1;
	}
	/* The next set with this number is another one. */
	if (waited == fd && listener_ours())
		waited = -1;
	return k == KIND_LISTENER || k == KIND_EPOLL ? close_known(fd) : real()->close(fd);
}

API int close_range(unsigned int first, unsigned int last, int flags)
{
	bool goes = on && !(flags & CLOSE_RANGE_CLOEXEC) && first <= last && listener_ours();
	int ret, saved;

	if (!goes)
		return real()->close_range(first, last, flags);
	lock_acquire();
	listener_closing(first, last);
	ret = real()->close_range(first, last, flags);
	saved = errno;
	if (!ret) {
		listener_closed(first, last);
		control_closed(first, last);
	}
	lock_release();
	errno = saved;
	return ret;
}

API void closefrom(int first)
{
	unsigned int from = first < 0 ? 0 : first;

	if (!on || !listener_ours()) {
		real()->closefrom(first);
		return;
	}
	lock_acquire();
	listener_closing(from, ~0U);
	real()->closefrom(first);
	listener_closed(from, ~0U);
	control_closed(from, ~0U);
	lock_release();
}

static void duped(int from, int to)
{
	port_seen(from);
	listener_duped(from, to);
}

API int dup(int fd)
{
	int ret = real()->dup(fd);

	if (ret >= 0 && on)
		duped(fd, ret);
	return ret;
}

/*
 * dup3(), or dup2() without @flags. What has the number @to is closed by it, with
 * the lock held as in close_known(): the number is never free, and whoever looks it up
 * waits until it is known what it has become.
 */
static int dup_onto(int from, int to, const int *flags)
{
	bool known = from != to && (kind_here(to) > KIND_OTHER ||
				    (control_owns(to) && listener_ours()));
	int ret, saved;

	if (known) {
		lock_acquire();
		listener_closing(to, to);
	}
	ret = flags ? real()->dup3(from, to, *flags) : real()->dup2(from, to);
	saved = errno;
	if (known && ret >= 0) {
		if (waited == to)
			waited = -1;
		listener_closed(to, to);
		control_closed(to, to);
	}
	if (ret >= 0 && from != to && on) {
		if (to == STDERR_FILENO && listener_ours())
			log_stderr();
		duped(from, to);
	}
	if (known)
		lock_release();
	errno = saved;
	return ret;
}

API int dup2(int from, int to)
{
	return dup_onto(from, to, NULL);
}

API int dup3(int from, int to, int flags)
{
	return dup_onto(from, to, &flags);
}

static int fcntl_any(int fd, int cmd, void *arg)
{
	int ret = real()->fcntl(fd, cmd, arg);

	if (ret >= 0 && on && (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC))
		duped(fd, ret);
	return ret;
}

#define FCNTL(name)					\
API int name(int fd, int cmd, ...)			\
{							\
	va_list args;					\
	void *arg;					\
							\
	va_start(args, cmd);				\
	arg = va_arg(args, void *);			\
	va_end(args);					\
	return fcntl_any(fd, cmd, arg);			\
}

FCNTL(fcntl)
FCNTL(fcntl64)

API int shutdown(int fd, int how)
{
	int ret = real()->shutdown(fd, how);

	if (!ret && kind_here(fd) == KIND_LISTENER && how != SHUT_WR)
		listener_drop(fd);
	return ret;
}

API int setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	int ret = real()->setsockopt(fd, level, name, val, len);

	if (!ret && kind_here(fd) == KIND_LISTENER)
		control_sync(fd);
	return ret;
}

/*
 * poll() of a listener that has a local one here: the local one is polled
 * too and what it says is said of the listener. Where there is no room for
 * that, this process gives its local listeners up.
 */
#define POLL_ROOM	64
/* Beyond this the kernel would say EINVAL anyway. */
#define POLL_MAX	(1 << 20)

struct polling {
	struct pollfd fds[POLL_ROOM];
	nfds_t n, extra;
	int of[POLL_ROOM];
	bool again;	/* nothing was to say but that a local one has gone meanwhile */
};

static bool polling(struct polling *p, struct pollfd *fds, nfds_t n)
{
	listener_settle();
	if (!on || !listener_any_local() || !n || n > POLL_MAX ||
	    !readable(fds, n * sizeof(*fds)))
		return false;
	p->extra = 0;
	for (nfds_t i = 0; i < n; i++) {
		int local;

		if (kind(fds[i].fd) != KIND_LISTENER)
			continue;
		for (local = listener_next_local(fds[i].fd, -1, -1); local >= 0;
		     local = listener_next_local(fds[i].fd, -1, local)) {
			if (n + p->extra >= POLL_ROOM) {
				for (nfds_t j = 0; j < n; j++)
					if (kind(fds[j].fd) == KIND_LISTENER)
						listener_drop(fds[j].fd);
				return false;
			}
			p->of[p->extra] = i;
			p->fds[n + p->extra++] = (struct pollfd){
				local, fds[i].events, 0 };
		}
	}
	if (!p->extra)
		return false;
	memcpy(p->fds, fds, n * sizeof(*fds));
	p->n = n;
	return true;
}

static int polled(struct polling *p, struct pollfd *fds, int ret)
{
	p->again = false;
	if (ret < 0)
		return ret;
	for (nfds_t i = 0; i < p->extra; i++) {
		short events = p->fds[p->n + i].revents;

		if (events & POLLNVAL) {
			listener_gone(p->fds[p->n + i].fd);
			p->again = true;
		} else if (events) {
			told = true;
		}
		p->fds[p->of[i]].revents |= events & ~POLLNVAL;
	}
	ret = 0;
	for (nfds_t i = 0; i < p->n; i++) {
		fds[i].revents = p->fds[i].revents;
		ret += !!fds[i].revents;
	}
	p->again &= !ret;
	return ret;
}

API int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct polling p;
	int ret;

	while (polling(&p, fds, n)) {
		ret = polled(&p, fds, real()->poll(p.fds, n + p.extra, timeout));
		if (!p.again)
			return ret;
	}
	return real()->poll(fds, n, timeout);
}

API int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
	      const sigset_t *mask)
{
	struct polling p;
	int ret;

	while (polling(&p, fds, n)) {
		ret = polled(&p, fds, real()->ppoll(p.fds, n + p.extra, timeout, mask));
		if (!p.again)
			return ret;
	}
	return real()->ppoll(fds, n, timeout, mask);
}

/* What programs built with _FORTIFY_SOURCE call. */
API int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t len)
{
	if (len / sizeof(*fds) < n)
		abort();	/* as libc does: the caller's array is too short */
	return poll(fds, n, timeout);
}

API int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
		    const sigset_t *mask, size_t len)
{
	if (len / sizeof(*fds) < n)
		abort();
	return ppoll(fds, n, timeout, mask);
}

static void selecting(int n, const fd_set *set)
{
	listener_settle();
	if (!on || n <= 0 || !listener_any_local() ||
	    !readable(set, ((unsigned int)n + 63) / 64 * 8))
		return;
	for (int fd = 0; fd < n && fd < FD_SETSIZE; fd++)
		if (FD_ISSET(fd, set) && kind(fd) == KIND_LISTENER)
			listener_drop(fd);
}

API int select(int n, fd_set *in, fd_set *out, fd_set *ex, struct timeval *timeout)
{
	selecting(n, in);
	return real()->select(n, in, out, ex, timeout);
}

API int pselect(int n, fd_set *in, fd_set *out, fd_set *ex,
		const struct timespec *timeout, const sigset_t *mask)
{
	selecting(n, in);
	return real()->pselect(n, in, out, ex, timeout, mask);
}

/* A program that is started is not bound as we have bound the thread that starts it. */
static bool starting(void)
{
	return on && affinity_lift();
}

static int started(bool lifted, int ret)
{
	int saved = errno;

	if (lifted)
		affinity_return();
	errno = saved;
	return ret;
}

API int system(const char *command)
{
	bool lifted = starting();

	return started(lifted, real()->system(command));
}

API FILE *popen(const char *command, const char *mode)
{
	bool lifted = starting();
	FILE *file = real()->popen(command, mode);

	started(lifted, 0);
	return file;
}

API int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *acts,
		    const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	bool lifted = starting();

	return started(lifted, real()->posix_spawn(pid, path, acts, attr, argv, envp));
}

API int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *acts,
		     const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	bool lifted = starting();

	return started(lifted, real()->posix_spawnp(pid, file, acts, attr, argv, envp));
}

API int execv(const char *path, char *const argv[])
{
	bool lifted = starting();

	return started(lifted, real()->execv(path, argv));
}

API int execvp(const char *file, char *const argv[])
{
	bool lifted = starting();

	return started(lifted, real()->execvp(file, argv));
}

API int execve(const char *path, char *const argv[], char *const envp[])
{
	bool lifted = starting();

	return started(lifted, real()->execve(path, argv, envp));
}

API int execvpe(const char *file, char *const argv[], char *const envp[])
{
	bool lifted = starting();

	return started(lifted, real()->execvpe(file, argv, envp));
}

API int fexecve(int fd, char *const argv[], char *const envp[])
{
	bool lifted = starting();

	return started(lifted, real()->fexecve(fd, argv, envp));
}

API int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
		       void *(*func)(void *), void *arg)
{
	void *ctx = affinity_bound() ? affinity_inherit(func, arg) : NULL;
	int ret;

	if (!ctx)
		return real()->pthread_create(thread, attr, func, arg);
	ret = real()->pthread_create(thread, attr, affinity_start, ctx);
	if (ret)
		free(ctx);
	return ret;
}
