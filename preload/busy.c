// SPDX-License-Identifier: GPL-2.0
/*
 * Busy polling, where FASTSOCKET_BUSY_POLL asks for it: who would sleep in an
 * epoll set first looks for packets in the device's queue itself, for so many
 * microseconds. A set has this switch of its own since Linux 6.9.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

#ifndef EPIOCSPARAMS
struct epoll_params {
	uint32_t busy_poll_usecs;
	uint16_t busy_poll_budget;
	uint8_t prefer_busy_poll;
	uint8_t __pad;
};

#define EPIOCSPARAMS	_IOW(0x8A, 0x01, struct epoll_params)
#endif

#define BUSY_MAX	1000000

static uint32_t usecs;
static atomic_flag warned = ATOMIC_FLAG_INIT;

void busy_init(void)
{
	const char *want = secure_getenv("FASTSOCKET_BUSY_POLL");
	unsigned long value;
	char *end;

	if (!want || !*want)
		return;
	value = strtoul(want, &end, 10);
	if (*end || !value || value > BUSY_MAX)
		logf_at(LOG_WARN, "FASTSOCKET_BUSY_POLL=%s is not 1 to %d microseconds: no busy polling",
			want, BUSY_MAX);
	else
		usecs = value;
}

/*
 * Whether all sets of the host poll: the switch that older kernels have. Not by libc,
 * whose calls are where a thread may be cancelled, which epoll_create() is not.
 */
static bool by_sysctl(void)
{
	int saved = errno, fd;
	char value = '0';

	fd = syscall(SYS_openat, AT_FDCWD, "/proc/sys/net/core/busy_poll",
		     O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		syscall(SYS_read, fd, &value, 1);
		syscall(SYS_close, fd);
	}
	errno = saved;
	return value != '0';
}

/* For a new epoll set. Leaves errno alone. */
void busy_epoll(int epfd)
{
	struct epoll_params params = { .busy_poll_usecs = usecs };
	int saved = errno;

	if (usecs && ioctl(epfd, EPIOCSPARAMS, &params)) {
		if (!by_sysctl() && !atomic_flag_test_and_set(&warned))
			logf_at(LOG_WARN, "no busy polling: %m; before Linux 6.9, set the sysctl net.core.busy_poll instead, for all programs");
	}
	errno = saved;
}
