/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every difference between the kernels that the module builds for, and the
 * only place that knows of one. Kbuild probes the headers and sets FS_HAVE_*.
 */
#ifndef _FS_COMPAT_H
#define _FS_COMPAT_H

#include <linux/ethtool.h>
#include <linux/fs.h>
#include <linux/ipv6.h>
#include <linux/netdevice.h>
#include <linux/slab.h>
#include <linux/sysctl.h>
#include <net/inet_hashtables.h>
#include <net/inet6_hashtables.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>

/* The arguments of proto.accept became a structure in 6.10. */
#ifdef FS_HAVE_PROTO_ACCEPT_ARG
#define FS_ACCEPT_PARAMS	struct proto_accept_arg *arg
#define FS_ACCEPT_ARGS		arg
#define FS_ACCEPT_FLAGS		(arg->flags)
#define FS_ACCEPT_ERR		(arg->err)
#define FS_ACCEPT_MORE(more)	(arg->is_empty = !(more))
#else
#define FS_ACCEPT_PARAMS	int flags, int *err, bool kern
#define FS_ACCEPT_ARGS		flags, err, kern
#define FS_ACCEPT_FLAGS		(flags)
#define FS_ACCEPT_ERR		(*err)
#define FS_ACCEPT_MORE(more)	do { } while (0)
#endif

/*
 * The arguments of icsk_af_ops.syn_recv_sock: one more in late 6.1 and 6.12
 * updates, for an IPv4 connection of an IPv6 listener.
 */
#ifdef FS_HAVE_OPT_CHILD_INIT
#define FS_SYN_RECV_SOCK_PARAMS \
	const struct sock *sk, struct sk_buff *skb, struct request_sock *req, \
	struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, \
	void (*opt_child_init)(struct sock *newsk, const struct sock *sk)
#define FS_SYN_RECV_SOCK_ARGS \
	sk, skb, req, dst, req_unhash, own_req, opt_child_init
#else
#define FS_SYN_RECV_SOCK_PARAMS \
	const struct sock *sk, struct sk_buff *skb, struct request_sock *req, \
	struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req
#define FS_SYN_RECV_SOCK_ARGS \
	sk, skb, req, dst, req_unhash, own_req
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

/* A reference on a file that is not being closed; the count has a type of its own since 6.13. */
static inline bool fs_file_get(struct file *file)
{
#ifdef FS_HAVE_FILE_REF
	return file_ref_get(&file->f_ref);
#else
	return atomic_long_inc_not_zero(&file->f_count);
#endif
}

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
/* IPv6 options that moved into inet_flags in 6.7, or have been bit-fields until then. */
static inline void fs_copy_inet6_flags(struct sock *to, const struct sock *from)
{
	struct ipv6_pinfo *t = inet6_sk(to);
	const struct ipv6_pinfo *f = inet6_sk(from);

#ifdef FS_HAVE_INET_FLAGS
	WRITE_ONCE(t->hop_limit, READ_ONCE(f->hop_limit));
	WRITE_ONCE(t->mcast_hops, READ_ONCE(f->mcast_hops));
#else
	t->hop_limit = f->hop_limit;
	t->mcast_hops = f->mcast_hops;
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

/* Whether @sk is the only owner of bind bucket @tb; under the bucket's lock. */
static inline bool fs_bind_sole(const struct inet_bind_bucket *tb,
				const struct sock *sk)
{
	const struct hlist_head *owners;
#ifdef FS_HAVE_BHASH_NODE
	/* By address first, since 6.8. */
	const struct inet_bind2_bucket *tb2 = inet_csk(sk)->icsk_bind2_hash;

	if (tb->bhash2.first != &tb2->bhash_node || tb2->bhash_node.next)
		return false;
	owners = &tb2->owners;
#else
	owners = &tb->owners;
#endif
	return owners->first == &sk->sk_bind_node && !sk->sk_bind_node.next;
}

/* How many owners of each list are looked at: there may be as many as there are addresses. */
#define FS_BIND_LATEST	4

static inline bool fs_bind_latest(const struct hlist_head *owners, const struct sock *sk,
				  bool (*such)(const struct sock *sk))
{
	const struct sock *other;
	int n = 0;

	sk_for_each_bound(other, owners) {
		if (other != sk && such(other))
			return true;
		if (++n == FS_BIND_LATEST)
			break;
	}
	return false;
}

/* Whether bind bucket @tb has such an owner that has come of late; under the bucket's lock. */
static inline bool fs_bind_other(const struct inet_bind_bucket *tb, const struct sock *sk,
				 bool (*such)(const struct sock *sk))
{
#ifdef FS_HAVE_BHASH_NODE
	const struct inet_bind2_bucket *tb2;

	hlist_for_each_entry(tb2, &tb->bhash2, bhash_node)
		if (fs_bind_latest(&tb2->owners, sk, such))
			return true;
	return false;
#else
	return fs_bind_latest(&tb->owners, sk, such);
#endif
}

/*
 * The range for connect(): of the socket (IP_LOCAL_PORT_RANGE, 6.3 and late
 * 6.1 updates) or of the namespace.
 */
static inline void fs_local_port_range(const struct sock *sk, int *low, int *high)
{
#ifdef FS_HAVE_SK_PORT_RANGE
	inet_sk_get_local_port_range(sk, low, high);
#else
	inet_get_local_port_range(sock_net(sk), low, high);
#endif
}

/* What ethtool_ops.get_rxfh() fills became a structure in 6.8. */
static inline int fs_get_rxfh(struct net_device *dev, u32 *indir, u32 nindir,
			      u8 *key, u32 nkey, u8 *hfunc)
{
#ifdef FS_HAVE_RXFH_PARAM
	struct ethtool_rxfh_param rxfh = {
		.indir = indir, .indir_size = nindir,
		.key = key, .key_size = nkey,
	};
	int err = dev->ethtool_ops->get_rxfh(dev, &rxfh);

	if (!err && rxfh.input_xfrm)
		return -EOPNOTSUPP;
	*hfunc = rxfh.hfunc;
	return err;
#else
	return dev->ethtool_ops->get_rxfh(dev, indir, key, hfunc);
#endif
}

/* Fields that TCP is hashed over; an operation of its own since 6.17. */
static inline int fs_get_rxfh_fields(struct net_device *dev, u32 flow_type, u64 *fields)
{
	struct ethtool_rxnfc nfc = { .cmd = ETHTOOL_GRXFH, .flow_type = flow_type };
	int err;

#ifdef FS_HAVE_RXFH_FIELDS
	if (dev->ethtool_ops->get_rxfh_fields) {
		struct ethtool_rxfh_fields f = { .flow_type = flow_type };

		err = dev->ethtool_ops->get_rxfh_fields(dev, &f);
		*fields = f.data;
		return err;
	}
#endif
	if (!dev->ethtool_ops->get_rxnfc)
		return -EOPNOTSUPP;
	err = dev->ethtool_ops->get_rxnfc(dev, &nfc, NULL);
	*fields = nfc.data;
	return err;
}

#endif /* _FS_COMPAT_H */
