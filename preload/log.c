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

/*
 * Nobody may be left to tell, or the file may be as long as it may get, which is not to
 * end the program; nor is it stopped for what it has not written to its terminal itself.
 */
static void print(const char *line, size_t len)
{
	static const struct timespec now;
	sigset_t blocked, before, pending, raised;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGPIPE);
	sigaddset(&blocked, SIGXFSZ);
	sigaddset(&blocked, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &blocked, &before);
	sigpending(&pending);
	sigemptyset(&raised);
	/* libc's write() is where a thread may be cancelled. */
	if (syscall(SYS_write, STDERR_FILENO, line, len) < 0) {
		if (errno == EPIPE && !sigismember(&pending, SIGPIPE))
			sigaddset(&raised, SIGPIPE);
		if (errno == EFBIG && !sigismember(&pending, SIGXFSZ))
			sigaddset(&raised, SIGXFSZ);
		syscall(SYS_rt_sigtimedwait, &raised, NULL, &now, 8);
	}
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
	errno = saved;	/* for %m */
	n += vsnprintf(line + n, sizeof(line) - n - 1, fmt, args);
	va_end(args);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	print(line, n);
	errno = saved;
}
