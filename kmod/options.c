// SPDX-License-Identifier: GPL-2.0
/*
 * The parent's socket options on a local listener, so that what is accepted
 * from it is as if accepted from the parent.
 *
 * A listener's options matter in three ways: it uses some itself (backlog,
 * deferred accept, Fast Open), its children are born as copies of it, and its
 * bind conflicts go by some. All three want the same values here.
 */
#include <linux/cgroup.h>
#include <linux/security.h>
#include <net/inet_connection_sock.h>
#include <net/tcp.h>

#include "local.h"

/* Set by setsockopt() and inherited; the others are state. */
#define FS_SOCK_FLAGS	(BIT(SOCK_URGINLINE) | BIT(SOCK_KEEPOPEN) | \
			 BIT(SOCK_LINGER) | BIT(SOCK_BROADCAST) | \
			 BIT(SOCK_LOCALROUTE) | BIT(SOCK_DBG) | \
			 BIT(SOCK_ZEROCOPY) | BIT(SOCK_RXQ_OVFL) | \
			 BIT(SOCK_SELECT_ERR_QUEUE) | BIT(SOCK_NOFCS) | \
			 BIT(SOCK_TSTAMP_NEW))

#define FS_MD5_KEYS_MAX	64

/*
 * Whether a listener's options can be had by a local one: -EOPNOTSUPP where one
 * of them lives in memory that a module cannot share. Then the listener serves on
 * its own, as without fastsocket.
 */
static int fs_options_check(const struct sock *sk)
{
	const struct inet_connection_sock *icsk = inet_csk(sk);

	if (icsk->icsk_ulp_ops || sk_is_mptcp(sk) || fs_has_tcp_ao(sk) ||
	    tcp_sk(sk)->repair || rcu_access_pointer(sk->sk_filter) ||
	    READ_ONCE(sk->sk_user_data) ||
	    sk->sk_flags & SK_FLAGS_TIMESTAMP)
		return -EOPNOTSUPP;
#ifdef CONFIG_BPF_SYSCALL
	if (rcu_access_pointer(sk->sk_bpf_storage))
		return -EOPNOTSUPP;
#endif
#ifdef CONFIG_XFRM
	if (rcu_access_pointer(sk->sk_policy[0]) ||
	    rcu_access_pointer(sk->sk_policy[1]))
		return -EOPNOTSUPP;
#endif
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6 && rcu_access_pointer(inet6_sk(sk)->opt))
		return -EOPNOTSUPP;
#endif
	return 0;
}

/*
 * Later kernels set many options without the socket's lock, and all of them are
 * looked at without it.
 */
#define FS_COPY(to, from, option)	WRITE_ONCE((to)->option, READ_ONCE((from)->option))

static void fs_copy_sock(struct sock *to, const struct sock *from)
{
	to->sk_flags = (to->sk_flags & ~FS_SOCK_FLAGS) |
		       (from->sk_flags & FS_SOCK_FLAGS);
	FS_COPY(to, from, sk_lingertime);
	to->sk_rcvbuf = from->sk_rcvbuf;
	to->sk_sndbuf = from->sk_sndbuf;
	to->sk_userlocks = from->sk_userlocks;
	FS_COPY(to, from, sk_rcvlowat);
	FS_COPY(to, from, sk_rcvtimeo);
	FS_COPY(to, from, sk_sndtimeo);
	FS_COPY(to, from, sk_priority);
	FS_COPY(to, from, sk_mark);
	FS_COPY(to, from, sk_max_pacing_rate);
	FS_COPY(to, from, sk_pacing_rate);
	FS_COPY(to, from, sk_pacing_status);
	FS_COPY(to, from, sk_tsflags);
	FS_COPY(to, from, sk_bind_phc);
	FS_COPY(to, from, sk_txrehash);
	to->sk_uid = from->sk_uid;
	FS_COPY(to, from, sk_bound_dev_if);
#ifdef CONFIG_NET_RX_BUSY_POLL
	FS_COPY(to, from, sk_ll_usec);
	FS_COPY(to, from, sk_prefer_busy_poll);
	FS_COPY(to, from, sk_busy_poll_budget);
#endif
}

/*
 * Programs of the parent's control group judge what comes for it, not those of
 * the group that the caller is in. As cgroup_sk_clone() and cgroup_sk_free() have
 * it, which no module can call.
 */
static void fs_copy_cgroup(struct sock *to, struct sock *from)
{
#ifdef CONFIG_SOCK_CGROUP_DATA
	struct sock_cgroup_data *t = &to->sk_cgrp_data, *f = &from->sk_cgrp_data;
	struct cgroup *old = sock_cgroup_ptr(t), *new = sock_cgroup_ptr(f);

	sock_cgroup_set_classid(t, sock_cgroup_classid(f));
	sock_cgroup_set_prioidx(t, sock_cgroup_prioidx(f));
	if (old == new)
		return;
	cgroup_get(new);
	cgroup_bpf_get(new);
	WRITE_ONCE(t->cgroup, new);
	cgroup_bpf_put(old);
	cgroup_put(old);
#endif
}

static void fs_copy_inet(struct sock *to, const struct sock *from)
{
	struct inet_sock *t = inet_sk(to);
	const struct inet_sock *f = inet_sk(from);

	FS_COPY(t, f, tos);
	FS_COPY(t, f, uc_ttl);
	FS_COPY(t, f, min_ttl);
	FS_COPY(t, f, mc_ttl);
	FS_COPY(t, f, pmtudisc);
	FS_COPY(t, f, uc_index);
	FS_COPY(t, f, mc_index);
	FS_COPY(t, f, mc_addr);
	fs_copy_inet_flags(to, from);

#if IS_ENABLED(CONFIG_IPV6)
	if (from->sk_family == AF_INET6) {
		struct ipv6_pinfo *t6 = inet6_sk(to);
		const struct ipv6_pinfo *f6 = inet6_sk(from);

		t6->tclass = f6->tclass;
		FS_COPY(t6, f6, min_hopcount);
		t6->pmtudisc = f6->pmtudisc;
		t6->srcprefs = f6->srcprefs;
		t6->frag_size = f6->frag_size;
		FS_COPY(t6, f6, ucast_oif);
		FS_COPY(t6, f6, mcast_oif);
		t6->sticky_pktinfo = f6->sticky_pktinfo;
		t6->rxopt.all = f6->rxopt.all;
		fs_copy_inet6_flags(to, from);
	}
#endif
}

static void fs_copy_tcp(struct sock *to, const struct sock *from)
{
	struct inet_connection_sock *ti = inet_csk(to);
	const struct inet_connection_sock *fi = inet_csk(from);
	struct tcp_sock *t = tcp_sk(to);
	const struct tcp_sock *f = tcp_sk(from);

	FS_COPY(ti, fi, icsk_syn_retries);
	FS_COPY(ti, fi, icsk_user_timeout);
	FS_COPY(ti, fi, icsk_rto_min);
	FS_COPY(ti, fi, icsk_delack_max);
	ti->icsk_ack.pingpong = fi->icsk_ack.pingpong;
	FS_COPY(fs_queue(to), fs_queue(from), rskq_defer_accept);
	FS_COPY(fs_queue(to), fs_queue(from), fastopenq.max_qlen);

	t->nonagle = f->nonagle;
	t->thin_lto = f->thin_lto;
	t->recvmsg_inq = f->recvmsg_inq;
	t->fastopen_no_cookie = f->fastopen_no_cookie;
	t->save_syn = f->save_syn;
	FS_COPY(t, f, keepalive_time);
	FS_COPY(t, f, keepalive_intvl);
	FS_COPY(t, f, keepalive_probes);
	FS_COPY(t, f, linger2);
	FS_COPY(t, f, notsent_lowat);
	FS_COPY(t, f, window_clamp);
	t->rx_opt.user_mss = f->rx_opt.user_mss;
	t->tcp_tx_delay = f->tcp_tx_delay;
#ifdef CONFIG_BPF
	t->bpf_sock_ops_cb_flags = f->bpf_sock_ops_cb_flags;
#endif
#if IS_ENABLED(CONFIG_SMC)
	t->syn_smc = f->syn_smc;
#endif
}

/*
 * Both sockets hold a module reference on their algorithm. One made by BPF
 * has no module, and its reference cannot be had from here.
 */
static int fs_copy_congestion(struct sock *to, const struct sock *from)
{
	struct inet_connection_sock *icsk = inet_csk(to);
	const struct tcp_congestion_ops *old = icsk->icsk_ca_ops;
	const struct tcp_congestion_ops *new = inet_csk(from)->icsk_ca_ops;

	if (new != old) {
		if (new->owner == BPF_MODULE_OWNER ||
		    old->owner == BPF_MODULE_OWNER || !try_module_get(new->owner))
			return -EOPNOTSUPP;
		WRITE_ONCE(icsk->icsk_ca_ops, new);
		module_put(old->owner);
	}
	icsk->icsk_ca_setsockopt = inet_csk(from)->icsk_ca_setsockopt;
	return 0;
}

struct fs_keys {
#ifdef CONFIG_TCP_MD5SIG
	struct tcp_md5sig md5[FS_MD5_KEYS_MAX];
#endif
	unsigned int n_md5;
	u8 fastopen[TCP_FASTOPEN_KEY_BUF_LENGTH];
	unsigned int fastopen_len;
};

/* What setsockopt(TCP_MD5SIG_EXT) would take to set @sk's keys. */
static int fs_keys_get_md5(struct fs_keys *keys, const struct sock *sk)
{
#ifdef CONFIG_TCP_MD5SIG
	const struct tcp_md5sig_info *info;
	const struct tcp_md5sig_key *key;

	keys->n_md5 = 0;
	info = rcu_dereference(tcp_sk(sk)->md5sig_info);
	if (!info)
		return 0;
	hlist_for_each_entry_rcu(key, &info->head, node) {
		struct tcp_md5sig *md5 = &keys->md5[keys->n_md5];

		if (keys->n_md5++ == FS_MD5_KEYS_MAX)
			return -EOPNOTSUPP;
		memset(md5, 0, sizeof(*md5));
		md5->tcpm_flags = TCP_MD5SIG_FLAG_PREFIX;
		md5->tcpm_prefixlen = key->prefixlen;
		if (key->flags & TCP_MD5SIG_FLAG_IFINDEX) {
			md5->tcpm_flags |= TCP_MD5SIG_FLAG_IFINDEX;
			md5->tcpm_ifindex = key->l3index;
		}
		md5->tcpm_keylen = key->keylen;
		memcpy(md5->tcpm_key, key->key, key->keylen);
		if (sk->sk_family == AF_INET) {
			struct sockaddr_in *sin = (void *)&md5->tcpm_addr;

			sin->sin_family = AF_INET;
			sin->sin_addr = key->addr.a4;
#if IS_ENABLED(CONFIG_IPV6)
		} else {
			struct sockaddr_in6 *sin6 = (void *)&md5->tcpm_addr;

			sin6->sin6_family = AF_INET6;
			/* Of a mapped address, the prefix is that of IPv4. */
			if (key->family == AF_INET)
				ipv6_addr_set_v4mapped(key->addr.a4.s_addr,
						       &sin6->sin6_addr);
			else
				sin6->sin6_addr = key->addr.a6;
#endif
		}
	}
#endif
	return 0;
}

static void fs_keys_get_fastopen(struct fs_keys *keys, const struct sock *sk)
{
	const struct tcp_fastopen_context *ctx;
	int i;

	keys->fastopen_len = 0;
	ctx = rcu_dereference(fs_queue(sk)->fastopenq.ctx);
	for (i = 0; ctx && i < ctx->num; i++) {
		/* As tcp_fastopen_get_cipher() gives them. */
		put_unaligned_le64(ctx->key[i].key[0],
				   keys->fastopen + keys->fastopen_len);
		put_unaligned_le64(ctx->key[i].key[1],
				   keys->fastopen + keys->fastopen_len + 8);
		keys->fastopen_len += TCP_FASTOPEN_KEY_LENGTH;
	}
}

static bool fs_has_keys(const struct sock *sk)
{
#ifdef CONFIG_TCP_MD5SIG
	if (rcu_access_pointer(tcp_sk(sk)->md5sig_info))
		return true;
#endif
	return rcu_access_pointer(fs_queue(sk)->fastopenq.ctx);
}

static bool fs_keys_have(const struct fs_keys *keys, unsigned int i,
			 const struct fs_keys *in)
{
#ifdef CONFIG_TCP_MD5SIG
	const struct tcp_md5sig *a = &keys->md5[i];
	unsigned int j;

	for (j = 0; j < in->n_md5; j++) {
		const struct tcp_md5sig *b = &in->md5[j];

		if (a->tcpm_prefixlen == b->tcpm_prefixlen &&
		    a->tcpm_flags == b->tcpm_flags &&
		    a->tcpm_ifindex == b->tcpm_ifindex &&
		    !memcmp(&a->tcpm_addr, &b->tcpm_addr, sizeof(a->tcpm_addr)))
			return true;
	}
#endif
	return false;
}

/* Keys hang off the socket, so they go the way an application sets them. */
static int fs_copy_keys(struct sock *to, struct sock *from)
{
	struct fs_keys *want, *have;
	unsigned int i;
	int err;

	if (!fs_has_keys(from) && !fs_has_keys(to))
		return 0;
	want = kmalloc_array(2, sizeof(*want), GFP_KERNEL_ACCOUNT);
	if (!want)
		return -ENOMEM;
	have = want + 1;

	rcu_read_lock();
	err = fs_keys_get_md5(want, from) ?: fs_keys_get_md5(have, to);
	fs_keys_get_fastopen(want, from);
	rcu_read_unlock();

#ifdef CONFIG_TCP_MD5SIG
	for (i = 0; !err && i < want->n_md5; i++)
		err = fs_listen_setsockopt(to, TCP_MD5SIG_EXT, &want->md5[i],
					   sizeof(want->md5[i]));
	for (i = 0; !err && i < have->n_md5; i++) {
		if (fs_keys_have(have, i, want))
			continue;
		have->md5[i].tcpm_keylen = 0;
		err = fs_listen_setsockopt(to, TCP_MD5SIG_EXT, &have->md5[i],
					   sizeof(have->md5[i]));
	}
#endif
	if (!err && want->fastopen_len)
		err = fs_listen_setsockopt(to, TCP_FASTOPEN_KEY, want->fastopen,
					   want->fastopen_len);
	kfree_sensitive(want);
	return err;
}

/**
 * fs_options_copy() - give a local listener its parent's options
 * @to: the local listener
 * @from: the parent
 *
 * Context: process; takes both socket locks, the parent's first.
 * Return: 0, -EINVAL as fs_listen_lock(), -EOPNOTSUPP as fs_options_check(), or
 * -ENOMEM.
 */
int fs_options_copy(struct sock *to, struct sock *from)
{
	int err = fs_listen_lock(to, from);

	if (err)
		return err;
	err = fs_options_check(from);
	if (!err)
		err = fs_copy_congestion(to, from);
	if (!err) {
		fs_copy_sock(to, from);
		fs_copy_cgroup(to, from);
		fs_copy_inet(to, from);
		fs_copy_tcp(to, from);
		security_sk_clone(from, to);
	}
	fs_listen_unlock(to, from);

	return err ?: fs_copy_keys(to, from);
}
