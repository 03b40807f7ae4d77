// SPDX-License-Identifier: GPL-2.0
/*
 * The module's ioctls. The device is open for the length of one call: an open
 * one would keep the module from being unloaded.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

/* What connect() may expect; others ask anew each time. */
enum { UNKNOWN, SERVES, OLD, ABSENT };
static int module;

static void module_is(int what)
{
	if (__atomic_load_n(&module, __ATOMIC_RELAXED) != what)
		__atomic_store_n(&module, what, __ATOMIC_RELAXED);
}

static int call(unsigned long cmd, void *arg)
{
	int fd = syscall(SYS_openat, AT_FDCWD, FASTSOCKET_DEVICE,
			 O_RDWR | O_CLOEXEC);
	int ret, saved;

	if (fd < 0) {
		if (errno != EMFILE && errno != ENFILE && errno != ENOMEM)
			module_is(ABSENT);
		return -1;
	}
	ret = ioctl(fd, cmd, arg);
	saved = errno;
	syscall(SYS_close, fd);
	errno = saved;
	return ret;
}

int control_info(struct fastsocket_info *info)
{
	if (call(FASTSOCKET_IOC_INFO, info))
		return -1;
	if (info->version != FASTSOCKET_VERSION) {
		module_is(ABSENT);
		errno = EPROTO;
		return -1;
	}
	if (__atomic_load_n(&module, __ATOMIC_RELAXED) != OLD)
		module_is(SERVES);
	return 0;
}

/* Say once what keeps the library from working. errno is the caller's. */
void control_check(void)
{
	static bool checked;
	struct fastsocket_info info = {};
	int saved = errno;

	if (__atomic_exchange_n(&checked, true, __ATOMIC_RELAXED))
		return;
	if (control_info(&info)) {
		if (errno == EPROTO)
			logf_at(LOG_WARN, "the module's interface has version %u and this library needs %u: install both from one release; serving without fastsocket",
				info.version, FASTSOCKET_VERSION);
		else if (errno == EACCES || errno == EPERM)
			logf_at(LOG_WARN, FASTSOCKET_DEVICE " is not permitted to this user (chmod 666 is the default); serving without fastsocket");
		else if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
			logf_at(LOG_WARN, "the module is not loaded (modprobe fastsocket); serving without fastsocket");
		else
			logf_at(LOG_WARN, FASTSOCKET_DEVICE ": %s; serving without fastsocket",
				strerror(errno));
	}
	errno = saved;
}

/* The new descriptor, or -1. */
int control_spawn(int listen_fd, int *cpu)
{
	struct fastsocket_spawn arg = {
		.listen_fd = listen_fd,
		.cpu = *cpu,
		.fd = -1,
	};

	if (call(FASTSOCKET_IOC_SPAWN, &arg))
		return -1;
	*cpu = arg.cpu;
	return arg.fd;
}

void control_sync(int listen_fd)
{
	struct fastsocket_sync arg = { .listen_fd = listen_fd };
	int saved = errno;

	call(FASTSOCKET_IOC_SYNC, &arg);
	errno = saved;
}

/* Whether there is a module to ask for ports. errno is the caller's. */
bool control_ports(void)
{
	if (__atomic_load_n(&module, __ATOMIC_RELAXED) == UNKNOWN)
		control_check();
	return __atomic_load_n(&module, __ATOMIC_RELAXED) == SERVES;
}

int control_port(int fd, unsigned int flags, const struct sockaddr *addr,
		 socklen_t len)
{
	struct fastsocket_port arg = {
		.fd = fd,
		.flags = flags,
		.addr = (uintptr_t)addr,
		.addrlen = len,
	};
	int ret = call(FASTSOCKET_IOC_PORT, &arg);

	if (ret && errno == ENOTTY)
		module_is(OLD);
	return ret;
}
