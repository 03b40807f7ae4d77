// SPDX-License-Identifier: GPL-2.0
/*
 * One lock for all that the library keeps and opens. Signals are blocked while it is
 * held, as close() may be called in a handler. It nests.
 *
 * fork() waits for it: no child has a descriptor of a call that another thread was making.
 * But then fork() waits for malloc()'s and stdio's locks, and a handler that waits for ours
 * may have interrupted who holds those. So nobody waits for fork() for long, and who has
 * waited in vain leaves the child with books that it cannot rely on.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

#define PATIENCE	100	/* ms */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static bool forking;
static bool torn;		/* another thread has not waited for that */
static __thread sigset_t before;
static __thread unsigned int depth;

static void acquire(bool waits)
{
	static const struct timespec ms = { .tv_nsec = 1000000 };
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	pthread_mutex_lock(&mutex);
	for (int i = 0; forking; i++) {
		if (i >= PATIENCE && !waits) {
			torn = true;
			break;
		}
		pthread_mutex_unlock(&mutex);
		/* libc's nanosleep() is where a thread may be cancelled. */
		syscall(SYS_nanosleep, &ms, NULL);
		pthread_mutex_lock(&mutex);
	}
	depth = 1;
}

void lock_acquire(void)
{
	if (depth)
		depth++;
	else
		acquire(false);
}

void lock_release(void)
{
	sigset_t mask = before;

	if (--depth)
		return;
	pthread_mutex_unlock(&mutex);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

/* Before fork(). Where the calling thread takes the lock until that is done, it nests. */
void lock_fork(void)
{
	acquire(true);
	forking = true;
	torn = false;
	pthread_mutex_unlock(&mutex);
}

void lock_parent(void)
{
	pthread_mutex_lock(&mutex);
	forking = false;
	lock_release();
}

/**
 * lock_child() - the same in the child, which has the lock then
 *
 * Return: whether another thread may have been in the middle of a change.
 */
bool lock_child(void)
{
	mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	pthread_mutex_lock(&mutex);
	forking = false;
	return torn;
}
