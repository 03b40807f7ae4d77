// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into the command: a device that refuses what it has said it can
 * do, interrupts of devices that are not here, and a module that writes down
 * what it is told.
 *
 * SHIM_RULES=N		the (N+1)th ntuple rule is refused
 * SHIM_INTERRUPTS=FILE	is read for /proc/interrupts
 * SHIM_MODULE=FILE	a line per FASTSOCKET_IOC_STEER; /dev/fastsocket exists
 * SHIM_NO_RSS=1	that module does not take STEER_RSS
 * SHIM_OLD=1		that module does not know FASTSOCKET_IOC_STEER
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../../kmod/uapi/fastsocket.h"

static int module_fd = -1;

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static bool is_module(const char *path)
{
	return getenv("SHIM_MODULE") && !strcmp(path, FASTSOCKET_DEVICE);
}

int open(const char *path, int flags, ...)
{
	int (*real)(const char *path, int flags, ...) = next("open");
	mode_t mode = 0;
	va_list ap;

	if (flags & O_CREAT) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	if (!is_module(path))
		return real(path, flags, mode);
	module_fd = real("/dev/null", O_RDWR | O_CLOEXEC);
	return module_fd;
}

int access(const char *path, int mode)
{
	int (*real)(const char *path, int mode) = next("access");

	return is_module(path) ? 0 : real(path, mode);
}

FILE *fopen(const char *path, const char *mode)
{
	FILE *(*real)(const char *path, const char *mode) = next("fopen");
	const char *fake = getenv("SHIM_INTERRUPTS");

	return real(fake && !strcmp(path, "/proc/interrupts") ? fake : path, mode);
}

static int steer(const struct fastsocket_steer *s)
{
	static const char * const modes[] = { "off", "port", "rss" };
	const __s32 *cpus = (const __s32 *)(uintptr_t)s->cpus;
	FILE *f;
	__u32 i;

	errno = getenv("SHIM_OLD") ? ENOTTY : s->flags || s->mode > FASTSOCKET_STEER_RSS ? EINVAL :
		s->mode == FASTSOCKET_STEER_RSS && getenv("SHIM_NO_RSS") ? EOPNOTSUPP : 0;
	if (errno)
		return -1;
	f = fopen(getenv("SHIM_MODULE"), "ae");
	if (!f)
		return -1;
	fprintf(f, "%u %s", s->ifindex, modes[s->mode]);
	for (i = 0; i < s->count; i++)
		fprintf(f, "%c%d", i ? ',' : ' ', cpus[i]);
	fputc('\n', f);
	fclose(f);
	return 0;
}

int ioctl(int fd, unsigned long cmd, ...)
{
	int (*real)(int fd, unsigned long cmd, ...) = next("ioctl");
	const char *rules = getenv("SHIM_RULES");
	static int inserted;
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (fd == module_fd && cmd == FASTSOCKET_IOC_STEER)
		return steer(arg);
	if (cmd == SIOCETHTOOL && rules &&
	    *(__u32 *)((struct ifreq *)arg)->ifr_data == ETHTOOL_SRXCLSRLINS &&
	    inserted++ >= atoi(rules)) {
		errno = EINVAL;
		return -1;
	}
	return real(fd, cmd, arg);
}
