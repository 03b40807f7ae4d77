// SPDX-License-Identifier: GPL-2.0
/*
 * Core-local ports for connections that are about to be made (Receive Flow
 * Deliver in the Fastsocket paper, ASPLOS 2016, section 3.3): of the ports
 * whose replies come to the calling CPU, a free one is bound to the socket in
 * the way in which connect() itself would. The connection is then made by the
 * stock connect(), which decides alone whether its 4-tuple is unique.
 *
 * Ports are tried in a random order, so that the cost of finding one grows
 * with the share of ports that are taken and not with runs of them, and the
 * table of all ports is only touched for a port that is free.
 */
#include <linux/bpf-cgroup.h>
#include <linux/gcd.h>
#include <linux/random.h>
#include <linux/security.h>
#include <net/inet_hashtables.h>
#include <net/inet6_hashtables.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/ipv6_stubs.h>
#include <net/l3mdev.h>
#include <net/route.h>
#include <net/tcp.h>

#include "local.h"

/* Ports to look at before others may have the CPU. */
#define FS_PORT_BATCH	256

/* Whether a port may be bound as connect() would: nobody else, or only such. */
static bool fs_bucket_shared(const struct inet_bind_bucket *tb)
{
	return tb->fastreuse == -1 && tb->fastreuseport == -1;
}

/* bind() has given it the port, beside connections: with SO_REUSEADDR only. */
static bool fs_bound_beside(const struct sock *sk)
{
	int state = READ_ONCE(sk->sk_state);
	/* Its user may set it at any time. */
	bool reuse = data_race(sk->sk_reuse == SK_CAN_REUSE);

	return state == TCP_LISTEN || (state == TCP_CLOSE && reuse);
}

static int fs_port_bind(struct sock *sk, int port)
{
	struct net *net = sock_net(sk);
	struct inet_hashinfo *hinfo = fs_hashinfo(net);
	struct inet_bind_hashbucket *head =
		&hinfo->bhash[inet_bhashfn(net, port, hinfo->bhash_size)];
	int l3mdev = inet_sk_bound_l3mdev(sk);
	unsigned char reuse = sk->sk_reuse;
	bool reuseport = sk->sk_reuseport;
	struct inet_bind_bucket *tb;
	bool ok = true;
	int err;

	spin_lock_bh(&head->lock);
	inet_bind_bucket_for_each(tb, &head->chain) {
		if (net_eq(ib_net(tb), net) && tb->port == port &&
		    tb->l3mdev == l3mdev) {
			ok = fs_bucket_shared(tb);
			break;
		}
	}
	spin_unlock_bh(&head->lock);
	if (!ok)
		return -EADDRINUSE;

	/* Joins others' connections, or makes a bucket. */
	sk->sk_reuse = SK_FORCE_REUSE;
	sk->sk_reuseport = 0;
	err = sk->sk_prot->get_port(sk, port);
	sk->sk_reuse = reuse;
	sk->sk_reuseport = reuseport;
	if (err)
		return -EADDRINUSE;

	/*
	 * That has marked it as bound; later connections shall share it. A mark
	 * that a bind() has made meanwhile looks the same, and is to stay.
	 */
	spin_lock_bh(&head->lock);
	tb = inet_csk(sk)->icsk_bind_hash;
	ok = fs_bind_sole(tb, sk) ||
	     (tb->fastreuse == -1 && !fs_bind_other(tb, sk, fs_bound_beside));
	if (ok) {
		tb->fastreuse = -1;
		tb->fastreuseport = -1;
	}
	spin_unlock_bh(&head->lock);
	if (!ok) {
		/* Somebody has bound it meanwhile. */
		sk->sk_prot->put_port(sk);
		return -EADDRINUSE;
	}
	inet_sk(sk)->inet_sport = htons(port);
	return 0;
}

static bool fs_tw_loopback(const struct inet_timewait_sock *tw)
{
	if (tw->tw_bound_dev_if == LOOPBACK_IFINDEX)
		return true;
#if IS_ENABLED(CONFIG_IPV6)
	if (tw->tw_family == AF_INET6)
		return ipv6_addr_loopback(&tw->tw_v6_daddr) ||
		       ipv6_addr_loopback(&tw->tw_v6_rcv_saddr) ||
		       ipv6_addr_v4mapped_loopback(&tw->tw_v6_daddr) ||
		       ipv6_addr_v4mapped_loopback(&tw->tw_v6_rcv_saddr);
#endif
	return ipv4_is_loopback(tw->tw_daddr) || ipv4_is_loopback(tw->tw_rcv_saddr);
}

/*
 * Whether connect() would take the TIME_WAIT over if it chose the port, as in
 * tcp_twsk_unique(): 1 always, 2 on loopback; after a second, and told apart
 * by time stamps.
 */
static bool fs_tw_reusable(const struct net *net, const struct inet_timewait_sock *tw)
{
	int reuse = READ_ONCE(net->ipv4.sysctl_tcp_tw_reuse);
	u32 stamp = READ_ONCE(tcp_twsk((const struct sock *)tw)->tw_ts_recent_stamp);

	if (READ_ONCE(tw->tw_substate) == TCP_FIN_WAIT2 || !reuse ||
	    (reuse == 2 && !fs_tw_loopback(tw)))
		return false;
	return stamp && time_after32(ktime_get_seconds(), stamp);
}

/* Whether no connection has the tuple; TIME_WAIT as net.ipv4.tcp_tw_reuse says. */
static bool fs_tuple_unused(struct sock *sk, const struct fs_flow *flow, int port)
{
	struct net *net = sock_net(sk);
	int dif = sk->sk_bound_dev_if;
	int sdif = l3mdev_master_ifindex_by_index(net, dif);
	struct sock *other;
	bool unused;

#if IS_ENABLED(CONFIG_IPV6)
	if (flow->v6)
		other = __inet6_lookup_established(net, fs_hashinfo(net),
						   &flow->saddr, flow->sport,
						   &flow->daddr, port, dif, sdif);
	else
#endif
		other = __inet_lookup_established(net, fs_hashinfo(net),
						  flow->saddr.s6_addr32[0],
						  flow->sport,
						  flow->daddr.s6_addr32[0],
						  port, dif, sdif);
	if (!other)
		return true;

	/* connect() takes a TIME_WAIT over from a bound socket regardless. */
	unused = other->sk_state == TCP_TIME_WAIT &&
		 fs_tw_reusable(net, inet_twsk(other));
	sock_gen_put(other);
	return unused;
}

static int fs_port_choose(struct sock *sk, struct fs_flow *flow, int ifindex, int cpu)
{
	struct net *net = sock_net(sk);
	struct fs_ports ports;
	int low, high, port;
	u32 i, n, total, stride;
	int err = -ENXIO;

	fs_local_port_range(sk, &low, &high);
	rcu_read_lock();
	if (!fs_ports_init(&ports, flow, ifindex, cpu, low, high))
		goto out;

	/* Each candidate once: the stride has no divisor in common with them. */
	err = -EADDRNOTAVAIL;
	total = ports.total;
	n = reciprocal_scale(get_random_u32(), total);
	stride = 1 + reciprocal_scale(get_random_u32(), total);
	while (gcd(stride, total) != 1)
		stride++;
	for (i = 0; i < total; i++) {
		if (i && i % FS_PORT_BATCH == 0) {
			rcu_read_unlock();
			cond_resched();
			rcu_read_lock();
			/* The device may be steered otherwise now: the stock allocator knows. */
			if (!fs_ports_init(&ports, flow, ifindex, cpu, low, high) ||
			    ports.total != total)
				break;
		}
		n += stride;
		n %= total;
		port = fs_ports_nth(&ports, n);
		if (port < 0 || inet_is_local_reserved_port(net, port) ||
		    !fs_tuple_unused(sk, flow, port))
			continue;
		if (fs_port_bind(sk, port))
			continue;
		flow->dport = htons(port);
		err = 0;
		break;
	}
out:
	rcu_read_unlock();
	return err;
}

static int fs_route4(struct sock *sk, __be32 addr, __be16 port,
		     struct fs_flow *flow, int *ifindex)
{
	struct inet_sock *inet = inet_sk(sk);
	struct ip_options_rcu *opt;
	struct flowi4 fl4;
	struct rtable *rt;
	int err = 0;

	opt = rcu_dereference_protected(inet->inet_opt, lockdep_sock_is_held(sk));
	if (opt && opt->opt.srr)
		return -EOPNOTSUPP;
	rt = ip_route_connect(&fl4, addr, inet->inet_saddr, sk->sk_bound_dev_if,
			      IPPROTO_TCP, 0, port, sk);
	if (IS_ERR(rt))
		return PTR_ERR(rt);
	if (rt->rt_flags & (RTCF_MULTICAST | RTCF_BROADCAST))
		err = -EOPNOTSUPP;
	*ifindex = rt->dst.dev->ifindex;
	ip_rt_put(rt);
	flow->saddr.s6_addr32[0] = fl4.daddr;
	flow->daddr.s6_addr32[0] = fl4.saddr;
	flow->sport = port;
	return err;
}

#if IS_ENABLED(CONFIG_IPV6)
static int fs_route6(struct sock *sk, const struct sockaddr_in6 *sin6,
		     struct fs_flow *flow, int *ifindex)
{
	const struct in6_addr *addr = &sin6->sin6_addr;
	struct ipv6_pinfo *np = inet6_sk(sk);
	int type = ipv6_addr_type(addr);
	struct flowi6 fl6 = {};
	struct dst_entry *dst;

	if (type & IPV6_ADDR_MAPPED) {
		if (sk->sk_ipv6only)
			return -EOPNOTSUPP;
		return fs_route4(sk, addr->s6_addr32[3], sin6->sin6_port, flow, ifindex);
	}
	/* connect() changes the device for a link-local address, or fails. */
	if (!(type & IPV6_ADDR_UNICAST) || (type & IPV6_ADDR_LINKLOCAL) ||
	    rcu_access_pointer(np->opt))
		return -EOPNOTSUPP;

	fl6.flowi6_proto = IPPROTO_TCP;
	fl6.daddr = *addr;
	fl6.saddr = ipv6_addr_any(&sk->sk_v6_rcv_saddr) ? np->saddr :
							  sk->sk_v6_rcv_saddr;
	fl6.flowlabel = ip6_make_flowinfo(np->tclass, 0);
	fl6.flowi6_oif = sk->sk_bound_dev_if;
	fl6.flowi6_mark = sk->sk_mark;
	fl6.fl6_dport = sin6->sin6_port;
	fl6.flowi6_uid = sk->sk_uid;
	security_sk_classify_flow(sk, flowi6_to_flowi_common(&fl6));
	dst = ipv6_stub->ipv6_dst_lookup_flow(sock_net(sk), sk, &fl6, NULL);
	if (IS_ERR(dst))
		return PTR_ERR(dst);
	*ifindex = dst->dev->ifindex;
	dst_release(dst);
	flow->v6 = true;
	flow->saddr = *addr;
	flow->daddr = fl6.saddr;
	flow->sport = sin6->sin6_port;
	return 0;
}
#endif

static int fs_route(struct sock *sk, const struct sockaddr_storage *addr, int len,
		    struct fs_flow *flow, int *ifindex)
{
	const struct sockaddr_in *sin = (const struct sockaddr_in *)addr;

	/* AF_UNSPEC, and what connect() refuses. */
	if (len < (int)sizeof(addr->ss_family) || addr->ss_family != sk->sk_family)
		return -EOPNOTSUPP;
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6)
		return len < SIN6_LEN_RFC2133 ? -EOPNOTSUPP :
		       fs_route6(sk, (const struct sockaddr_in6 *)addr, flow, ifindex);
#endif
	return len < (int)sizeof(*sin) ? -EOPNOTSUPP :
	       fs_route4(sk, sin->sin_addr.s_addr, sin->sin_port, flow, ifindex);
}

/*
 * Whether connect() runs a program of the control group. It may choose another
 * source, which bpf_bind() refuses once there is a port, or another destination.
 */
static bool fs_connect_program(struct sock *sk)
{
#ifdef CONFIG_CGROUP_BPF
	if (sk->sk_family == AF_INET6)
		return cgroup_bpf_enabled(CGROUP_INET6_CONNECT) &&
		       cgroup_bpf_sock_enabled(sk, CGROUP_INET6_CONNECT);
	return cgroup_bpf_enabled(CGROUP_INET4_CONNECT) &&
	       cgroup_bpf_sock_enabled(sk, CGROUP_INET4_CONNECT);
#else
	return false;
#endif
}

/* Nothing has a claim on the socket's port, and connect() would choose one. */
static bool fs_port_wanted(const struct socket *sock, u32 flags)
{
	struct sock *sk = sock->sk;

	return sock->state == SS_UNCONNECTED && sk->sk_state == TCP_CLOSE &&
	       !(sk->sk_userlocks & SOCK_BINDPORT_LOCK) &&
	       (!inet_sk(sk)->inet_num || (flags & FASTSOCKET_PORT_REPLACE)) &&
	       !tcp_sk(sk)->repair && !inet_csk(sk)->icsk_ulp_ops &&
	       !fs_connect_program(sk);
}

static bool fs_is_tcp(const struct socket *sock)
{
	const struct sock *sk = sock->sk;

	return sk && (sk->sk_family == AF_INET || sk->sk_family == AF_INET6) &&
	       sock->type == SOCK_STREAM && sk->sk_protocol == IPPROTO_TCP;
}

static void fs_port_put(struct sock *sk)
{
	sk->sk_prot->put_port(sk);
	inet_sk(sk)->inet_sport = 0;
}

/**
 * fs_connect_port() - give a socket a core-local port before connect()
 * @sock: the socket
 * @addr: the destination
 * @len: its length
 * @flags: 0 or FASTSOCKET_PORT_REPLACE
 *
 * Context: process; takes the socket lock.
 * Return: 0 or an errno of &struct fastsocket_port.
 */
int fs_connect_port(struct socket *sock, struct sockaddr_storage *addr, int len,
		    u32 flags)
{
	struct sock *sk = sock->sk;
	int cpu = raw_smp_processor_id();
	struct fs_flow flow = {};
	struct fs_net *fn;
	int ifindex, err;

	if (!fs_is_tcp(sock))
		return -EPROTONOSUPPORT;
	flow.net = sock_net(sk);
	fn = fs_net(flow.net);
	if (!READ_ONCE(fn->receive_flow_deliver))
		return -EAGAIN;
	err = fs_hook(sock_net(sk));
	if (err)
		return err;

	lock_sock(sk);
	err = -EOPNOTSUPP;
	if (!fs_port_wanted(sock, flags))
		goto out;
	err = fs_route(sk, addr, len, &flow, &ifindex);
	if (err)
		goto out;
	/* Of an attempt before. */
	fs_established_forget(sk);
	flags &= inet_sk(sk)->inet_num ? FASTSOCKET_PORT_REPLACE : 0;
	if (flags)
		fs_port_put(sk);
	err = fs_port_choose(sk, &flow, ifindex, cpu);
	if (!err) {
		fs_established_connects(fn, sk, cpu, &flow);
		fs_count(fn, connect_local);
		goto out;
	}
	fs_count(fn, connect_stock);
	if (flags && !sk->sk_prot->get_port(sk, 0))
		inet_sk(sk)->inet_sport = htons(inet_sk(sk)->inet_num);
out:
	release_sock(sk);
	return err;
}

/**
 * fs_connect_release() - take the port back after a connect() that has failed
 * @sock: the socket
 *
 * Context: process; takes the socket lock.
 * Return: 0 or -EPROTONOSUPPORT.
 */
int fs_connect_release(struct socket *sock)
{
	struct sock *sk = sock->sk;

	if (!fs_is_tcp(sock))
		return -EPROTONOSUPPORT;
	lock_sock(sk);
	if (sk->sk_state == TCP_CLOSE) {
		fs_established_forget(sk);
		if (inet_csk(sk)->icsk_bind_hash &&
		    !(sk->sk_userlocks & SOCK_BINDPORT_LOCK))
			fs_port_put(sk);
	}
	release_sock(sk);
	return 0;
}
