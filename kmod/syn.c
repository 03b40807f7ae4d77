// SPDX-License-Identifier: GPL-2.0
/*
 * Which SYN goes to which local listener: a netfilter hook that runs last in
 * LOCAL_IN. There the packet is known to be for this host, has been rewritten
 * and admitted by every rule, and its listener is the one the stock lookup
 * gives; the hook replaces that by this CPU's local listener made from it, as
 * TPROXY and bpf_sk_assign() do. Whatever it does not touch goes the stock way.
 */
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <net/inet6_hashtables.h>
#include <net/inet_hashtables.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/tcp.h>

#include "local.h"

/* A packet and what both lookups need of it. */
struct fs_packet {
	struct net *net;
	struct sk_buff *skb;
	const struct tcphdr *th;
	int thoff;
	int dif, sdif;
	u8 pf;
};

static struct inet_hashinfo *fs_hashinfo(const struct net *net)
{
	return net->ipv4.tcp_death_row.hashinfo;
}

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

static struct sock *fs_lookup_established(const struct fs_packet *p)
{
	const struct tcphdr *th = p->th;

#if IS_ENABLED(CONFIG_IPV6)
	if (p->pf == NFPROTO_IPV6)
		return __inet6_lookup_established(p->net, fs_hashinfo(p->net),
						  &ipv6_hdr(p->skb)->saddr,
						  th->source,
						  &ipv6_hdr(p->skb)->daddr,
						  ntohs(th->dest), p->dif,
						  p->sdif);
#endif
	return __inet_lookup_established(p->net, fs_hashinfo(p->net),
					 ip_hdr(p->skb)->saddr, th->source,
					 ip_hdr(p->skb)->daddr, ntohs(th->dest),
					 p->dif, p->sdif);
}

/*
 * Whether the SYN may take over a TIME_WAIT tuple, by the same rules as
 * tcp_timewait_state_process(); anything less plain is left to that.
 */
static bool fs_tw_recyclable(const struct fs_packet *p,
			     const struct inet_timewait_sock *tw)
{
	const struct tcp_timewait_sock *tcptw = tcp_twsk((struct sock *)tw);
	struct tcp_options_received opt = {};
	int stamp = READ_ONCE(tcptw->tw_ts_recent_stamp);
	u32 seq = ntohl(p->th->seq);

	if (READ_ONCE(tw->tw_substate) != TCP_TIME_WAIT)
		return false;
	if (stamp && p->th->doff > sizeof(*p->th) / 4) {
		tcp_parse_options(p->net, p->skb, &opt, 0, NULL);
		if (opt.saw_tstamp) {
			opt.ts_recent = READ_ONCE(tcptw->tw_ts_recent);
			opt.ts_recent_stamp = stamp;
			if (tcp_paws_reject(&opt, 0))
				return false;
		}
	}
	if (!after(seq, READ_ONCE(tcptw->tw_rcv_nxt)) &&
	    !(opt.saw_tstamp && (s32)(opt.ts_recent - opt.rcv_tsval) < 0))
		return false;

	return !nf_checksum(p->skb, NF_INET_LOCAL_IN, p->thoff, IPPROTO_TCP, p->pf);
}

/* Whether the tuple is free for a new connection; may end a TIME_WAIT. */
static bool fs_tuple_free(const struct fs_packet *p)
{
	struct sock *sk = fs_lookup_established(p);

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

static void fs_syn(struct fs_net *fn, const struct fs_packet *p)
{
	struct sock *parent = fs_lookup_listener(p);
	struct fs_local *l;

	if (!parent || parent->sk_state != TCP_LISTEN)
		return;
	l = fs_listen_find(parent);
	if (l && fs_tuple_free(p)) {
		fs_note_flood(fn, p, l);
		fs_assign(p, l);
		fs_count(fn, syn_local);
	} else if (fs_listen_anywhere(parent)) {
		fs_count(fn, syn_slow);
	}
}

/* An ACK may complete a SYN cookie of this CPU's local listener. */
static void fs_cookie(struct fs_net *fn, const struct fs_packet *p)
{
	struct sock *sk = fs_lookup_established(p);
	struct fs_local *l;

	if (sk) {
		sock_gen_put(sk);
		return;
	}
	sk = fs_lookup_listener(p);
	if (!sk || sk->sk_state != TCP_LISTEN)
		return;
	l = fs_listen_find(sk);
	if (l && !tcp_synq_no_recent_overflow(l->sk)) {
		fs_assign(p, l);
		fs_count(fn, cookies);
	}
}

static unsigned int fs_local_in(void *priv, struct sk_buff *skb,
				const struct nf_hook_state *state)
{
	struct fs_packet p = { .net = state->net, .skb = skb, .pf = state->pf };
	struct fs_net *fn = fs_net(state->net);
	struct tcphdr buf;

	/* Established, or somebody else's choice; but early demux finds TIME_WAIT. */
	if ((skb->sk && skb->sk->sk_state != TCP_TIME_WAIT) ||
	    skb->pkt_type != PACKET_HOST)
		return NF_ACCEPT;
	if (!READ_ONCE(fn->live) || !READ_ONCE(fn->listen_spawn))
		return NF_ACCEPT;

	if (state->pf == NFPROTO_IPV4) {
		if (ip_hdr(skb)->protocol != IPPROTO_TCP ||
		    ip_is_fragment(ip_hdr(skb)))
			return NF_ACCEPT;
		p.thoff = ip_hdrlen(skb);
	} else {
		/* With extension headers: the stock way. */
		if (ipv6_hdr(skb)->nexthdr != IPPROTO_TCP)
			return NF_ACCEPT;
		p.thoff = sizeof(struct ipv6hdr);
	}
	p.th = skb_header_pointer(skb, p.thoff, sizeof(buf), &buf);
	if (!p.th || p.th->doff < sizeof(buf) / 4 || p.th->rst || p.th->fin)
		return NF_ACCEPT;
	if (p.th->syn == p.th->ack)
		return NF_ACCEPT;
	if (p.th->ack && time_after(jiffies, READ_ONCE(fn->flood_until)))
		return NF_ACCEPT;

	if (!pskb_may_pull(skb, p.thoff + p.th->doff * 4))
		return NF_ACCEPT;
	p.th = (const struct tcphdr *)(skb->data + p.thoff);
	if (state->pf == NFPROTO_IPV4) {
		p.dif = inet_iif(skb);
		p.sdif = inet_sdif(skb);
	} else {
		p.dif = inet6_iif(skb);
		p.sdif = inet6_sdif(skb);
	}

	if (p.th->syn)
		fs_syn(fn, &p);
	else
		fs_cookie(fn, &p);
	return NF_ACCEPT;
}

static const struct nf_hook_ops fs_hooks[] = {
	{
		.hook = fs_local_in,
		.pf = NFPROTO_IPV4,
		.hooknum = NF_INET_LOCAL_IN,
		.priority = NF_IP_PRI_LAST,
	},
#if IS_ENABLED(CONFIG_IPV6)
	{
		.hook = fs_local_in,
		.pf = NFPROTO_IPV6,
		.hooknum = NF_INET_LOCAL_IN,
		.priority = NF_IP6_PRI_LAST,
	},
#endif
};

/* With a namespace's first local listener, so that others pay nothing. */
int fs_syn_hook(struct net *net)
{
	return nf_register_net_hooks(net, fs_hooks, ARRAY_SIZE(fs_hooks));
}

void fs_syn_unhook(struct net *net)
{
	nf_unregister_net_hooks(net, fs_hooks, ARRAY_SIZE(fs_hooks));
}
