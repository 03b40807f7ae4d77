// SPDX-License-Identifier: GPL-2.0
/*
 * Which SYN goes to which local listener. The listener is the one that the
 * stock lookup gives; it is replaced by this CPU's local listener made from
 * it, as TPROXY and bpf_sk_assign() do.
 */
#include <linux/netfilter.h>
#include <net/inet6_hashtables.h>
#include <net/inet_hashtables.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/tcp.h>
#include <net/xfrm.h>

#include "local.h"

static struct sock *fs_lookup_listener(const struct fs_packet *p)
{
	const struct tcphdr *th = p->th;
	int doff = __tcp_hdrlen(th);
	struct sock *sk;

	/* Selection programs expect the data to begin as in tcp_v4_rcv(). */
	__skb_pull(p->skb, p->thoff);
#if IS_ENABLED(CONFIG_IPV6)
	if (p->pf == NFPROTO_IPV6)
		sk = inet6_lookup_listener(p->net, fs_hashinfo(p->net), p->skb,
					   doff, &ipv6_hdr(p->skb)->saddr,
					   th->source,
					   &ipv6_hdr(p->skb)->daddr,
					   ntohs(th->dest), p->dif, p->sdif);
	else
#endif
		sk = __inet_lookup_listener(p->net, fs_hashinfo(p->net), p->skb,
					    doff, ip_hdr(p->skb)->saddr,
					    th->source, ip_hdr(p->skb)->daddr,
					    ntohs(th->dest), p->dif, p->sdif);
	__skb_push(p->skb, p->thoff);
	return sk;
}

/* What tcp_v4_rcv() asks before it looks at a TIME_WAIT. */
static bool fs_tw_policy(const struct fs_packet *p)
{
	/* To ask consumes what IPsec has left with the packet. */
	if (secpath_exists(p->skb))
		return false;
	return p->pf == NFPROTO_IPV6 ? xfrm6_policy_check(NULL, XFRM_POLICY_IN, p->skb) :
				       xfrm4_policy_check(NULL, XFRM_POLICY_IN, p->skb);
}

/*
 * Whether the SYN may take over a TIME_WAIT tuple: by a later time stamp, which
 * also tells what is left of the connection before from the new one's. Without,
 * tcp_timewait_state_process() chooses the initial sequence number beyond the
 * former's, and so it does with anything else that is less plain.
 */
static bool fs_tw_recyclable(const struct fs_packet *p,
			     const struct inet_timewait_sock *tw)
{
	const struct tcp_timewait_sock *tcptw = tcp_twsk((struct sock *)tw);
	struct tcp_options_received opt = {};

	if (READ_ONCE(tw->tw_substate) != TCP_TIME_WAIT || !READ_ONCE(tcptw->tw_ts_recent_stamp))
		return false;
	tcp_parse_options(p->net, p->skb, &opt, 0, NULL);
	if (!opt.saw_tstamp || (s32)(opt.rcv_tsval - READ_ONCE(tcptw->tw_ts_recent)) <= 0)
		return false;

	return fs_tw_policy(p) &&
	       !nf_checksum(p->skb, NF_INET_LOCAL_IN, p->thoff, IPPROTO_TCP, p->pf);
}

/* Whether the tuple is free for a new connection; may end a TIME_WAIT. */
static bool fs_tuple_free(const struct fs_packet *p)
{
	struct sock *sk = fs_established_stock(p);

	if (!sk)
		return true;
	if (sk->sk_state == TCP_TIME_WAIT && fs_tw_recyclable(p, inet_twsk(sk))) {
		inet_twsk_deschedule_put(inet_twsk(sk));
		return true;
	}
	sock_gen_put(sk);
	return false;
}

static void fs_assign(const struct fs_packet *p, const struct fs_local *l)
{
	skb_orphan(p->skb);
	/* SOCK_RCU_FREE: needs no reference, see sk_is_refcounted(). */
	p->skb->sk = l->sk;
	p->skb->destructor = sock_pfree;
}

/*
 * Once a local listener answers with SYN cookies, their ACKs may come to any
 * CPU and reach the parent: it accepts them only if it has overflowed itself.
 */
static void fs_note_flood(struct fs_net *fn, const struct fs_packet *p,
			  const struct fs_local *l)
{
	u8 cookies = READ_ONCE(p->net->ipv4.sysctl_tcp_syncookies);
	/* Room for the SYNs that other CPUs are adding. */
	int qlen = inet_csk_reqsk_queue_len(l->sk) + 16;

	if (!cookies ||
	    (cookies != 2 && qlen < (int)READ_ONCE(l->sk->sk_max_ack_backlog)))
		return;
	tcp_synq_overflow(l->parent);
	if (time_after(jiffies + HZ, READ_ONCE(fn->flood_until) - TCP_SYNCOOKIE_VALID))
		WRITE_ONCE(fn->flood_until, jiffies + 2 * HZ + TCP_SYNCOOKIE_VALID);
}

/**
 * fs_syn() - give a SYN to this CPU's local listener
 * @fn: the namespace's state
 * @p: the packet, its TCP header pulled; without a socket or with a TIME_WAIT
 *
 * Context: softirq, RCU read side.
 */
void fs_syn(struct fs_net *fn, const struct fs_packet *p)
{
	struct sock *parent = fs_lookup_listener(p);
	struct fs_local *l;

	if (!parent || READ_ONCE(parent->sk_state) != TCP_LISTEN)
		return;
	l = fs_listen_find(parent);
	if (l && fs_tuple_free(p)) {
		fs_note_flood(fn, p, l);
		fs_assign(p, l);
		fs_count(fn, syn_local);
		fs_count(fn, passive_local);
	} else if (fs_listen_anywhere(parent)) {
		fs_count(fn, syn_slow);
	}
}

/**
 * fs_cookie() - give an ACK to the local listener whose SYN cookie it may complete
 * @fn: the namespace's state
 * @p: the packet, its TCP header pulled
 *
 * Context: softirq, RCU read side.
 */
void fs_cookie(struct fs_net *fn, const struct fs_packet *p)
{
	struct sock *sk = fs_established_stock(p);
	struct fs_local *l;

	if (sk) {
		sock_gen_put(sk);
		return;
	}
	sk = fs_lookup_listener(p);
	if (!sk || READ_ONCE(sk->sk_state) != TCP_LISTEN)
		return;
	l = fs_listen_find(sk);
	if (l && !tcp_synq_no_recent_overflow(l->sk)) {
		fs_assign(p, l);
		fs_count(fn, cookies);
	}
}
