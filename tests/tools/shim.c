// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into the command: a device that refuses what it has said it can
 * do, interrupts of devices that are not here, and a module that does not take
 * what it is told.
 *
 * SHIM_RULES=N		the (N+1)th ntuple rule is refused
 * SHIM_INTERRUPTS=FILE	is read for /proc/interrupts
 * SHIM_NO_RSS=1	the module does not take STEER_RSS
 * SHIM_OLD=1		the module does not know FASTSOCKET_IOC_STEER
 * SHIM_NO_RPS=1	no directory has an entry "rx-...", as in a kernel without RPS
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "../../kmod/uapi/fastsocket.h"

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

FILE *fopen(const char *path, const char *mode)
{
	FILE *(*real)(const char *path, const char *mode) = next("fopen");
	const char *fake = getenv("SHIM_INTERRUPTS");

	return real(fake && !strcmp(path, "/proc/interrupts") ? fake : path, mode);
}

struct dirent *readdir(DIR *dir)
{
	struct dirent *(*real)(DIR *dir) = next("readdir");
	struct dirent *entry = real(dir);

	while (entry && getenv("SHIM_NO_RPS") && !strncmp(entry->d_name, "rx-", 3))
		entry = real(dir);
	return entry;
}

/* 0, or the negative errno with which the module refuses. */
static int steer(const struct fastsocket_steer *s)
{
	if (getenv("SHIM_OLD"))
		return -ENOTTY;
	return s->mode == FASTSOCKET_STEER_RSS && getenv("SHIM_NO_RSS") ? -EOPNOTSUPP : 0;
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
	errno = cmd == FASTSOCKET_IOC_STEER ? -steer(arg) : 0;
	if (errno)
		return -1;
	if (cmd == SIOCETHTOOL && rules &&
	    *(__u32 *)((struct ifreq *)arg)->ifr_data == ETHTOOL_SRXCLSRLINS &&
	    inserted++ >= atoi(rules)) {
		errno = EINVAL;
		return -1;
	}
	return real(fd, cmd, arg);
}
