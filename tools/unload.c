// SPDX-License-Identifier: GPL-2.0
/*
 * fastsocket unload: take the module out of the kernel, or say who is in the
 * way.
 */
#include <argp.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fastsocket.h"

#define TRIES		50
#define PAUSE_MS	100

struct users {
	pid_t last;
	char *list;
};

static void note_user(pid_t pid, const char *link, void *arg)
{
	struct users *users = arg;
	char name[64], *list;

	if (strcmp(link, "/dev/fastsocket") || pid == users->last)
		return;
	users->last = pid;
	proc_name(pid, name, sizeof(name));
	list = xasprintf("%s%s%s (%d)", users->list ? users->list : "",
			 users->list ? ", " : "", name, (int)pid);
	free(users->list);
	users->list = list;
}

static void __attribute__((noreturn)) fail_busy(void)
{
	struct users users = { 0 };
	size_t unreadable = proc_each_fd(note_user, &users);

	if (users.list)
		errx(EXIT_FAILURE, "the module is in use: /dev/fastsocket is open in %s; stop them or wait, then repeat",
		     users.list);
	if (unreadable)
		errx(EXIT_FAILURE, "the module is in use, by a process that cannot be seen from here");
	errx(EXIT_FAILURE, "the module is in use by the kernel (see its count in lsmod); repeat in a moment");
}

int cmd_unload(int argc, char **argv)
{
	static const struct argp argp = {
		.doc = "Remove the module from the kernel. Running programs go on, over the kernel's own path; no connection is lost.",
	};
	const struct timespec pause = { .tv_nsec = PAUSE_MS * 1000000 };
	int i;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);

	/* A call in progress holds the module for a moment. */
	for (i = 0; i < TRIES; i++) {
		if (!syscall(SYS_delete_module, "fastsocket", O_NONBLOCK))
			return 0;
		if (errno != EAGAIN && errno != EBUSY)
			break;
		nanosleep(&pause, NULL);
	}
	switch (errno) {
	case EAGAIN:
	case EBUSY:
		fail_busy();
	case ENOENT:
		errx(EXIT_FAILURE, "the module is not loaded in this kernel: there is nothing to unload");
	case EPERM:
		errx(EXIT_FAILURE, "not permitted to unload the module: run as root");
	case ENOSYS:
		errx(EXIT_FAILURE, "this kernel cannot unload modules");
	default:
		err(EXIT_FAILURE, "cannot unload the module");
	}
}
