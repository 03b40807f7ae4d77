// SPDX-License-Identifier: GPL-2.0
/*
 * What this process knows: its listeners, their registrations in epoll sets,
 * and the table of descriptors that leads to them.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

#define POOL_BYTES	16384

_Atomic(atomic_uintptr_t *) fs_slots[FS_CHUNKS];
struct fs_listener *fs_listeners;
atomic_uint fs_generation = 1;
atomic_int fs_nlocals;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
/* The process that all this is about. */
static pid_t owner;
static pthread_key_t thread_key;
static __thread pid_t thread_tid;

static void *listener_pool, *waiter_pool, *epoll_pool;

/* Not malloc(): that may be the application's, and may be what is calling us. */
static void *map(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void pool_put(void **pool, void *object)
{
	*(void **)object = *pool;
	*pool = object;
}

static void *pool_get(void **pool, size_t size)
{
	void *object;

	size = (size + 15) & ~(size_t)15;
	if (!*pool) {
		char *p = map(POOL_BYTES), *end = p + POOL_BYTES - size;

		for (; p && p <= end; p += size)
			pool_put(pool, p);
	}
	object = *pool;
	if (object) {
		*pool = *(void **)object;
		__builtin_memset(object, 0, size);
	}
	return object;
}

static uint64_t block_signals(void)
{
	uint64_t all = ~0ULL, old = 0;

	/* All of them: the C library keeps its own out of sigfillset(). */
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	return old;
}

static void restore_signals(uint64_t old)
{
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
}

/*
 * Signals are blocked, so that a handler which calls close() cannot meet the
 * lock held by what it has interrupted. Fails in a child that shares our
 * memory (vfork) or was made without fork(): what it does to its descriptors
 * is not for this process's records, and every call goes through as it is.
 */
bool fs_lock(struct fs_guard *g)
{
	g->err = errno;
	if (syscall(SYS_getpid) != owner)
		return false;
	g->mask = block_signals();
	pthread_mutex_lock(&mutex);
	return true;
}

/* errno is as it was before fs_lock(). */
void fs_unlock(struct fs_guard *g)
{
	pthread_mutex_unlock(&mutex);
	restore_signals(g->mask);
	errno = g->err;
}

pid_t fs_tid(void)
{
	if (!thread_tid)
		thread_tid = syscall(SYS_gettid);
	return thread_tid;
}

pid_t fs_owner(void)
{
	return owner;
}

bool fs_slot_set(int fd, void *object, enum fs_kind kind)
{
	atomic_uintptr_t *slot = fs_slot(fd), *chunk;

	if (!slot) {
		if ((unsigned int)fd >= FS_CHUNK * FS_CHUNKS)
			return false;
		chunk = map(FS_CHUNK * sizeof(*chunk));
		if (!chunk)
			return false;
		atomic_store_explicit(&fs_slots[fd / FS_CHUNK], chunk,
				      memory_order_release);
		slot = &chunk[fd % FS_CHUNK];
	}
	atomic_store_explicit(slot, (uintptr_t)object | kind, memory_order_release);
	return true;
}

/* Some descriptor of an object, other than one that is going. */
static int find_fd(uintptr_t value)
{
	int i, j;

	for (i = 0; i < FS_CHUNKS; i++) {
		atomic_uintptr_t *chunk = fs_slots[i];

		for (j = 0; chunk && j < FS_CHUNK; j++)
			if (chunk[j] == value)
				return i * FS_CHUNK + j;
	}
	return -1;
}

struct fs_waiter *fs_waiter_new(struct fs_listener *l)
{
	struct fs_waiter *w = pool_get(&waiter_pool, sizeof(*w));

	if (!w)
		return NULL;
	w->l = l;
	w->local = -1;
	w->next = l->waiters;
	l->waiters = w;
	return w;
}

static void waiter_unlink(struct fs_waiter *w)
{
	struct fs_waiter **p = &w->l->waiters;

	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
}

/* The local is no more the application's concern; it is still to be closed. */
static int local_forget(struct fs_waiter *w)
{
	int local = w->local;

	if (local < 0)
		return -1;
	w->local = -1;
	w->silent = 0;
	w->l->nlocals--;
	fs_nlocals--;
	fs_slot_set(local, NULL, FS_UNKNOWN);
	fs_generation++;
	return local;
}

/*
 * DEL first: a child that has not yet executed its program may have a copy of
 * the descriptor, and events of it would go on.
 */
static void local_close(int epfd, int local)
{
	if (local < 0)
		return;
	syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_DEL, local, NULL);
	syscall(SYS_close, local);
}

/* Without its local: what waits there moves to the application's listener. */
void fs_waiter_drop(struct fs_waiter *w)
{
	local_close(w->epfd, local_forget(w));
}

void fs_waiter_free(struct fs_waiter *w)
{
	fs_waiter_drop(w);
	waiter_unlink(w);
	pool_put(&waiter_pool, w);
}

void fs_listener_drop(struct fs_listener *l)
{
	struct fs_waiter *w;

	for (w = l->waiters; w; w = w->next)
		fs_waiter_drop(w);
}

static bool option_is(int fd, int option, int a, int b)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return !getsockopt(fd, SOL_SOCKET, option, &value, &len) &&
	       (value == a || value == b);
}

static bool is_tcp_listener(int fd)
{
	return option_is(fd, SO_ACCEPTCONN, 1, 1) &&
	       option_is(fd, SO_PROTOCOL, IPPROTO_TCP, IPPROTO_TCP) &&
	       option_is(fd, SO_DOMAIN, AF_INET, AF_INET6);
}

/**
 * fs_listener_get() - the listener that a descriptor refers to
 * @fd: a descriptor of the application
 * @pid: who made it one, if it is new: 0 for another process
 *
 * Return: the listener, NULL if it is none. Under the lock.
 */
struct fs_listener *fs_listener_get(int fd, pid_t pid)
{
	struct fs_waiter *gone = NULL;
	struct fs_listener *l = fs_kind(fd) == FS_LISTENER ? fs_object(fd) : NULL;
	struct stat st;

	if (fs_kind(fd) == FS_LOCAL || fstat(fd, &st))
		return NULL;
	if (l && l->dev == st.st_dev && l->ino == st.st_ino)
		return l;
	/* Closed and used again without the C library. */
	if (fs_known(fd)) {
		fs_detach(fd, &gone);
		while (gone) {
			struct fs_waiter *w = gone;

			gone = w->next;
			local_close(w->epfd, w->local);
			pool_put(&waiter_pool, w);
		}
	}
	if (!is_tcp_listener(fd)) {
		fs_slot_set(fd, NULL, FS_PLAIN);
		return NULL;
	}

	for (l = fs_listeners; l; l = l->next)
		if (l->dev == st.st_dev && l->ino == st.st_ino)
			break;
	if (!l) {
		l = pool_get(&listener_pool, sizeof(*l));
		if (!l)
			return NULL;
		l->dev = st.st_dev;
		l->ino = st.st_ino;
		l->pid = pid;
		l->next = fs_listeners;
		fs_listeners = l;
	}
	if (!fs_slot_set(fd, l, FS_LISTENER)) {
		if (!l->nfds) {
			fs_listeners = l->next;
			pool_put(&listener_pool, l);
		}
		return NULL;
	}
	l->nfds++;
	return l;
}

/* To be closed once the application's own descriptor is. */
static void bury_later(struct fs_waiter *w, struct fs_waiter **gone)
{
	int local = local_forget(w);

	waiter_unlink(w);
	w->local = local;
	w->next = *gone;
	*gone = w;
}

static void detach_listener(struct fs_listener *l, struct fs_waiter **gone)
{
	struct fs_listener **p = &fs_listeners;

	/* With another descriptor left, its registrations stay in force. */
	if (--l->nfds)
		return;
	while (l->waiters)
		bury_later(l->waiters, gone);
	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	pool_put(&listener_pool, l);
}

static void detach_epoll(int fd, struct fs_epoll *ep, struct fs_waiter **gone)
{
	struct fs_listener *l;
	struct fs_waiter *w, *next;

	if (--ep->nfds) {
		if (ep->fd == fd)
			ep->fd = find_fd((uintptr_t)ep | FS_EPOLL);
		for (l = fs_listeners; l; l = l->next)
			for (w = l->waiters; w; w = w->next)
				if (w->ep == ep)
					w->epfd = ep->fd;
		return;
	}
	for (l = fs_listeners; l; l = l->next)
		for (w = l->waiters; w; w = next) {
			next = w->next;
			if (w->ep == ep)
				bury_later(w, gone);
		}
	pool_put(&epoll_pool, ep);
}

/**
 * fs_detach() - a descriptor no longer refers to what it did
 * @fd: the descriptor, about to be closed or closed already
 * @gone: for fs_bury(), after it has been closed
 *
 * Under the lock.
 */
void fs_detach(int fd, struct fs_waiter **gone)
{
	enum fs_kind kind = fs_kind(fd);
	void *object = fs_object(fd);

	if (kind == FS_UNKNOWN)
		return;
	if (kind == FS_LOCAL) {
		local_forget(object);
		return;
	}
	fs_slot_set(fd, NULL, FS_UNKNOWN);
	if (kind == FS_LISTENER)
		detach_listener(object, gone);
	else if (kind == FS_EPOLL)
		detach_epoll(fd, object, gone);
}

/*
 * After the application's descriptor: the module shall see that the listener
 * is gone, or else that others still have it, before it looks where to move
 * what waits. Not under the lock.
 */
void fs_bury(struct fs_waiter *gone)
{
	struct fs_waiter *w, *next;
	struct fs_guard g;
	int err = errno;

	if (!gone)
		return;
	for (w = gone; w; w = w->next)
		local_close(w->epfd, w->local);
	if (fs_lock(&g)) {
		for (w = gone; w; w = next) {
			next = w->next;
			pool_put(&waiter_pool, w);
		}
		fs_unlock(&g);
	}
	errno = err;
}

/* The kernel has just given us this number, for what is no listener. */
void fs_fresh(int fd)
{
	atomic_uintptr_t *slot = fs_slot(fd);
	struct fs_waiter *gone = NULL;
	struct fs_guard g;

	if (!slot)
		return;
	if (!fs_known(fd)) {
		atomic_store_explicit(slot, FS_PLAIN, memory_order_relaxed);
		return;
	}
	/* So what we have it for was closed without the C library. */
	if (!fs_lock(&g))
		return;
	fs_detach(fd, &gone);
	fs_slot_set(fd, NULL, FS_PLAIN);
	fs_unlock(&g);
	fs_bury(gone);
}

/* @to is a duplicate of @from now, whatever it was. */
void fs_duplicated(int from, int to)
{
	struct fs_waiter *gone = NULL;
	struct fs_guard g;
	enum fs_kind kind;
	void *object;

	if (from == to || (!fs_known(from) && fs_value(from) == fs_value(to)))
		return;
	if (!fs_lock(&g))
		return;
	kind = fs_kind(from);
	object = fs_object(from);
	/* First, or the last descriptor of an object might seem to go. */
	if (kind == FS_LISTENER)
		((struct fs_listener *)object)->nfds++;
	else if (kind == FS_EPOLL)
		((struct fs_epoll *)object)->nfds++;
	fs_detach(to, &gone);
	if (kind == FS_LOCAL)
		kind = FS_UNKNOWN;
	if (kind != FS_UNKNOWN && !fs_slot_set(to, object, kind)) {
		if (kind == FS_LISTENER)
			((struct fs_listener *)object)->nfds--;
		else if (kind == FS_EPOLL)
			((struct fs_epoll *)object)->nfds--;
	}
	fs_unlock(&g);
	fs_bury(gone);
}

/*
 * An epoll set of this process alone. Of others, inherited or received, it is
 * not known who else would be told of events on our locals.
 */
void fs_epoll_made(int fd)
{
	struct fs_waiter *gone = NULL;
	struct fs_epoll *ep;
	struct fs_guard g;

	if (!fs_lock(&g))
		return;
	fs_detach(fd, &gone);
	ep = pool_get(&epoll_pool, sizeof(*ep));
	if (ep) {
		ep->nfds = 1;
		ep->fd = fd;
		if (!fs_slot_set(fd, ep, FS_EPOLL))
			pool_put(&epoll_pool, ep);
	}
	fs_unlock(&g);
	fs_bury(gone);
}

/*
 * A thread that has ended takes no events; its local must not attract any.
 * False if the end of this thread would go unnoticed.
 */
bool fs_worker_here(void)
{
	return !pthread_setspecific(thread_key, &thread_tid);
}

static void thread_ends(void *arg)
{
	struct fs_listener *l;
	struct fs_waiter *w;
	struct fs_guard g;

	(void)arg;
	if (!fs_lock(&g))
		return;
	for (l = fs_listeners; l; l = l->next)
		for (w = l->waiters; w; w = w->next)
			if (w->tid == fs_tid()) {
				fs_waiter_drop(w);
				w->tid = 0;
			}
	fs_unlock(&g);
}

/* Under the lock while forking, so that the child's copy is consistent. */
static struct fs_guard fork_guard;
static bool fork_locked;

static void fork_prepare(void)
{
	struct fs_guard g;
	bool locked = fs_lock(&g);

	if (locked)
		fork_guard = g;
	fork_locked = locked;
}

static void fork_parent(void)
{
	struct fs_guard g = fork_guard;

	if (fork_locked)
		fs_unlock(&g);
}

/*
 * The locals are the parent's. No DEL: the epoll sets are still the parent's,
 * too, and its registrations stay until it closes.
 */
static void fork_child(void)
{
	struct fs_guard g = fork_guard;
	struct fs_listener *l;
	struct fs_waiter *w;
	int i, j;

	owner = syscall(SYS_getpid);
	thread_tid = 0;
	for (l = fs_listeners; l; l = l->next)
		for (w = l->waiters; w; w = w->next) {
			int local = local_forget(w);

			if (local >= 0)
				syscall(SYS_close, local);
			w->tid = 0;
			w->want = false;
		}
	for (i = 0; i < FS_CHUNKS; i++) {
		atomic_uintptr_t *chunk = fs_slots[i];

		for (j = 0; chunk && j < FS_CHUNK; j++)
			if ((chunk[j] & FS_KIND) == FS_EPOLL)
				((struct fs_epoll *)(chunk[j] & ~(uintptr_t)FS_KIND))->shared = true;
	}
	fs_affinity_child();
	if (fork_locked)
		fs_unlock(&g);
}

void fs_listener_init(void)
{
	owner = syscall(SYS_getpid);
	/* The first thread's is never run at exit(), and need not be. */
	if (pthread_key_create(&thread_key, thread_ends) ||
	    pthread_atfork(fork_prepare, fork_parent, fork_child))
		fs_log(FS_ERROR, "cannot follow threads and fork()");
}
