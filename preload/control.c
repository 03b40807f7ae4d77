// SPDX-License-Identifier: GPL-2.0
/*
 * The module's ioctls. The device is open for the length of one call: an open
 * one would keep the module from being unloaded. The file of /proc would not, and
 * stays open for connect() and for who cannot open the device.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fsocket.h"

/*
 * The descriptor that connect() asks by. It stays open, as that may be often:
 * opening takes locks that all CPUs share. The application does not know it,
 * and may close it or put another file in its place past us. So its file is
 * looked at before each use, which leaves a foreign one a call that it does not
 * know only if that happens in between.
 */
enum { CLOSED = -1, GONE = -2 };
static int kept = CLOSED;
static time_t gone_at;		/* when it was last found so, in seconds */
static dev_t kept_dev;
static ino_t kept_ino;

static bool is_kept(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_ino == kept_ino && st.st_dev == kept_dev;
}

/* Whether the application, which has not opened @fd, must not close it. */
bool control_owns(int fd)
{
	return fd >= 0 && fd == __atomic_load_n(&kept, __ATOMIC_RELAXED) && is_kept(fd);
}

/* Of a clock that is cheap to look at, and that nobody sets. */
time_t seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec;
}

/* Returns it, or GONE; CLOSED if it cannot be opened for now. */
static int keep_locked(void)
{
	struct fastsocket_info info = {};
	struct stat st;
	int fd, none = CLOSED;

	fd = syscall(SYS_openat, AT_FDCWD, FASTSOCKET_PROC, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		return CLOSED;
	if (fd >= 0 && (fstat(fd, &st) || ioctl(fd, FASTSOCKET_IOC_INFO, &info) ||
			info.version != FASTSOCKET_VERSION)) {
		syscall(SYS_close, fd);
		fd = GONE;
	}
	if (fd < 0) {
		__atomic_store_n(&gone_at, seconds(), __ATOMIC_RELAXED);
		__atomic_store_n(&kept, GONE, __ATOMIC_RELAXED);
		return GONE;
	}
	/* The same for all that do this at a time. */
	kept_dev = st.st_dev;
	kept_ino = st.st_ino;
	fd = fd_raise(fd);
	if (__atomic_compare_exchange_n(&kept, &none, fd, false, __ATOMIC_RELEASE,
					__ATOMIC_ACQUIRE))
		return fd;
	syscall(SYS_close, fd);
	return none;
}

static int keep(void)
{
	int ret;

	if (!listener_ours())
		return CLOSED;
	lock_acquire();
	ret = keep_locked();
	lock_release();
	return ret;
}

/* Under the lock. These numbers have been closed, or are other files now. */
void control_closed(unsigned int first, unsigned int last)
{
	int fd = __atomic_load_n(&kept, __ATOMIC_RELAXED);

	if (within(fd, first, last))
		__atomic_store_n(&kept, CLOSED, __ATOMIC_RELAXED);
}

/* The module has gone from under @by, or another file has its number. */
static bool let_go(int by)
{
	int fd = by;
	bool yes;

	if (!listener_ours())
		return false;
	lock_acquire();
	yes = __atomic_compare_exchange_n(&kept, &fd, CLOSED, false, __ATOMIC_RELAXED,
					  __ATOMIC_RELAXED);
	if (yes && is_kept(by))
		syscall(SYS_close, by);
	lock_release();
	return yes;
}

/* After control_ports() has said yes. EAGAIN: the module has been loaded anew since. */
static int ask_kept(unsigned long cmd, void *arg)
{
	int by = __atomic_load_n(&kept, __ATOMIC_ACQUIRE);
	int ret = ioctl(by, cmd, arg);

	if (ret && errno == ENOTTY)
		errno = let_go(by) && keep() >= 0 ? EAGAIN : ENOTTY;
	return ret;
}

/*
 * Without the device: it is root's only, a container has none, or the program has
 * lost sight of it (chroot()).
 */
static int call_kept(unsigned long cmd, void *arg)
{
	int saved = errno, ret;

	if (!control_ports())
		return -1;
	ret = ask_kept(cmd, arg);
	if (ret && errno == EAGAIN)
		ret = ask_kept(cmd, arg);
	/* The module is gone: that there is no device says it better. */
	if (ret && errno == ENOTTY)
		errno = saved;
	return ret;
}

static int call(unsigned long cmd, void *arg)
{
	int fd, ret, saved;

	lock_acquire();
	fd = syscall(SYS_openat, AT_FDCWD, FASTSOCKET_DEVICE, O_RDWR | O_CLOEXEC);
	ret = fd < 0 ? call_kept(cmd, arg) : ioctl(fd, cmd, arg);
	saved = errno;
	if (fd >= 0)
		syscall(SYS_close, fd);
	lock_release();
	errno = saved;
	return ret;
}

int control_info(struct fastsocket_info *info)
{
	if (call(FASTSOCKET_IOC_INFO, info))
		return -1;
	if (info->version != FASTSOCKET_VERSION) {
		errno = EPROTO;
		return -1;
	}
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
			logf_at(LOG_WARN, FASTSOCKET_DEVICE " is not permitted to this user, and " FASTSOCKET_PROC " cannot be used either; serving without fastsocket");
		else if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
			logf_at(LOG_WARN, "the module is not loaded (modprobe fastsocket); serving without fastsocket");
		else
			logf_at(LOG_WARN, FASTSOCKET_DEVICE ": %m; serving without fastsocket");
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

/**
 * control_ports() - whether there is a module to ask for ports
 *
 * Called by listen(), too: a server may be without /proc when it connects.
 *
 * errno is the caller's.
 */
bool control_ports(void)
{
	int saved = errno;
	int fd = __atomic_load_n(&kept, __ATOMIC_ACQUIRE);

	/* The module may be loaded at any time: look once a second. */
	if ((fd >= 0 && !is_kept(fd)) ||
	    (fd == GONE && __atomic_load_n(&gone_at, __ATOMIC_RELAXED) != seconds())) {
		__atomic_compare_exchange_n(&kept, &fd, CLOSED, false,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
		fd = CLOSED;
	}
	if (fd == CLOSED) {
		fd = keep();
		if (fd == GONE)
			control_check();
	}
	errno = saved;
	return fd >= 0;
}

/* After control_ports() has said yes. */
int control_port(int fd, unsigned int flags, const struct sockaddr *addr,
		 socklen_t len)
{
	struct fastsocket_port arg = {
		.fd = fd,
		.flags = flags,
		.addr = (uintptr_t)addr,
		.addrlen = len,
	};

	return ask_kept(FASTSOCKET_IOC_PORT, &arg);
}
