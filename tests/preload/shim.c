// SPDX-License-Identifier: GPL-2.0
/*
 * Stands between the library and the kernel: counts what connect() asks of
 * the module, and gives other answers, or gives others time, where a test wants it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
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
int shim_no_kcmp;		/* as where seccomp forbids it */
int shim_pause_open;		/* a second when one of the module's files is open */
int shim_pause_close = -1;	/* a second after close() of this descriptor */
int shim_pause_dup = -1;	/* a second after dup2() onto this one */
int shim_pause_ask;		/* a second before FASTSOCKET_IOC_PORT */
int shim_paused;		/* threads that do so now */

static void pause_if(bool asked)
{
	if (!asked)
		return;
	__atomic_add_fetch(&shim_paused, 1, __ATOMIC_RELAXED);
	sleep(1);
	__atomic_sub_fetch(&shim_paused, 1, __ATOMIC_RELAXED);
}

int close(int fd)
{
	static int (*next)(int);
	int ret;

	if (!next)
		next = dlsym(RTLD_NEXT, "close");
	ret = next(fd);
	pause_if(fd == shim_pause_close);
	return ret;
}

int dup2(int from, int to)
{
	static int (*next)(int, int);
	int ret;

	if (!next)
		next = dlsym(RTLD_NEXT, "dup2");
	ret = next(from, to);
	pause_if(to == shim_pause_dup);
	return ret;
}

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
	pause_if(cmd == FASTSOCKET_IOC_PORT && shim_pause_ask);
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
	long a[6], ret;
	bool opens;

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (!next)
		next = dlsym(RTLD_NEXT, "syscall");
	opens = number == SYS_openat && (!strcmp((const char *)a[1], FASTSOCKET_DEVICE) ||
					 !strcmp((const char *)a[1], FASTSOCKET_PROC));
	if (opens)
		shim_opens++;
	if (opens && shim_no_proc && !strcmp((const char *)a[1], FASTSOCKET_PROC)) {
		errno = ENOENT;
		return -1;
	}
	if (number == SYS_kcmp && shim_no_kcmp) {
		errno = EPERM;
		return -1;
	}
	ret = next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	pause_if((opens && ret >= 0 && shim_pause_open) ||
		 (number == SYS_close && a[0] == shim_pause_close));
	return ret;
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
