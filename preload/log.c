// SPDX-License-Identifier: GPL-2.0
/*
 * Messages on stderr, by FASTSOCKET_LOG. One write() each, so that lines of
 * several processes do not mix.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsocket.h"

static enum level limit = LOG_WARN;

void log_init(void)
{
	static const char * const names[] = { "error", "warn", "info", "debug" };
	const char *want = secure_getenv("FASTSOCKET_LOG");

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

	if (level > limit)
		return;
	n = snprintf(line, sizeof(line), "fastsocket: ");
	va_start(args, fmt);
	n += vsnprintf(line + n, sizeof(line) - n - 1, fmt, args);
	va_end(args);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0) {
		/* Nobody left to tell. */
	}
	errno = saved;
}
