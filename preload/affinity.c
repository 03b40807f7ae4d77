// SPDX-License-Identifier: GPL-2.0
/*
 * A worker belongs to one CPU: its own choice, or (listen_spawn=2) ours. What
 * we chose is not passed on to its children and threads, nor to programs that it
 * starts.
 */
#include <sched.h>
#include <stdlib.h>

#include "fsocket.h"

static __thread struct {
	bool bound;
	int cpu;
	cpu_set_t before;
} mine;

/* The one CPU the calling thread is bound to, or -1. */
int affinity_cpu(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) || CPU_COUNT(&set) != 1)
		return -1;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			return cpu;
	return -1;
}

static bool bind_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return !sched_setaffinity(0, sizeof(set), &set);
}

void affinity_bind(int cpu)
{
	if (sched_getaffinity(0, sizeof(mine.before), &mine.before) || !bind_to(cpu))
		return;
	mine.bound = true;
	mine.cpu = cpu;
}

/* As if we had not bound the thread, until affinity_return() if this returns true. */
bool affinity_lift(void)
{
	return mine.bound && affinity_cpu() == mine.cpu &&
	       !sched_setaffinity(0, sizeof(mine.before), &mine.before);
}

void affinity_return(void)
{
	bind_to(mine.cpu);
}

bool affinity_bound(void)
{
	return mine.bound;
}

/* In a forked child. */
void affinity_child(void)
{
	affinity_lift();
	mine.bound = false;
}

struct start {
	void *(*func)(void *);
	void *arg;
	int cpu;
	cpu_set_t before;
};

/* For pthread_create() by a thread we bound: the argument of affinity_start(). */
void *affinity_inherit(void *(*func)(void *), void *arg)
{
	struct start *s = malloc(sizeof(*s));

	if (s)
		*s = (struct start){ func, arg, mine.cpu, mine.before };
	return s;
}

void *affinity_start(void *ctx)
{
	struct start s = *(struct start *)ctx;

	free(ctx);
	/* Unless the thread's attributes have chosen otherwise. */
	if (affinity_cpu() == s.cpu)
		sched_setaffinity(0, sizeof(s.before), &s.before);
	return s.func(s.arg);
}
