// SPDX-License-Identifier: GPL-2.0
/* Which rx queue a packet goes to: n-tuple filters, then Toeplitz hash. */

#include <linux/etherdevice.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <net/ip.h>

#include "rssnic.h"

/* As published in Microsoft's RSS specification. */
static u32 rssnic_toeplitz(const u8 *key, const void *data, unsigned int len)
{
	u32 window = get_unaligned_be32(key), hash = 0;
	const u8 *byte = data;
	int bit;

	for (key += sizeof(window); len--; key++, byte++) {
		for (bit = 7; bit >= 0; bit--) {
			if (*byte & BIT(bit))
				hash ^= window;
			window = window << 1 | (*key >> bit & 1);
		}
	}
	return hash;
}

static enum rssnic_type rssnic_l4_type(u8 proto, bool ipv6)
{
	switch (proto) {
	case IPPROTO_TCP:
		return ipv6 ? RSSNIC_TCP6 : RSSNIC_TCP4;
	case IPPROTO_UDP:
		return ipv6 ? RSSNIC_UDP6 : RSSNIC_UDP4;
	}
	return ipv6 ? RSSNIC_OTHER6 : RSSNIC_OTHER4;
}

/*
 * Ports are looked for as simple hardware does: in whole IPv4 packets, and
 * right after the fixed IPv6 header.
 */
static void rssnic_dissect(const struct sk_buff *skb, struct rssnic_flow *flow)
{
	const struct ethhdr *eth = (const struct ethhdr *)skb->data;
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	} buf;
	const struct ipv6hdr *ip6;
	const struct iphdr *ip;
	unsigned int offset = ETH_HLEN;

	flow->type = RSSNIC_NOT_IP;
	flow->addr_words = 0;
	if (eth->h_proto == htons(ETH_P_IP)) {
		ip = skb_header_pointer(skb, offset, sizeof(*ip), &buf.v4);
		if (!ip || ip->version != 4 || ip->ihl < 5)
			return;
		flow->type = RSSNIC_OTHER4;
		if (!ip_is_fragment(ip))
			flow->type = rssnic_l4_type(ip->protocol, false);
		flow->word[0] = ip->saddr;
		flow->word[1] = ip->daddr;
		flow->addr_words = 2;
		offset += ip->ihl * 4;
	} else if (eth->h_proto == htons(ETH_P_IPV6)) {
		ip6 = skb_header_pointer(skb, offset, sizeof(*ip6), &buf.v6);
		if (!ip6 || ip6->version != 6)
			return;
		flow->type = rssnic_l4_type(ip6->nexthdr, true);
		memcpy(&flow->word[0], &ip6->saddr, sizeof(ip6->saddr));
		memcpy(&flow->word[4], &ip6->daddr, sizeof(ip6->daddr));
		flow->addr_words = 8;
		offset += sizeof(*ip6);
	}
	if (flow->type < RSSNIC_L4_TYPES &&
	    skb_copy_bits(skb, offset, &flow->word[flow->addr_words], sizeof(__be32)))
		flow->type = flow->addr_words == 2 ? RSSNIC_OTHER4 : RSSNIC_OTHER6;
}

static const struct rssnic_rule *rssnic_match(const struct rssnic_rules *rules,
					      const struct rssnic_flow *flow)
{
	unsigned int i, word;

	for (i = 0; i < rules->count; i++) {
		const struct rssnic_rule *rule = rules->rule[i];
		__be32 differs = 0;

		if (rule->type != flow->type)
			continue;
		for (word = 0; word <= flow->addr_words; word++)
			differs |= (flow->word[word] & rule->mask[word]) ^ rule->value[word];
		if (!differs)
			return rule;
	}
	return NULL;
}

/**
 * rssnic_steer - choose the rx queue of a packet
 * @nic: the device that receives it
 * @skb: the packet, from its Ethernet header on; gets its hash, and no other
 *
 * Return: number of the queue, or -1 where a filter says to drop it. In an
 * RCU read-side critical section.
 */
int rssnic_steer(struct rssnic *nic, struct sk_buff *skb)
{
	const struct rssnic_rules *rules = rcu_dereference(nic->rules);
	const struct rssnic_rss *rss = rcu_dereference(nic->rss);
	const struct rssnic_rule *rule;
	struct rssnic_flow flow;
	unsigned int words;
	u32 hash;
	bool l4;

	skb_clear_hash(skb);
	rssnic_dissect(skb, &flow);
	if (flow.type == RSSNIC_NOT_IP)
		return 0;

	l4 = flow.type < RSSNIC_L4_TYPES && rss->ports[flow.type];
	words = flow.addr_words + l4;
	hash = rssnic_toeplitz(rss->key, flow.word, words * sizeof(flow.word[0]));
	skb_set_hash(skb, hash, l4 ? PKT_HASH_TYPE_L4 : PKT_HASH_TYPE_L3);

	rule = rules ? rssnic_match(rules, &flow) : NULL;
	if (rule)
		return rule->drop ? -1 : (int)rule->queue;
	return rss->indir[hash % RSSNIC_INDIR_SIZE];
}

void rssnic_rss_spread(struct rssnic_rss *rss, unsigned int queues)
{
	unsigned int i;

	for (i = 0; i < RSSNIC_INDIR_SIZE; i++)
		rss->indir[i] = ethtool_rxfh_indir_default(i, queues);
}

/* To be changed and given to rssnic_rss_replace(), or freed. */
struct rssnic_rss *rssnic_rss_copy(struct rssnic *nic)
{
	return kmemdup(rtnl_dereference(nic->rss), sizeof(struct rssnic_rss), GFP_KERNEL);
}

void rssnic_rss_replace(struct rssnic *nic, struct rssnic_rss *rss)
{
	rss = rcu_replace_pointer(nic->rss, rss, lockdep_rtnl_is_held());
	kfree_rcu(rss, rcu);
}

int rssnic_steer_init(struct rssnic *nic)
{
	struct rssnic_rss *rss = kzalloc(sizeof(*rss), GFP_KERNEL);

	if (!rss)
		return -ENOMEM;
	netdev_rss_key_fill(rss->key, sizeof(rss->key));
	rssnic_rss_spread(rss, nic->queues);
	/* Fragments of a datagram are to meet the rest of it: UDP has the default of most. */
	rss->ports[RSSNIC_TCP4] = true;
	rss->ports[RSSNIC_TCP6] = true;
	rcu_assign_pointer(nic->rss, rss);
	return 0;
}

/* After the last packet. */
void rssnic_steer_free(struct rssnic *nic)
{
	struct rssnic_rules *rules = rcu_dereference_protected(nic->rules, true);
	unsigned int i;

	for (i = 0; rules && i < rules->count; i++)
		kfree(rules->rule[i]);
	kvfree(rules);
	kfree(rcu_dereference_protected(nic->rss, true));
}

static int rssnic_rule_parse(struct rssnic_rule *rule, const struct ethtool_rx_flow_spec *spec)
{
	const struct ethtool_tcpip4_spec *v4 = &spec->h_u.tcp_ip4_spec;
	const struct ethtool_tcpip4_spec *m4 = &spec->m_u.tcp_ip4_spec;
	const struct ethtool_tcpip6_spec *v6 = &spec->h_u.tcp_ip6_spec;
	const struct ethtool_tcpip6_spec *m6 = &spec->m_u.tcp_ip6_spec;
	__be16 ports[2], port_masks[2];
	unsigned int i, addr_words;

	/* UDP's specifications are laid out as TCP's. */
	switch (spec->flow_type) {
	case TCP_V4_FLOW:
	case UDP_V4_FLOW:
		if (m4->tos)
			return -EOPNOTSUPP;
		rule->type = spec->flow_type == TCP_V4_FLOW ? RSSNIC_TCP4 : RSSNIC_UDP4;
		rule->value[0] = v4->ip4src;
		rule->mask[0] = m4->ip4src;
		rule->value[1] = v4->ip4dst;
		rule->mask[1] = m4->ip4dst;
		ports[0] = v4->psrc;
		port_masks[0] = m4->psrc;
		ports[1] = v4->pdst;
		port_masks[1] = m4->pdst;
		addr_words = 2;
		break;
	case TCP_V6_FLOW:
	case UDP_V6_FLOW:
		if (m6->tclass)
			return -EOPNOTSUPP;
		rule->type = spec->flow_type == TCP_V6_FLOW ? RSSNIC_TCP6 : RSSNIC_UDP6;
		memcpy(&rule->value[0], v6->ip6src, sizeof(v6->ip6src));
		memcpy(&rule->mask[0], m6->ip6src, sizeof(m6->ip6src));
		memcpy(&rule->value[4], v6->ip6dst, sizeof(v6->ip6dst));
		memcpy(&rule->mask[4], m6->ip6dst, sizeof(m6->ip6dst));
		ports[0] = v6->psrc;
		port_masks[0] = m6->psrc;
		ports[1] = v6->pdst;
		port_masks[1] = m6->pdst;
		addr_words = 8;
		break;
	default:		/* also those that look at more: FLOW_EXT and the like */
		return -EOPNOTSUPP;
	}
	memcpy(&rule->value[addr_words], ports, sizeof(ports));
	memcpy(&rule->mask[addr_words], port_masks, sizeof(port_masks));
	for (i = 0; i <= addr_words; i++)
		rule->value[i] &= rule->mask[i];
	return 0;
}

/* Where the caller left the choice: the first or the last free location. */
static u32 rssnic_free_location(const struct rssnic_rules *rules, bool last)
{
	u32 location = last ? RSSNIC_MAX_RULES - 1 : 0;
	unsigned int i, n = rules ? rules->count : 0;

	for (i = 0; i < n; i++) {
		const struct rssnic_rule *rule = rules->rule[last ? n - 1 - i : i];

		if (rule->spec.location != location)
			break;
		location += last ? -1 : 1;
	}
	return location;
}

/* Put @rule, unless that is NULL, where the rule at @location is or would be. */
static int rssnic_rules_edit(struct rssnic *nic, u32 location, struct rssnic_rule *rule)
{
	struct rssnic_rules *old = rtnl_dereference(nic->rules), *new;
	unsigned int i, n = old ? old->count : 0;
	struct rssnic_rule *gone = NULL;

	new = kvmalloc(struct_size(new, rule, n + 1), GFP_KERNEL);
	if (!new)
		return -ENOMEM;
	new->count = 0;
	for (i = 0; i < n && old->rule[i]->spec.location < location; i++)
		new->rule[new->count++] = old->rule[i];
	if (i < n && old->rule[i]->spec.location == location)
		gone = old->rule[i++];
	if (rule)
		new->rule[new->count++] = rule;
	for (; i < n; i++)
		new->rule[new->count++] = old->rule[i];
	if (!rule && !gone) {
		kvfree(new);
		return -ENOENT;
	}
	rcu_assign_pointer(nic->rules, new);
	if (old)
		kvfree_rcu(old, rcu);
	if (gone)
		kfree_rcu(gone, rcu);
	return 0;
}

int rssnic_rule_add(struct rssnic *nic, struct ethtool_rx_flow_spec *spec)
{
	const struct rssnic_rules *rules = rtnl_dereference(nic->rules);
	struct rssnic_rule *rule;
	int err;

	if (spec->ring_cookie != RX_CLS_FLOW_DISC && spec->ring_cookie >= nic->queues)
		return -EINVAL;
	if (spec->location & RX_CLS_LOC_SPECIAL) {
		if (rules && rules->count >= RSSNIC_MAX_RULES)
			return -ENOSPC;
		switch (spec->location) {
		case RX_CLS_LOC_ANY:
		case RX_CLS_LOC_FIRST:
			spec->location = rssnic_free_location(rules, false);
			break;
		case RX_CLS_LOC_LAST:
			spec->location = rssnic_free_location(rules, true);
			break;
		default:
			return -EINVAL;
		}
	}
	if (spec->location >= RSSNIC_MAX_RULES)
		return -EINVAL;

	rule = kzalloc(sizeof(*rule), GFP_KERNEL);
	if (!rule)
		return -ENOMEM;
	err = rssnic_rule_parse(rule, spec);
	if (err)
		goto err_free;
	rule->spec = *spec;
	rule->drop = spec->ring_cookie == RX_CLS_FLOW_DISC;
	if (!rule->drop)
		rule->queue = spec->ring_cookie;
	err = rssnic_rules_edit(nic, spec->location, rule);
	if (err)
		goto err_free;
	return 0;

err_free:
	kfree(rule);
	return err;
}

int rssnic_rule_delete(struct rssnic *nic, u32 location)
{
	return rssnic_rules_edit(nic, location, NULL);
}

void rssnic_rules_flush(struct rssnic *nic)
{
	struct rssnic_rules *rules;
	unsigned int i;

	rules = rcu_replace_pointer(nic->rules, NULL, lockdep_rtnl_is_held());
	if (!rules)
		return;
	for (i = 0; i < rules->count; i++)
		kfree_rcu(rules->rule[i], rcu);
	kvfree_rcu(rules, rcu);
}

/* Does a rule refer to @queue or one after it? */
bool rssnic_rules_use(struct rssnic *nic, unsigned int queue)
{
	const struct rssnic_rules *rules = rtnl_dereference(nic->rules);
	unsigned int i;

	for (i = 0; rules && i < rules->count; i++)
		if (!rules->rule[i]->drop && rules->rule[i]->queue >= queue)
			return true;
	return false;
}
