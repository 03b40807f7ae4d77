/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Control interface of the fastsocket module: ioctls on /dev/fastsocket.
 *
 * Every argument is a structure that may grow at its end. Its size travels in
 * the ioctl number, so either side may be newer: the kernel reads the fields
 * the caller does not have as zero, and refuses with E2BIG a field it does not
 * know that is not zero. A call that fails changes nothing.
 */
#ifndef _UAPI_FASTSOCKET_H
#define _UAPI_FASTSOCKET_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define FASTSOCKET_DEVICE	"/dev/fastsocket"

/* Raised only when a call changes its meaning; growth does not count. */
#define FASTSOCKET_VERSION	1

/* Values of net.fastsocket.listen_spawn. */
#define FASTSOCKET_SPAWN_OFF	0	/* every SYN goes the stock way */
#define FASTSOCKET_SPAWN_BOUND	1	/* only for callers bound to one CPU */
#define FASTSOCKET_SPAWN_BIND	2	/* the library binds unbound workers */

/* fastsocket_spawn.cpu: let the module choose. */
#define FASTSOCKET_CPU_ANY	(-1)

/**
 * struct fastsocket_info - what the loaded module offers
 * @version: out, FASTSOCKET_VERSION of the module
 * @listen_spawn: out, net.fastsocket.listen_spawn of the caller's namespace
 */
struct fastsocket_info {
	__u32 version;
	__u32 listen_spawn;
};

/**
 * struct fastsocket_spawn - make a local listener
 * @listen_fd: in, a listening TCP socket that the caller holds: the parent
 * @cpu: in, the CPU whose SYNs it takes, or FASTSOCKET_CPU_ANY for the CPU of
 *	the caller's affinity mask that has the fewest local listeners of this
 *	parent; out, the CPU chosen
 * @fd: out, the local listener (close-on-exec)
 * @flags: in, must be 0
 *
 * The new socket listens on the parent's address without being in the global
 * listen table. accept() on it never blocks. It takes from its own queue and,
 * when that is empty or every few calls, from the parent's; it fails with
 * ENODATA where both are empty. A plain EAGAIN therefore says that the module
 * has been unloaded since: the caller then accepts from the parent itself.
 * Closing it moves what waits in its queue to the parent.
 *
 * Errors: EBADF or ENOTSOCK @listen_fd is no descriptor or no socket;
 * EPROTONOSUPPORT not TCP over IPv4 or IPv6; EINVAL not listening, @cpu is no
 * possible CPU, or @flags is not 0; EALREADY itself a local listener;
 * EOPNOTSUPP a ULP, TCP-AO, TCP_REPAIR, a socket filter, BPF storage, a BPF
 * congestion control, an IPsec policy, receive time stamps or IPv6 extension
 * headers are set on it, which a module cannot share; EAGAIN listen_spawn is 0
 * in the namespace of the socket; ENXIO @cpu is offline or
 * (FASTSOCKET_CPU_ANY) none of the caller's CPUs is online; EMFILE, ENFILE,
 * ENOMEM as for socket().
 */
struct fastsocket_spawn {
	__s32 listen_fd;
	__s32 cpu;
	__s32 fd;
	__u32 flags;
};

/**
 * struct fastsocket_sync - repeat the parent's options on its local listeners
 * @listen_fd: in, the parent, after setsockopt() or listen() on it
 * @flags: in, must be 0
 *
 * Errors: EBADF, ENOTSOCK, EPROTONOSUPPORT, EINVAL as for
 * &struct fastsocket_spawn. EOPNOTSUPP: an option has been set that local
 * listeners cannot have; they take no new connections from now on.
 */
struct fastsocket_sync {
	__s32 listen_fd;
	__u32 flags;
};

#define FASTSOCKET_IOC_MAGIC	0xF5
#define FASTSOCKET_IOC_INFO	_IOR(FASTSOCKET_IOC_MAGIC, 0, struct fastsocket_info)
#define FASTSOCKET_IOC_SPAWN	_IOWR(FASTSOCKET_IOC_MAGIC, 1, struct fastsocket_spawn)
#define FASTSOCKET_IOC_SYNC	_IOW(FASTSOCKET_IOC_MAGIC, 2, struct fastsocket_sync)

#endif /* _UAPI_FASTSOCKET_H */
