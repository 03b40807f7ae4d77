/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Control interface of the fastsocket module: ioctls on /dev/fastsocket, and
 * the same on /proc/fastsocket. A descriptor of the latter may be kept: it does
 * not hold the module, and gives ENOTTY once that is gone.
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
#define FASTSOCKET_PROC		"/proc/fastsocket"

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
 * Closing it moves what waits in its queue to the parent, and so does not
 * accepting from it for net.fastsocket.accept_patience. Its options are the
 * parent's: connect() on it, and setsockopt() of TCP or IP, give EOPNOTSUPP.
 *
 * Errors: EBADF or ENOTSOCK @listen_fd is no descriptor or no socket;
 * EPROTONOSUPPORT not TCP over IPv4 or IPv6; EINVAL not listening, @cpu is no
 * possible CPU, or @flags is not 0; EALREADY itself a local listener;
 * EOPNOTSUPP a ULP, TCP-AO, TCP_REPAIR, a socket filter, BPF storage, a BPF
 * congestion control, an IPsec policy, receive time stamps or IPv6 extension
 * headers are set on it, which a module cannot share; EAGAIN listen_spawn is 0
 * in the namespace of the socket; ENXIO @cpu is offline or
 * (FASTSOCKET_CPU_ANY) none of the caller's CPUs is online; ENOSPC 64 local
 * listeners of this parent are on that CPU already; EMFILE, ENFILE, ENOMEM as
 * for socket().
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
 * listeners cannot have; ENOSPC: they have come into a SO_REUSEPORT group that
 * has 64 on their CPU. They take no new connections from now on.
 */
struct fastsocket_sync {
	__s32 listen_fd;
	__u32 flags;
};

/* fastsocket_steer.mode: how a device decides which CPU a packet comes to. */
#define FASTSOCKET_STEER_OFF	0	/* nothing known */
#define FASTSOCKET_STEER_PORT	1	/* by the destination port (ntuple, xdp) */
#define FASTSOCKET_STEER_RSS	2	/* by the Toeplitz hash of the 4-tuple */

/*
 * Destination ports with this bit belong to the class that their low bits
 * name; the others, where services listen, are spread by RSS.
 */
#define FASTSOCKET_PORT_CLASSES	0x8000

/**
 * struct fastsocket_steer - tell how a device has been set up to steer
 * @ifindex: in, the device, in the caller's network namespace
 * @mode: in, FASTSOCKET_STEER_*
 * @count: in, entries of @cpus. STEER_PORT: number of classes, a power of 2,
 *	at most 4096; STEER_RSS: number of rx queues, at most 4096; STEER_OFF: 0
 * @flags: in, must be 0
 * @cpus: in, user address of @count __s32: the CPU that a class or rx queue
 *	is processed on, -1 where none is
 *
 * Replaces what was told of the device before. Forgotten when the device or
 * the module goes, or with STEER_OFF. In STEER_RSS, the hash key and the
 * indirection table are read from the device, now and when they change.
 * A class or queue of which @cpus has no CPU is not used for connections.
 *
 * Errors: EPERM without CAP_NET_ADMIN in the namespace; ENODEV no such device;
 * EINVAL @mode, @count, @flags or a CPU is out of range; EOPNOTSUPP STEER_RSS
 * on a device that does not show its key or does not hash by Toeplitz over
 * both ports; EFAULT, ENOMEM.
 */
struct fastsocket_steer {
	__u32 ifindex;
	__u32 mode;
	__u32 count;
	__u32 flags;
	__u64 cpus;
};

/* fastsocket_port.flags */
#define FASTSOCKET_PORT_REPLACE	1	/* what bind(addr, 0) chose nobody has seen */
#define FASTSOCKET_PORT_RELEASE	2	/* connect() failed: give it back */

/**
 * struct fastsocket_port - give a socket a core-local port before connect()
 * @fd: in, a TCP socket that is about to connect
 * @flags: in, FASTSOCKET_PORT_*
 * @addr: in, user address of the destination, as for connect()
 * @addrlen: in, its length
 * @pad: in, must be 0
 *
 * Chooses a port to which the replies from @addr come to the CPU that calls,
 * and binds @fd to it as connect() would have. The application sees no
 * difference: the port is not locked, and connect() still decides whether
 * the connection is allowed and made. With PORT_RELEASE the port goes back if
 * the socket is still unconnected; @addr is not looked at.
 *
 * Errors, after each of which plain connect() is right: EBADF, ENOTSOCK;
 * EPROTONOSUPPORT not TCP over IPv4 or IPv6; EINVAL @flags or @pad;
 * EOPNOTSUPP the application has bound a port, or the socket or @addr is of a
 * kind that is left to the stock kernel; EAGAIN switched off by
 * net.fastsocket.receive_flow_deliver; ENXIO no class or queue of the route's
 * device comes to this CPU; EADDRNOTAVAIL none of this CPU's ports is left
 * towards @addr; EFAULT, ENOMEM, and what the route lookup says.
 */
struct fastsocket_port {
	__s32 fd;
	__u32 flags;
	__u64 addr;
	__u32 addrlen;
	__u32 pad;
};

#define FASTSOCKET_IOC_MAGIC	0xF5
#define FASTSOCKET_IOC_INFO	_IOR(FASTSOCKET_IOC_MAGIC, 0, struct fastsocket_info)
#define FASTSOCKET_IOC_SPAWN	_IOWR(FASTSOCKET_IOC_MAGIC, 1, struct fastsocket_spawn)
#define FASTSOCKET_IOC_SYNC	_IOW(FASTSOCKET_IOC_MAGIC, 2, struct fastsocket_sync)
#define FASTSOCKET_IOC_STEER	_IOW(FASTSOCKET_IOC_MAGIC, 3, struct fastsocket_steer)
#define FASTSOCKET_IOC_PORT	_IOW(FASTSOCKET_IOC_MAGIC, 4, struct fastsocket_port)

#endif /* _UAPI_FASTSOCKET_H */
