// SPDX-License-Identifier: GPL-2.0
/*
 * Telling the kernel module how a device steers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../kmod/uapi/fastsocket.h"
#include "nic.h"

#define NICS	"/proc/net/fastsocket/nics"

/* A container has no device, or one that is not its root user's. */
static int module_open(void)
{
	int fd = open(FASTSOCKET_DEVICE, O_RDWR | O_CLOEXEC);
	int saved = errno;

	if (fd < 0)
		fd = open(FASTSOCKET_PROC, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		errno = saved;
	return fd;
}

/* Is there a module that can be told? If not, @why is a sentence. */
bool module_steers(char **why)
{
	struct fastsocket_steer steer = { .flags = ~0U };
	int fd = module_open();

	*why = NULL;
	if (fd < 0) {
		*why = xasprintf("the module is not told: %s; load it ('modprobe fastsocket') and repeat the setup",
				 errno == ENOENT ? "it is not loaded" : strerror(errno));
		return false;
	}
	/* The flags make it fail in any case; how tells whether it knows it. */
	if (ioctl(fd, FASTSOCKET_IOC_STEER, &steer) && errno == ENOTTY)
		*why = xstrdup("the module is not told: the one that is loaded is too old to be; load the one of this version and repeat the setup");
	close(fd);
	return !*why;
}

/* What the module says it knows of the device, NULL if nothing. */
char *module_line(unsigned int ifindex)
{
	char *line = NULL, *found = NULL;
	FILE *f = fopen(NICS, "re");
	size_t size = 0;

	while (f && !found && getline(&line, &size, f) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (*line >= '0' && *line <= '9' && strtoul(line, NULL, 10) == ifindex)
			found = xstrdup(line);
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

/* It has been told and no longer knows: it has been loaded anew since. */
bool module_forgot(unsigned int ifindex)
{
	char *line = module_line(ifindex);
	bool known = line;

	free(line);
	return !known && (access(NICS, F_OK) == 0 || access(FASTSOCKET_PROC, F_OK));
}

/* @value is "port CPU,CPU,..." or "rss CPU,CPU,...", or nothing for off. */
int module_tell(struct nic *nic, const char *value)
{
	struct fastsocket_steer steer = { .ifindex = nic->ifindex };
	__s32 *cpus = NULL;
	const char *at;
	char *end;
	int fd, ret = 0;

	if (!strncmp(value, "port ", 5))
		steer.mode = FASTSOCKET_STEER_PORT;
	else if (!strncmp(value, "rss ", 4))
		steer.mode = FASTSOCKET_STEER_RSS;
	at = strchr(value, ' ');
	while (at && *at) {
		cpus = xrealloc(cpus, steer.count + 1, sizeof(*cpus));
		cpus[steer.count++] = strtol(at + 1, &end, 10);
		at = end;
	}
	steer.cpus = (uintptr_t)cpus;
	fd = module_open();
	if (fd < 0 || ioctl(fd, FASTSOCKET_IOC_STEER, &steer))
		ret = -errno;
	if (fd >= 0)
		close(fd);
	free(cpus);
	/* Without the module there is nobody to be told that it is off. */
	if (!*value && (ret == -ENOENT || ret == -ENOTTY || ret == -ENXIO))
		ret = 0;
	if (ret) {
		nic_fail(nic, "%s", strerror(-ret));
		return ret;
	}
	free(nic->told);
	nic->told = *value ? xstrdup(value) : NULL;
	return 0;
}
