// SPDX-License-Identifier: GPL-2.0
/*
 * One lock for all that the library keeps and opens. Signals are blocked while it is
 * held, as close() may be called in a handler, and fork() takes it: no child has a
 * descriptor of a call that another thread was making. It nests.
 */
#include <pthread.h>
#include <signal.h>

#include "fsocket.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static sigset_t signals_before;
static __thread unsigned int depth;

void lock_acquire(void)
{
	sigset_t all, before;

	if (depth) {
		depth++;
		return;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	pthread_mutex_lock(&mutex);
	signals_before = before;
	depth = 1;
}

void lock_release(void)
{
	sigset_t before = signals_before;

	if (--depth)
		return;
	pthread_mutex_unlock(&mutex);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
