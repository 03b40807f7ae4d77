// SPDX-License-Identifier: GPL-2.0
/*
 * The two netfilter hooks through which packets come in.
 *
 * Last in PRE_ROUTING, a packet of a connection that this CPU owns gets its
 * socket and route from the CPU's table. Last, because then every rule has
 * had its chance to rewrite the packet or to assign it (TPROXY), and what
 * another one has assigned is left alone.
 *
 * Last in LOCAL_IN, a SYN gets its local listener: there it is known to be for
 * this host and admitted by every rule. Packets of connections that the first
 * hook did not find are counted there, too.
 */
#include <linux/netfilter.h>
#include <linux/netfilter_bridge.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <net/dst_metadata.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/tcp.h>

#include "local.h"

/* False: not TCP, or not plain. */
static bool fs_packet(struct fs_packet *p, struct sk_buff *skb,
		      const struct nf_hook_state *state)
{
	if (skb->pkt_type != PACKET_HOST)
		return false;
	p->net = state->net;
	p->skb = skb;
	p->pf = state->pf;
	if (state->pf == NFPROTO_IPV4) {
		if (ip_hdr(skb)->protocol != IPPROTO_TCP ||
		    ip_is_fragment(ip_hdr(skb)))
			return false;
		p->thoff = ip_hdrlen(skb);
		p->dif = inet_iif(skb);
		p->sdif = inet_sdif(skb);
	} else {
		/* With extension headers: the stock way. */
		if (ipv6_hdr(skb)->nexthdr != IPPROTO_TCP)
			return false;
		p->thoff = sizeof(struct ipv6hdr);
		p->dif = inet6_iif(skb);
		p->sdif = inet6_sdif(skb);
	}
	if (unlikely(!pskb_may_pull(skb, p->thoff + sizeof(*p->th))))
		return false;
	p->th = (const struct tcphdr *)(skb->data + p->thoff);
	return p->th->doff >= sizeof(*p->th) / 4;
}

/* The same conditions as early demux, which this precedes. */
static void fs_demux(struct fs_net *fn, struct sk_buff *skb,
		     const struct nf_hook_state *state)
{
	struct fs_packet p;

	if (skb->sk || !READ_ONCE(fn->filed) || !READ_ONCE(fn->established))
		return;
	/* A VRF's packets come again, as the VRF's; a bridge's are not ours yet. */
	if (netif_is_l3_slave(skb->dev) || nf_bridge_in_prerouting(skb))
		return;
	/* Loopback brings its route; a tunnel's metadata is none. */
	if (skb_dst(skb) && !skb_valid_dst(skb))
		return;
	if (!fs_packet(&p, skb, state))
		return;
	/* A SYN is hardly ever of a connection; the stock lookup knows. */
	if (p.th->syn && !p.th->ack && !p.th->rst)
		return;
	if (state->pf == NFPROTO_IPV4)
		p.dif = skb->skb_iif;
	fs_established_find(fn, &p);
}

static void fs_deliver(struct fs_net *fn, struct sk_buff *skb,
		       const struct nf_hook_state *state)
{
	struct fs_packet p;

	/* fs_established_find() has assigned and counted it. (UDP's early demux, up to 6.8.) */
	if (skb->sk && skb->destructor == sock_efree && skb->sk->sk_protocol == IPPROTO_TCP) {
		if (fs_established_same(skb, state->pf))
			return;
		skb_orphan(skb);
	}
	if (!fs_packet(&p, skb, state))
		return;
	/* The first ACK of all comes before anything has been filed. */
	if ((READ_ONCE(fn->filed) || READ_ONCE(fn->live)) &&
	    !(p.th->syn && !p.th->ack))
		fs_established_count(fn, &p);

	/* Established, or somebody else's choice; but early demux finds TIME_WAIT. */
	if (skb->sk && READ_ONCE(skb->sk->sk_state) != TCP_TIME_WAIT)
		return;
	if (!READ_ONCE(fn->live) || !READ_ONCE(fn->listen_spawn))
		return;
	if (p.th->rst || p.th->fin || p.th->syn == p.th->ack)
		return;
	if (p.th->ack && time_after(jiffies, READ_ONCE(fn->flood_until)))
		return;

	if (!pskb_may_pull(skb, p.thoff + p.th->doff * 4))
		return;
	p.th = (const struct tcphdr *)(skb->data + p.thoff);
	if (p.th->syn)
		fs_syn(fn, &p);
	else
		fs_cookie(fn, &p);
}

typedef void fs_hook_fn(struct fs_net *fn, struct sk_buff *skb,
			const struct nf_hook_state *state);

/* From an NFQUEUE, a packet comes in process context. */
static __always_inline unsigned int fs_run(fs_hook_fn *hook, void *priv, struct sk_buff *skb,
					   const struct nf_hook_state *state)
{
	bool softirq = in_softirq();

	if (unlikely(!softirq))
		local_bh_disable();
	hook(priv, skb, state);
	if (unlikely(!softirq))
		local_bh_enable();
	return NF_ACCEPT;
}

static unsigned int fs_pre_routing(void *priv, struct sk_buff *skb,
				   const struct nf_hook_state *state)
{
	return fs_run(fs_demux, priv, skb, state);
}

static unsigned int fs_local_in(void *priv, struct sk_buff *skb,
				const struct nf_hook_state *state)
{
	return fs_run(fs_deliver, priv, skb, state);
}

static const struct nf_hook_ops fs_hooks[FS_HOOKS] = {
	{
		.hook = fs_pre_routing,
		.pf = NFPROTO_IPV4,
		.hooknum = NF_INET_PRE_ROUTING,
		.priority = NF_IP_PRI_LAST,
	},
	{
		.hook = fs_local_in,
		.pf = NFPROTO_IPV4,
		.hooknum = NF_INET_LOCAL_IN,
		.priority = NF_IP_PRI_LAST,
	},
#if IS_ENABLED(CONFIG_IPV6)
	{
		.hook = fs_pre_routing,
		.pf = NFPROTO_IPV6,
		.hooknum = NF_INET_PRE_ROUTING,
		.priority = NF_IP6_PRI_LAST,
	},
	{
		.hook = fs_local_in,
		.pf = NFPROTO_IPV6,
		.hooknum = NF_INET_LOCAL_IN,
		.priority = NF_IP6_PRI_LAST,
	},
#endif
};

/**
 * fs_hook() - let a namespace's packets come through here
 * @net: the namespace
 *
 * Called before its first local listener or core-local port, so that the
 * others pay nothing; calls after the first do nothing.
 *
 * Context: process.
 * Return: 0 or -ENOMEM.
 */
int fs_hook(struct net *net)
{
	struct fs_net *fn = fs_net(net);
	int i, err = 0;

	if (READ_ONCE(fn->hooked))
		return 0;
	mutex_lock(&fs_mutex);
	if (!fn->hooked) {
		memcpy(fn->hooks, fs_hooks, sizeof(fs_hooks));
		for (i = 0; i < FS_HOOKS; i++)
			fn->hooks[i].priv = fn;
		err = nf_register_net_hooks(net, fn->hooks, FS_HOOKS);
		WRITE_ONCE(fn->hooked, !err);
	}
	mutex_unlock(&fs_mutex);
	return err;
}

/* When the namespace or the module goes. */
void fs_unhook(struct net *net)
{
	struct fs_net *fn = fs_net(net);

	if (fn->hooked)
		nf_unregister_net_hooks(net, fn->hooks, FS_HOOKS);
}
