// SPDX-License-Identifier: GPL-2.0
/*
 * connect() with a port to which the replies come to the caller's CPU. The
 * module chooses it and binds the socket to it; the connect() that follows is
 * the kernel's own, with all that it checks and all that it answers.
 *
 * As connect() may be called in a signal handler, nothing here allocates, or locks
 * without signals blocked.
 */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fsocket.h"

/* Ports tried for one connect() when others take them first. */
#define TRIES	4

/*
 * Sockets whose port bind(addr, 0) has chosen and nobody has seen: inode and
 * generation, by inode, so that duplicates share a mark and a number that comes
 * back as another socket has none. A mark that another takes the place of is
 * lost: that socket keeps its port.
 */
#define MARKS	4096

static uint64_t unseen[MARKS];
static uint32_t generation = 1;	/* raised to forget all at once */
static bool any;		/* since then */

static uint64_t *find(int fd, uint64_t *mark)
{
	struct stat st;

	if (fstat(fd, &st))
		return NULL;
	*mark = (uint64_t)__atomic_load_n(&generation, __ATOMIC_RELAXED) << 32 |
		(uint32_t)st.st_ino;
	return &unseen[st.st_ino % MARKS];
}

static bool is_unseen(int fd)
{
	uint64_t mark, *at;

	if (!__atomic_load_n(&any, __ATOMIC_RELAXED))
		return false;
	at = find(fd, &mark);
	return at && __atomic_load_n(at, __ATOMIC_RELAXED) == mark;
}

/* @fd has been bound to @addr. */
void port_bound(int fd, const struct sockaddr *addr, socklen_t len)
{
	int saved = errno;
	uint64_t mark, *at;
	in_port_t port;

	if (addr->sa_family == AF_INET && len >= sizeof(struct sockaddr_in))
		port = ((const struct sockaddr_in *)addr)->sin_port;
	else if (addr->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in))
		port = ((const struct sockaddr_in6 *)addr)->sin6_port;
	else
		return;
	if (port) {
		port_seen(fd);
		return;
	}
	at = find(fd, &mark);
	if (at) {
		__atomic_store_n(at, mark, __ATOMIC_RELAXED);
		__atomic_store_n(&any, true, __ATOMIC_RELAXED);
	}
	errno = saved;
}

/* Somebody may know the port of @fd, and connections are to come from it. */
void port_seen(int fd)
{
	int saved = errno;
	uint64_t mark, *at;

	if (!__atomic_load_n(&any, __ATOMIC_RELAXED))
		return;
	at = find(fd, &mark);
	if (at)
		__atomic_compare_exchange_n(at, &mark, 0, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED);
	errno = saved;
}

/* The same of every socket: another process may have got it. */
void port_all_seen(void)
{
	if (!__atomic_load_n(&any, __ATOMIC_RELAXED))
		return;
	__atomic_store_n(&any, false, __ATOMIC_RELAXED);
	__atomic_add_fetch(&generation, 1, __ATOMIC_RELAXED);
}

/* Whether a connect() that has given this errno keeps its port. */
static bool under_way(int err)
{
	return err == EINPROGRESS || err == EINTR || err == EALREADY ||
	       err == EISCONN;
}

int port_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	int before = errno;

	/* The module looks at the rest: it can read @addr without a crash. */
	if (len < sizeof(struct sockaddr_in) || len > sizeof(struct sockaddr_storage))
		return real()->connect(fd, addr, len);

	for (int i = 0; i < TRIES && control_ports(); i++) {
		bool replace = is_unseen(fd);
		int ret, err;

		if (control_port(fd, replace ? FASTSOCKET_PORT_REPLACE : 0, addr, len))
			break;
		errno = before;
		ret = real()->connect(fd, addr, len);
		err = errno;
		if (!ret || under_way(err)) {
			port_seen(fd);	/* by the peer */
			return ret;
		}
		/*
		 * A socket that bind() has given a port keeps one, as without
		 * us: only a connection that was made and lost frees it.
		 */
		if (!replace || err == EADDRNOTAVAIL)
			control_port(fd, FASTSOCKET_PORT_RELEASE, NULL, 0);
		errno = err;
		if (err != EADDRNOTAVAIL)
			return ret;
	}
	errno = before;
	return real()->connect(fd, addr, len);
}

void port_init(void)
{
	pthread_atfork(NULL, port_all_seen, port_all_seen);
}
