// SPDX-License-Identifier: GPL-2.0
/*
 * Stands between the library and the kernel: counts what connect() asks of
 * the module, and gives other answers where a test wants them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "fastsocket.h"

int shim_opens;			/* of the module's files, those that fail included */
int shim_no_proc;		/* as before there was FASTSOCKET_PROC */
int shim_asked;			/* FASTSOCKET_IOC_PORT */
unsigned int shim_flags[64];	/* of them */
int shim_errno[64];
int shim_version;		/* of the module, unless 0 */
int shim_answer = -1;		/* errno of IOC_PORT; -1: the module's own answer */
int shim_connects;		/* calls of the kernel's connect() */
int shim_fail;			/* how many of the next of them fail ... */
int shim_fail_errno;		/* ... with this */

int ioctl(int fd, unsigned long cmd, ...)
{
	static int (*next)(int, unsigned long, ...);
	va_list args;
	void *arg;
	int ret;

	va_start(args, cmd);
	arg = va_arg(args, void *);
	va_end(args);
	if (!next)
		next = dlsym(RTLD_NEXT, "ioctl");
	if (cmd != FASTSOCKET_IOC_PORT || shim_answer < 0) {
		ret = next(fd, cmd, arg);
	} else {
		errno = shim_answer;
		ret = shim_answer ? -1 : 0;
	}
	if (cmd == FASTSOCKET_IOC_INFO && !ret && shim_version)
		((struct fastsocket_info *)arg)->version = shim_version;
	if (cmd == FASTSOCKET_IOC_PORT && shim_asked < 64) {
		shim_flags[shim_asked] = ((struct fastsocket_port *)arg)->flags;
		shim_errno[shim_asked++] = ret ? errno : 0;
	}
	return ret;
}

long syscall(long number, ...)
{
	static long (*next)(long, ...);
	va_list args;
	long a[6];

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (!next)
		next = dlsym(RTLD_NEXT, "syscall");
	if (number == SYS_openat && (!strcmp((const char *)a[1], FASTSOCKET_DEVICE) ||
				     !strcmp((const char *)a[1], FASTSOCKET_PROC)))
		shim_opens++;
	if (number == SYS_openat && shim_no_proc && !strcmp((const char *)a[1], FASTSOCKET_PROC)) {
		errno = ENOENT;
		return -1;
	}
	return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	static int (*next)(int, const struct sockaddr *, socklen_t);

	if (!next)
		next = dlsym(RTLD_NEXT, "connect");
	shim_connects++;
	if (shim_fail) {
		shim_fail--;
		errno = shim_fail_errno;
		return -1;
	}
	return next(fd, addr, len);
}

static const struct sockaddr *storm_addr;
static socklen_t storm_len;
static volatile int storm_signals, storm_wrong;

/* As a program does it: from here, connect() and bind() are the library's. */
static void storm_connect(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	errno = 77;
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) || errno != 77)
		storm_wrong++;
	if (!connect(fd, storm_addr, storm_len) || (errno != ECONNREFUSED && errno != EINTR))
		storm_wrong++;
	close(fd);
}

static void storm_handler(int sig)
{
	int saved = errno;

	(void)sig;
	storm_connect();
	storm_signals++;
	errno = saved;
}

/*
 * Connect to a closed port, and interrupt that @times to do the same; returns
 * how often bind() or connect() gave another errno than they should.
 */
int shim_storm(const struct sockaddr *addr, socklen_t len, int times)
{
	struct sigaction act = { .sa_handler = storm_handler, .sa_flags = SA_RESTART };
	struct sigaction before;

	storm_addr = addr;
	storm_len = len;
	sigaction(SIGALRM, &act, &before);
	for (int i = 0; i < times; i++) {
		/* Armed anew each time: a slow machine is in the handler for longer. */
		struct itimerval soon = { .it_value = { 0, 100 + 37 * i % 900 } };

		setitimer(ITIMER_REAL, &soon, NULL);
		while (storm_signals <= i)
			storm_connect();
	}
	sigaction(SIGALRM, &before, NULL);
	return storm_wrong;
}
