// SPDX-License-Identifier: GPL-2.0
/*
 * The application's listeners, and the epoll sets that wait for them.
 *
 * A waiter is one (epoll set, listener) pair. Where the thread that made it is
 * a worker, it has a local listener in the same set with the same event data,
 * and the application's own is there with EPOLLEXCLUSIVE for the slow path.
 *
 * All changes are under the lock. Descriptors that are no listeners cost one load.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

/* Beyond this a listener takes the slow path. */
#define FDS	65536

/* What the kernel allows beside EPOLLEXCLUSIVE; the rest means nothing here. */
#define EXCLUSIVE_OK	(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLET | \
			 EPOLLWAKEUP)

struct waiter {
	struct waiter *next;
	int epfd;
	int fd;			/* as the application named it; -1: closed since */
	pid_t tid;
	struct epoll_event ev;	/* as the application gave it */
	bool exclusive;		/* we have added EPOLLEXCLUSIVE */
	int local;		/* or -1 */
	bool lost;		/* it has had one, which has gone unasked */
	bool parked;		/* the application has taken it out; see park() */
};

struct listener {
	ino_t ino;
	int fds;		/* descriptors of this process */
	bool inherited;		/* another process has called listen() */
	struct waiter *waiters;
};

/*
 * Bytes, written when a kind changes only: neighbours are in use on other CPUs.
 * KIND_OTHER is not undone by close(), since most numbers come back as another
 * connection; listen(), dup() and the next epoll_ctl() of a stranger set it
 * right.
 */
static uint8_t kinds[FDS];
static struct listener *listeners[FDS];
static int locals;		/* in this process */
static bool lost;		/* some waiter is, or has been */
static bool twice;		/* so is some listener in one set, by two numbers */
static int top;			/* highest special descriptor */
static unsigned int generation;	/* of locals and numbers; see listener_local() */
static pthread_key_t ends;	/* of threads that have local listeners */
static pid_t self;

static pid_t gettid_(void)
{
	static __thread pid_t tid;
	static __thread pid_t of;

	if (of != self) {
		tid = syscall(SYS_gettid);
		of = self;
	}
	return tid;
}

static void changed(void)
{
	__atomic_add_fetch(&generation, 1, __ATOMIC_RELEASE);
}

static void set_kind(int fd, enum kind kind)
{
	if (kinds[fd] != kind)
		__atomic_store_n(&kinds[fd], kind, __ATOMIC_RELEASE);
	if (kind > KIND_OTHER && fd > top)
		top = fd;
}

enum kind listener_kind(int fd)
{
	if (fd < 0 || fd >= FDS)
		return KIND_OTHER;
	return __atomic_load_n(&kinds[fd], __ATOMIC_ACQUIRE);
}

/*
 * A vfork() child shares our memory, not our descriptors. A child of _Fork() has its own
 * of both, but the lock as it was: nobody there may ever release it. So neither takes it.
 */
bool listener_ours(void)
{
	return getpid() == self;
}

void listener_other(int fd)
{
	if (fd >= 0 && fd < FDS && kinds[fd] == KIND_UNKNOWN)
		set_kind(fd, KIND_OTHER);
}

/* Whether a set may have several local listeners of one listener. */
bool listener_twice(void)
{
	return __atomic_load_n(&twice, __ATOMIC_RELAXED);
}

bool listener_any_local(void)
{
	return __atomic_load_n(&locals, __ATOMIC_RELAXED) > 0;
}

static bool is_listener(int fd)
{
	int saved = errno, accepts = 0, protocol = 0, domain = 0;
	socklen_t len = sizeof(int);
	bool yes;

	yes = !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &len) &&
	      accepts &&
	      !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) &&
	      protocol == IPPROTO_TCP &&
	      !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) &&
	      (domain == AF_INET || domain == AF_INET6);
	errno = saved;
	return yes;
}

static ino_t inode(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : st.st_ino;
}

/*
 * Records, used again and never freed. Not from malloc(): listen() and close() may be
 * called in a handler that has interrupted that, also in a thread for whose arena another
 * would wait with the lock held.
 */
#define CHUNK	4096

struct spare {
	struct spare *next;
};

static struct spare *spare_waiters, *spare_listeners;

static void give(struct spare **spares, void *record)
{
	struct spare *s = record;

	s->next = *spares;
	*spares = s;
}

static void *take(struct spare **spares, size_t size)
{
	struct spare *s;
	char *chunk;

	if (!*spares) {
		chunk = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);
		if (chunk == MAP_FAILED)
			return NULL;
		for (size_t at = 0; at + size <= CHUNK; at += size)
			give(spares, chunk + at);
	}
	s = *spares;
	*spares = s->next;
	return s;
}

static void forget(int fd);

/* Under the lock. The record of a listener, new where it is not known. */
static struct listener *record(int fd, bool inherited)
{
	struct listener *l = listeners[fd];
	ino_t ino = inode(fd);

	if (kinds[fd] == KIND_LISTENER && l->ino == ino)
		return l;
	/* Closed behind our back, and the number is another socket now. */
	if (kinds[fd] == KIND_LISTENER)
		forget(fd);
	for (int i = 0; i <= top; i++)
		if (kinds[i] == KIND_LISTENER && listeners[i]->ino == ino) {
			l = listeners[i];
			goto known;
		}
	l = take(&spare_listeners, sizeof(*l));
	if (!l)
		return NULL;
	*l = (struct listener){ .ino = ino, .inherited = inherited };
known:
	l->fds++;
	listeners[fd] = l;
	set_kind(fd, KIND_LISTENER);
	changed();
	return l;
}

/* Under the lock. The record of @fd, if that is the listener that it was. */
static struct listener *known(int fd)
{
	struct listener *l = kinds[fd] == KIND_LISTENER ? listeners[fd] : NULL;

	if (l && l->ino != inode(fd)) {
		forget(fd);
		l = NULL;
	}
	return l;
}

/* Whether @fd is a listener, looking at what we have not seen yet. */
bool listener_detect(int fd)
{
	enum kind kind = listener_kind(fd);
	int saved = errno;
	bool yes = false;

	if (fd < 0 || fd >= FDS || kind == KIND_OTHER || kind == KIND_LOCAL)
		return false;
	if (kind == KIND_LISTENER) {
		lock_acquire();
		yes = known(fd);
		lock_release();
		errno = saved;
	}
	if (yes)
		return true;
	if (!is_listener(fd)) {
		if (kind == KIND_UNKNOWN)
			listener_other(fd);
		errno = saved;
		return false;
	}
	if (!listener_ours())
		return false;
	control_check();
	lock_acquire();
	record(fd, true);
	lock_release();
	errno = saved;
	return true;
}

/* Not by libc, whose close() is where a thread may be cancelled: with the lock held. */
static void close_ours(int fd)
{
	syscall(SYS_close, fd);
}

/*
 * Keep our numbers away from the application's: it gets the lowest ones, as
 * without us. Not far away, as the kernel's table has to reach that far. And
 * in turns: a thread may be about to use the number that another has just closed.
 */
#define LOCAL_BASE	1024
#define LOCAL_SPAN	256

/* Under the lock. */
int fd_raise(int fd)
{
	static unsigned int turn;
	struct rlimit lim;
	int high, base = LOCAL_BASE, span = LOCAL_SPAN;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return fd;
	if (lim.rlim_cur <= LOCAL_BASE)
		base = lim.rlim_cur * 3 / 4;
	if (lim.rlim_cur < (rlim_t)base + span)
		span = lim.rlim_cur - base;
	if (span < 1)
		return fd;
	high = real()->fcntl(fd, F_DUPFD_CLOEXEC, base + turn++ % span);
	if (high < 0)
		high = real()->fcntl(fd, F_DUPFD_CLOEXEC, base);
	if (high < 0)
		return fd;
	close_ours(fd);
	return high;
}

/* Under the lock, like all below. */

static bool can_be_local(const struct epoll_event *ev)
{
	return ev->events & EPOLLIN && !(ev->events & EPOLLONESHOT);
}

/* As the application's own descriptor is in a set where a local one is, too. */
static bool exclusive_event(const struct epoll_event *ev, struct epoll_event *own)
{
	*own = *ev;
	if (!can_be_local(ev) || ev->events & ~(EXCLUSIVE_OK | EPOLLRDHUP))
		return false;
	own->events = (ev->events & EXCLUSIVE_OK) | EPOLLEXCLUSIVE;
	return true;
}

/* Only with a local listener: a wake-up that one has, others have not. */
static void set_exclusive(struct waiter *w, bool exclusive)
{
	struct epoll_event own = w->ev;

	if (w->exclusive == exclusive || w->parked || w->fd < 0 ||
	    kinds[w->fd] != KIND_LISTENER || (exclusive && !exclusive_event(&w->ev, &own)))
		return;
	/* The kernel neither modifies what is exclusive nor makes it so. */
	if (real()->epoll_ctl(w->epfd, EPOLL_CTL_DEL, w->fd, NULL))
		return;
	w->exclusive = exclusive;
	if (real()->epoll_ctl(w->epfd, EPOLL_CTL_ADD, w->fd, &own) && exclusive) {
		w->exclusive = false;
		real()->epoll_ctl(w->epfd, EPOLL_CTL_ADD, w->fd, &w->ev);
	}
}

/* The local listener's number is not ours any more. */
static void strike(struct waiter *w)
{
	set_exclusive(w, false);
	kinds[w->local] = KIND_UNKNOWN;
	w->local = -1;
	locals--;
	changed();
}

static void drop(struct waiter *w)
{
	int local = w->local;

	if (local < 0)
		return;
	/* Another process may hold the set and, by fork, the file. */
	if (!w->parked)
		real()->epoll_ctl(w->epfd, EPOLL_CTL_DEL, local, NULL);
	/* Before the number is free. */
	strike(w);
	close_ours(local);
}

/* There may be another one, as soon as the thread looks again. */
static void lose(struct waiter *w)
{
	w->lost = true;
	__atomic_store_n(&lost, true, __ATOMIC_RELAXED);
}

static bool other_locals(const struct listener *l)
{
	for (struct waiter *w = l->waiters; w; w = w->next)
		if (w->local >= 0)
			return true;
	return false;
}

static bool is_worker(const struct listener *l)
{
	if (l->inherited || gettid_() != self)
		return true;
	/* The thread that set the listener up may be all there is. */
	return other_locals(l) || affinity_cpu() >= 0;
}

static void spawn(struct listener *l, struct waiter *w)
{
	struct fastsocket_info info;
	int cpu, local;

	if (w->local >= 0 || w->fd < 0 || w->epfd >= FDS || !can_be_local(&w->ev) ||
	    !is_worker(l))
		return;
	if (control_info(&info)) {
		logf_at(LOG_INFO, "descriptor %d is served without a local listener: the module cannot be asked: %m",
			w->fd);
		return;
	}
	if (info.listen_spawn == FASTSOCKET_SPAWN_OFF)
		return;
	cpu = affinity_cpu();
	if (cpu < 0 && info.listen_spawn != FASTSOCKET_SPAWN_BIND)
		return;

	local = control_spawn(w->fd, &cpu);
	if (local < 0) {
		logf_at(LOG_INFO, "descriptor %d is served without a local listener: %m",
			w->fd);
		return;
	}
	local = fd_raise(local);
	if (local >= FDS || real()->epoll_ctl(w->epfd, EPOLL_CTL_ADD, local, &w->ev)) {
		close_ours(local);
		return;
	}
	if (affinity_cpu() < 0)
		affinity_bind(cpu);
	for (struct waiter *other = l->waiters; other; other = other->next)
		if (other->epfd == w->epfd && other->local >= 0)
			__atomic_store_n(&twice, true, __ATOMIC_RELAXED);
	w->local = local;
	w->lost = false;
	set_kind(local, KIND_LOCAL);
	locals++;
	changed();
	pthread_setspecific(ends, w);
	set_exclusive(w, true);
	logf_at(LOG_DEBUG, "descriptor %d has local listener %d on CPU %d",
		w->fd, local, cpu);
}

/* A descriptor of a listener is gone; its last one takes everything along. */
static void forget(int fd)
{
	struct listener *l = listeners[fd];
	struct waiter *w;

	listeners[fd] = NULL;
	kinds[fd] = KIND_UNKNOWN;
	changed();
	for (w = l->waiters; w; w = w->next)
		if (w->fd == fd)
			w->fd = -1;
	if (--l->fds)
		return;
	while ((w = l->waiters)) {
		l->waiters = w->next;
		drop(w);
		give(&spare_waiters, w);
	}
	give(&spare_listeners, l);
}

/*
 * nginx takes its listeners out of the set and puts them back every few
 * accepts, to be at the end of the wait queue. So out is not yet gone: the
 * local listener is closed only if the listener is still out when the thread
 * is about to wait; at once if it is not one that waits for the set.
 */
static __thread int parked;

static void park(struct waiter *w, bool waits)
{
	w->parked = true;
	w->exclusive = false;
	if (w->local < 0)
		return;
	real()->epoll_ctl(w->epfd, EPOLL_CTL_DEL, w->local, NULL);
	if (w->tid == gettid_() && waits)
		parked++;
	else
		drop(w);
}

static void unpark(struct listener *l, struct waiter *w)
{
	w->parked = false;
	if (w->local < 0) {
		spawn(l, w);
		return;
	}
	parked--;
	if (!can_be_local(&w->ev) ||
	    real()->epoll_ctl(w->epfd, EPOLL_CTL_ADD, w->local, &w->ev))
		drop(w);
}

/* What the set had of it has gone, or is another's. */
static void remove_waiter(struct listener *l, struct waiter *w)
{
	struct waiter **p = &l->waiters;

	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	w->exclusive = false;
	drop(w);
	give(&spare_waiters, w);
}

static struct waiter *find(struct listener *l, int epfd, int fd)
{
	for (struct waiter *w = l->waiters; w; w = w->next)
		if (w->epfd == epfd && w->fd == fd)
			return w;
	return NULL;
}

/* Whether @epfd is the waiter's set. Where kcmp() is forbidden, by what is in it. */
static bool same_set(const struct waiter *w, int epfd)
{
	struct epoll_event ev = w->ev;
	long order = syscall(SYS_kcmp, self, self, KCMP_FILE, epfd, w->epfd);

	if (order >= 0)
		return !order;
	ev.events &= ~EPOLLEXCLUSIVE;
	return w->local >= 0 &&
	       (!real()->epoll_ctl(epfd, EPOLL_CTL_MOD, w->local, &ev) || errno == EINVAL);
}

/* Of those that are in a set, which the program may know by another number, too. */
static struct waiter *find_set(struct listener *l, int epfd, int fd)
{
	for (struct waiter *w = l->waiters; w; w = w->next)
		if (w->fd == fd && !w->parked && (w->epfd == epfd || same_set(w, epfd)))
			return w;
	return NULL;
}

/* Calls that follow another process's or thread's call. */

void listener_listen(int fd)
{
	int saved = errno;
	struct listener *l;
	bool again;

	if (fd < 0 || fd >= FDS || listener_kind(fd) == KIND_LOCAL || !is_listener(fd))
		return;
	control_check();
	control_ports();
	lock_acquire();
	again = kinds[fd] == KIND_LISTENER;
	l = record(fd, false);
	for (struct waiter *w = l ? l->waiters : NULL; w; w = w->next)
		if (w->tid == gettid_() && !w->parked)
			spawn(l, w);
	lock_release();
	if (again)
		control_sync(fd);	/* the backlog may be new */
	errno = saved;
}

/* Once a second, a thread looks whether the module has come back. */
static bool look_again(void)
{
	static __thread time_t looked;
	time_t now;

	if (!__atomic_load_n(&lost, __ATOMIC_RELAXED))
		return false;
	now = seconds();
	if (now == looked)
		return false;
	looked = now;
	return true;
}

/* Of a thread that has ended: whoever waits for its set now takes its place. */
static void adopt(struct waiter *w, int epfd)
{
	if (!w->tid && w->lost && w->epfd == epfd)
		w->tid = gettid_();
}

static bool is_back(const struct waiter *w)
{
	struct fastsocket_info info;

	return w->lost && !control_info(&info);
}

/**
 * listener_local() - where the calling thread accepts from
 * @fd: the application's listener
 * @epfd: the epoll set that the thread has last waited for, or -1
 *
 * No lock unless something has changed since the thread's last call, or may have.
 *
 * Return: the local listener in that set; else one that the thread has put
 * into a set; else any of the process; -1 where there is none.
 */
int listener_local(int fd, int epfd)
{
	/*
	 * A handler may accept, too, at any moment: it leaves here what is of another
	 * generation or another number, or right.
	 */
	static __thread volatile struct {
		int fd, epfd, local;
		unsigned int generation;
	} last = { -1, -1, -1, 0 };
	unsigned int now = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
	int local = -1, best = 0;
	struct listener *l;

	if (last.fd == fd && last.epfd == epfd && last.generation == now) {
		local = last.local;
		if (last.fd == fd && last.epfd == epfd && last.generation == now &&
		    (local >= 0 || !look_again()))
			return local;
	}

	local = -1;
	if (!listener_ours())
		return local;
	lock_acquire();
	l = known(fd);
	for (struct waiter *w = l ? l->waiters : NULL; w; w = w->next) {
		int rank = w->epfd == epfd ? 3 : w->tid == gettid_() ? 2 : 1;

		adopt(w, epfd);
		/* The first thread, once others have shown to be workers; or any again. */
		if (w->local < 0 && !w->parked && w->tid == gettid_() &&
		    (other_locals(l) || is_back(w)))
			spawn(l, w);
		if (w->local >= 0 && rank > best) {
			best = rank;
			local = w->local;
		}
	}
	last.fd = fd;
	last.epfd = epfd;
	last.local = local;
	last.generation = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
	lock_release();
	return local;
}

/* The next local listener of @fd after @after in the set @epfd, or in any if that is -1; or -1. */
int listener_next_local(int fd, int epfd, int after)
{
	struct listener *l;
	int next = -1;

	if (!listener_ours())
		return next;
	lock_acquire();
	l = known(fd);
	for (struct waiter *w = l ? l->waiters : NULL; w; w = w->next)
		if (w->local > after && (next < 0 || w->local < next) &&
		    (epfd < 0 || w->epfd == epfd))
			next = w->local;
	lock_release();
	return next;
}

int listener_add(int epfd, int fd, const struct epoll_event *ev)
{
	struct epoll_event own = *ev;
	struct listener *l;
	struct waiter *w;
	bool exclusive;
	int ret, saved;

	lock_acquire();
	l = known(fd);
	w = l ? find(l, epfd, fd) : NULL;
	exclusive = w && w->parked && w->tid == gettid_() && w->local >= 0 &&
		    exclusive_event(ev, &own);
	ret = real()->epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &own);
	saved = errno;
	if (ret || !l)
		goto out;

	if (w && (!w->parked || w->tid != gettid_())) {
		/* The set has been closed unseen, or is filled by another thread. */
		remove_waiter(l, w);
		w = NULL;
	}
	if (!w) {
		w = take(&spare_waiters, sizeof(*w));
		if (!w)
			goto out;
		*w = (struct waiter){ .next = l->waiters, .epfd = epfd, .fd = fd,
				      .tid = gettid_(), .local = -1 };
		l->waiters = w;
		if (epfd < FDS)
			set_kind(epfd, KIND_EPOLL);
	}
	w->ev = *ev;
	w->exclusive = exclusive;
	unpark(l, w);
out:
	lock_release();
	errno = saved;
	return ret;
}

/* The calling thread is about to wait: what is out of its sets now is out. */
void listener_settle(void)
{
	int saved = errno;

	if (!parked || !listener_ours())
		return;
	lock_acquire();
	for (int i = 0; parked && i <= top; i++) {
		if (kinds[i] != KIND_LISTENER)
			continue;
		for (struct waiter *w = listeners[i]->waiters; w; w = w->next)
			if (w->parked && w->local >= 0 && w->tid == gettid_())
				drop(w);
	}
	parked = 0;
	lock_release();
	errno = saved;
}

/**
 * listener_vacate() - free ports that the application has freed unseen
 *
 * libuv closes a listener past libc, and may bind another one to its port before it
 * waits again: the local listener, which we still have, would be in the way.
 *
 * Return: whether local listeners have gone.
 */
bool listener_vacate(void)
{
	bool gone;
	int saved = errno, before;

	if (!listener_any_local() || !listener_ours())
		return false;
	lock_acquire();
	before = locals;
	for (int fd = 0; fd <= top; fd++)
		known(fd);
	gone = locals < before;
	lock_release();
	errno = saved;
	return gone;
}

int listener_mod(int epfd, int fd, const struct epoll_event *ev)
{
	struct epoll_event own = *ev;
	struct listener *l;
	struct waiter *w;
	int ret, saved;

	lock_acquire();
	l = known(fd);
	w = l ? find_set(l, epfd, fd) : NULL;
	/* The kernel does not modify what the application made exclusive. */
	if (!w || (w->ev.events | ev->events) & EPOLLEXCLUSIVE) {
		ret = real()->epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &own);
		saved = errno;
		goto out;
	}

	/* Nor what we have made so. */
	if (w->exclusive) {
		ret = real()->epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
		if (!ret) {
			w->exclusive = w->local >= 0 && exclusive_event(ev, &own);
			ret = real()->epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &own);
		}
	} else {
		ret = real()->epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &own);
	}
	saved = errno;
	if (ret)
		goto out;
	w->ev = *ev;
	if (!can_be_local(ev))
		drop(w);
	else if (w->local >= 0)
		real()->epoll_ctl(epfd, EPOLL_CTL_MOD, w->local, &w->ev);
	else if (w->tid == gettid_())
		spawn(l, w);
out:
	lock_release();
	errno = saved;
	return ret;
}

/* @waits: the calling thread has last waited for that set. */
int listener_del(int epfd, int fd, bool waits)
{
	struct listener *l;
	struct waiter *w;
	int ret, saved;

	lock_acquire();
	l = known(fd);
	w = l ? find_set(l, epfd, fd) : NULL;
	ret = real()->epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
	saved = errno;
	if (w && !ret)
		park(w, waits);
	lock_release();
	errno = saved;
	return ret;
}

/**
 * listener_closing() - descriptors are about to be closed
 * @first: the first of them
 * @last: the last of them
 *
 * The lock is held until they are, and listener_closed() has been told: another
 * thread may have such a number for something else as soon as it is free. A local
 * listener goes before its set, which may live on by another number, and before
 * the application takes its number. Those of a listener go after it, so that the
 * module sees it gone; what is left of it in the sets is as the application put it.
 */
void listener_closing(unsigned int first, unsigned int last)
{
	for (int i = 0; i <= top; i++) {
		if (kinds[i] != KIND_LISTENER)
			continue;
		for (struct waiter *w = listeners[i]->waiters; w; w = w->next) {
			if (within(w->local, first, last)) {
				lose(w);
				drop(w);
			} else if (within(w->epfd, first, last)) {
				drop(w);
			} else if (w->local >= 0 && within(w->fd, first, last)) {
				set_exclusive(w, false);
			}
		}
	}
}

/* The module went under it, or the application takes its number. */
void listener_drop_local(int local)
{
	int saved = errno;

	lock_acquire();
	listener_closing(local, local);
	lock_release();
	errno = saved;
}

/* poll() says that @local is not open. If we still have it, it has been closed unseen. */
void listener_gone(int local)
{
	int saved = errno;

	if (!listener_ours())
		return;
	lock_acquire();
	for (int i = 0; i <= top; i++) {
		if (kinds[i] != KIND_LISTENER)
			continue;
		for (struct waiter *w = listeners[i]->waiters; w; w = w->next)
			if (w->local == local && real()->fcntl(local, F_GETFD) < 0) {
				lose(w);
				strike(w);
			}
	}
	lock_release();
	errno = saved;
}

/* They have been. */
void listener_closed(unsigned int first, unsigned int last)
{
	for (unsigned int fd = first; fd <= last && fd <= (unsigned int)top; fd++) {
		if (kinds[fd] == KIND_LISTENER)
			forget(fd);
		if (kinds[fd] != KIND_EPOLL)
			continue;
		kinds[fd] = KIND_UNKNOWN;
		for (int i = 0; i <= top; i++) {
			struct waiter *w, *next;

			if (kinds[i] != KIND_LISTENER)
				continue;
			for (w = listeners[i]->waiters; w; w = next) {
				next = w->next;
				if (w->epfd == (int)fd)
					remove_waiter(listeners[i], w);
			}
		}
	}
}

/* This process serves @fd the slow way from now on. */
void listener_drop(int fd)
{
	int saved = errno;

	if (!listener_ours())
		return;
	lock_acquire();
	if (kinds[fd] == KIND_LISTENER)
		for (struct waiter *w = listeners[fd]->waiters; w; w = w->next)
			drop(w);
	lock_release();
	errno = saved;
}

void listener_duped(int from, int to)
{
	bool listens = listener_kind(from) == KIND_LISTENER;
	int saved = errno;

	if (to < 0 || to >= FDS || (!listens && kinds[to] != KIND_OTHER) ||
	    !listener_ours())
		return;
	lock_acquire();
	if (kinds[from] == KIND_LISTENER && kinds[to] <= KIND_OTHER) {
		listeners[to] = listeners[from];
		listeners[to]->fds++;
		set_kind(to, KIND_LISTENER);
		changed();
	} else if (kinds[to] == KIND_OTHER) {
		set_kind(to, KIND_UNKNOWN);
	}
	lock_release();
	errno = saved;
}

/*
 * In the child of a fork(): the local listeners are its parent's, and so is
 * their place in epoll sets that both hold; only the numbers go. How the
 * application's listeners are in these sets is still to be known, unless another
 * thread was changing it: then all is as when the program began.
 */
static void child(void)
{
	bool torn = lock_child();

	self = getpid();
	affinity_child();
	if (torn) {
		spare_waiters = NULL;
		spare_listeners = NULL;
	}
	for (int fd = 0; fd <= top; fd++) {
		struct listener *l = listeners[fd];

		if (kinds[fd] == KIND_LOCAL)
			close_ours(fd);
		if (kinds[fd] == KIND_LOCAL || (torn && kinds[fd] != KIND_OTHER)) {
			listeners[fd] = NULL;
			kinds[fd] = KIND_UNKNOWN;
		} else if (kinds[fd] == KIND_LISTENER) {
			l->inherited = true;
			for (struct waiter *w = l->waiters; w; w = w->next) {
				w->local = -1;
				w->lost = false;
				w->tid = 0;
			}
		}
	}
	locals = 0;
	changed();
	lock_release();
}

/* A thread ends: nobody will come for what its local listeners get. */
static void ended(void *unused)
{
	(void)unused;
	lock_acquire();
	for (int i = 0; i <= top; i++)
		if (kinds[i] == KIND_LISTENER)
			for (struct waiter *w = listeners[i]->waiters; w; w = w->next)
				if (w->tid == gettid_()) {
					if (w->local >= 0)
						lose(w);
					drop(w);
					w->tid = 0;
				}
	lock_release();
}

void listener_init(void)
{
	self = getpid();
	pthread_key_create(&ends, ended);
	pthread_atfork(lock_fork, lock_parent, child);
}
