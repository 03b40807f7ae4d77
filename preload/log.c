// SPDX-License-Identifier: GPL-2.0
/*
 * Messages on stderr, by FASTSOCKET_LOG. One write() each, so that lines of
 * several processes do not mix.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fsocket.h"

static enum level limit = LOG_WARN;

/* The file that is standard error, if any: descriptor 2 may become any other. */
static bool known;
static dev_t dev;
static ino_t ino;

/* As the program has been started, or has just put it there. */
void log_stderr(void)
{
	struct stat st;

	known = !fstat(STDERR_FILENO, &st);
	dev = st.st_dev;
	ino = st.st_ino;
}

static bool is_stderr(void)
{
	struct stat st;

	return known && !fstat(STDERR_FILENO, &st) && st.st_dev == dev && st.st_ino == ino;
}

/* Nobody may be left to tell, which is not to end the program. */
static void print(const char *line, size_t len)
{
	static const struct timespec now;
	sigset_t broken, before, pending;

	sigemptyset(&broken);
	sigaddset(&broken, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &broken, &before);
	sigpending(&pending);
	/* libc's write() is where a thread may be cancelled. */
	if (syscall(SYS_write, STDERR_FILENO, line, len) < 0 && errno == EPIPE &&
	    !sigismember(&pending, SIGPIPE))
		syscall(SYS_rt_sigtimedwait, &broken, NULL, &now, 8);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void log_init(void)
{
	static const char * const names[] = { "error", "warn", "info", "debug" };
	const char *want = secure_getenv("FASTSOCKET_LOG");

	log_stderr();
	for (unsigned int i = 0; want && i < 4; i++)
		if (!strcmp(want, names[i]))
			limit = i;
}

void logf_at(enum level level, const char *fmt, ...)
{
	int saved = errno;
	char line[512];
	va_list args;
	int n;

	if (level > limit || !is_stderr())
		return;
	n = snprintf(line, sizeof(line), "fastsocket: ");
	va_start(args, fmt);
	n += vsnprintf(line + n, sizeof(line) - n - 1, fmt, args);
	va_end(args);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	print(line, n);
	errno = saved;
}
