/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every difference between the kernels that the module builds for, and the
 * only place that knows of one. Kbuild probes the headers and sets FS_HAVE_*.
 */
#ifndef _FS_COMPAT_H
#define _FS_COMPAT_H

#include <linux/ipv6.h>
#include <linux/slab.h>
#include <linux/sysctl.h>
#include <net/inet_hashtables.h>
#include <net/inet6_hashtables.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>

/* The arguments of proto_ops.accept became a structure in 6.10. */
#ifdef FS_HAVE_PROTO_ACCEPT_ARG
#define FS_ACCEPT_PARAMS	struct proto_accept_arg *arg
#define FS_ACCEPT_ARGS		arg
#define FS_ACCEPT_FLAGS		(arg->flags)
#else
#define FS_ACCEPT_PARAMS	int flags, bool kern
#define FS_ACCEPT_ARGS		flags, kern
#define FS_ACCEPT_FLAGS		(flags)
#endif

/*
 * A table ended by an empty entry until the size became an argument (6.6);
 * 6.11 and later complain of the empty entry.
 */
#ifdef FS_HAVE_REGISTER_NET_SYSCTL_SZ
#define FS_SYSCTL_SENTINEL	0
#define fs_register_net_sysctl(net, path, table, n) \
	register_net_sysctl_sz(net, path, table, n)
#else
#define FS_SYSCTL_SENTINEL	1
#define fs_register_net_sysctl(net, path, table, n) \
	register_net_sysctl(net, path, table)
#endif

/* Whether TCP-AO keys (6.7) are set. */
static inline bool fs_has_tcp_ao(const struct sock *sk)
{
#if defined(FS_HAVE_TCP_AO) && defined(CONFIG_TCP_AO)
	return rcu_access_pointer(tcp_sk(sk)->ao_info);
#else
	return false;
#endif
}

/* IP level options; bit-fields became bits of one word in 6.6. */
static inline void fs_copy_inet_flags(struct sock *to, const struct sock *from)
{
#ifdef FS_HAVE_INET_FLAGS
	WRITE_ONCE(inet_sk(to)->inet_flags, READ_ONCE(inet_sk(from)->inet_flags));
#else
	struct inet_sock *t = inet_sk(to);
	const struct inet_sock *f = inet_sk(from);

	t->cmsg_flags = f->cmsg_flags;
	t->recverr = f->recverr;
	t->recverr_rfc4884 = f->recverr_rfc4884;
	t->freebind = f->freebind;
	t->transparent = f->transparent;
	t->mc_loop = f->mc_loop;
	t->mc_all = f->mc_all;
	t->nodefrag = f->nodefrag;
	t->bind_address_no_port = f->bind_address_no_port;
#endif
}

#if IS_ENABLED(CONFIG_IPV6)
/* IPv6 options that moved into inet_flags in 6.7. */
static inline void fs_copy_inet6_flags(struct sock *to, const struct sock *from)
{
#ifndef FS_HAVE_INET_FLAGS
	struct ipv6_pinfo *t = inet6_sk(to);
	const struct ipv6_pinfo *f = inet6_sk(from);

	t->mc_loop = f->mc_loop;
	t->recverr = f->recverr;
	t->sndflow = f->sndflow;
	t->repflow = f->repflow;
	t->dontfrag = f->dontfrag;
	t->autoflowlabel = f->autoflowlabel;
	t->autoflowlabel_set = f->autoflowlabel_set;
	t->mc_all = f->mc_all;
	t->recverr_rfc4884 = f->recverr_rfc4884;
	t->rtalert_isolate = f->rtalert_isolate;
#endif
}
#endif /* CONFIG_IPV6 */

#endif /* _FS_COMPAT_H */
