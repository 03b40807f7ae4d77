// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's ethtool interface: netlink, and the ioctl for what netlink does
 * not have (on 6.1 the table and key of RSS; everywhere the fields that are
 * hashed and the ntuple rules).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/ethtool.h>
#include <linux/ethtool_netlink.h>
#include <linux/genetlink.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "nic.h"

/* Newer than the headers of Debian 12. */
#define MSG_RSS_GET		38
#define RSS_HFUNC		3
#define RSS_INDIR		4
#define RSS_HKEY		5
#define RSS_INPUT_XFRM		6

#define ATTRS			64

/* Each message has its header as the first attribute. */
#define A_HEADER		1

static int eth_ioctl(const struct nic *nic, void *data)
{
	struct ifreq ifr = { .ifr_data = data };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int ret;

	if (fd < 0)
		return -errno;
	memcpy(ifr.ifr_name, nic->name, sizeof(ifr.ifr_name));
	ret = ioctl(fd, SIOCETHTOOL, &ifr) ? -errno : 0;
	close(fd);
	return ret;
}

struct request {
	const char *dev;
	unsigned short attr;	/* to set, 0 for none */
	unsigned int value;
	bool byte;
	const char *feature;
};

static void fill(struct nlmsghdr *nlh, const void *arg)
{
	const struct request *r = arg;
	struct nlattr *nest, *bits, *bit;

	nest = mnl_attr_nest_start(nlh, A_HEADER);
	mnl_attr_put_strz(nlh, ETHTOOL_A_HEADER_DEV_NAME, r->dev);
	mnl_attr_nest_end(nlh, nest);
	if (r->feature) {
		nest = mnl_attr_nest_start(nlh, r->attr);
		bits = mnl_attr_nest_start(nlh, ETHTOOL_A_BITSET_BITS);
		bit = mnl_attr_nest_start(nlh, ETHTOOL_A_BITSET_BITS_BIT);
		mnl_attr_put_strz(nlh, ETHTOOL_A_BITSET_BIT_NAME, r->feature);
		if (r->value)
			mnl_attr_put(nlh, ETHTOOL_A_BITSET_BIT_VALUE, 0, NULL);
		mnl_attr_nest_end(nlh, bit);
		mnl_attr_nest_end(nlh, bits);
		mnl_attr_nest_end(nlh, nest);
	} else if (r->attr && r->byte) {
		mnl_attr_put_u8(nlh, r->attr, r->value);
	} else if (r->attr) {
		mnl_attr_put_u32(nlh, r->attr, r->value);
	}
}

static void parse(const struct nlmsghdr *nlh, const struct nlattr **tb)
{
	const struct nlattr *attr;

	memset(tb, 0, ATTRS * sizeof(*tb));
	mnl_attr_for_each(attr, nlh, sizeof(struct genlmsghdr))
		if (mnl_attr_get_type(attr) < ATTRS)
			tb[mnl_attr_get_type(attr)] = attr;
}

static int get(struct nic *nic, int cmd,
	       int (*reply)(const struct nlmsghdr *nlh, void *arg), void *arg)
{
	struct request r = { .dev = nic->name };

	return genl_call("ethtool", cmd, 0, fill, &r, reply, arg, NULL);
}

static int set(struct nic *nic, int cmd, struct request *r)
{
	char *why;
	int ret;

	r->dev = nic->name;
	ret = genl_call("ethtool", cmd, 0, fill, r, NULL, NULL, &why);
	if (ret)
		nic_fail(nic, "%s%s%s", strerror(-ret), why ? ": " : "", why ? why : "");
	free(why);
	return ret;
}

void ethtool_driver(struct nic *nic)
{
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };

	if (!eth_ioctl(nic, &info))
		snprintf(nic->driver, sizeof(nic->driver), "%.31s", info.driver);
}

static __u32 number(const struct nlattr *attr)
{
	return attr ? mnl_attr_get_u32(attr) : 0;
}

static int on_channels(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *tb[ATTRS];
	struct channels *c = arg;

	parse(nlh, tb);
	*c = (struct channels){
		.rx = number(tb[ETHTOOL_A_CHANNELS_RX_COUNT]),
		.tx = number(tb[ETHTOOL_A_CHANNELS_TX_COUNT]),
		.combined = number(tb[ETHTOOL_A_CHANNELS_COMBINED_COUNT]),
		.max_rx = number(tb[ETHTOOL_A_CHANNELS_RX_MAX]),
		.max_tx = number(tb[ETHTOOL_A_CHANNELS_TX_MAX]),
		.max_combined = number(tb[ETHTOOL_A_CHANNELS_COMBINED_MAX]),
	};
	return MNL_CB_OK;
}

int ethtool_channels(struct nic *nic)
{
	return get(nic, ETHTOOL_MSG_CHANNELS_GET, on_channels, &nic->channels);
}

static int on_ring(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *tb[ATTRS];
	__u32 *ring = arg;

	parse(nlh, tb);
	ring[0] = number(tb[ETHTOOL_A_RINGS_RX]);
	ring[1] = number(tb[ETHTOOL_A_RINGS_RX_MAX]);
	return MNL_CB_OK;
}

int ethtool_ring(struct nic *nic, __u32 *rx)
{
	__u32 ring[2] = { 0 };
	int ret = get(nic, ETHTOOL_MSG_RINGS_GET, on_ring, ring);

	*rx = ring[0];
	nic->rx_ring_max = ret ? 0 : ring[1];
	return ret;
}

static int on_coalesce(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *tb[ATTRS];
	int *c = arg;

	/* What the driver does not support is not there. */
	parse(nlh, tb);
	if (tb[ETHTOOL_A_COALESCE_USE_ADAPTIVE_RX])
		c[0] = mnl_attr_get_u8(tb[ETHTOOL_A_COALESCE_USE_ADAPTIVE_RX]);
	if (tb[ETHTOOL_A_COALESCE_RX_USECS])
		c[1] = mnl_attr_get_u32(tb[ETHTOOL_A_COALESCE_RX_USECS]);
	return MNL_CB_OK;
}

/* -1 is what the device does not have. */
int ethtool_coalesce(struct nic *nic, int *adaptive, int *usecs)
{
	int c[2] = { -1, -1 };
	int ret = get(nic, ETHTOOL_MSG_COALESCE_GET, on_coalesce, c);

	*adaptive = c[0];
	*usecs = c[1];
	return ret;
}

struct feature {
	const char *name;
	bool known, on, switchable;
};

static bool bitset_has(const struct nlattr *set, const char *name)
{
	const struct nlattr *bits, *bit, *attr;
	bool nomask = false, found, value;

	if (!set)
		return false;
	mnl_attr_for_each_nested(bits, set) {
		if (mnl_attr_get_type(bits) == ETHTOOL_A_BITSET_NOMASK)
			nomask = true;
		if (mnl_attr_get_type(bits) != ETHTOOL_A_BITSET_BITS)
			continue;
		mnl_attr_for_each_nested(bit, bits) {
			found = false;
			/* Without a mask, only what is in the set is listed. */
			value = nomask;
			mnl_attr_for_each_nested(attr, bit) {
				if (mnl_attr_get_type(attr) == ETHTOOL_A_BITSET_BIT_NAME)
					found = !strcmp(mnl_attr_get_str(attr), name);
				if (mnl_attr_get_type(attr) == ETHTOOL_A_BITSET_BIT_VALUE)
					value = true;
			}
			if (found)
				return value;
		}
	}
	return false;
}

static int on_features(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *tb[ATTRS];
	struct feature *f = arg;

	parse(nlh, tb);
	f->known = true;
	f->on = bitset_has(tb[ETHTOOL_A_FEATURES_ACTIVE], f->name);
	f->switchable = bitset_has(tb[ETHTOOL_A_FEATURES_HW], f->name) &&
			!bitset_has(tb[ETHTOOL_A_FEATURES_NOCHANGE], f->name);
	return MNL_CB_OK;
}

/* Of this device, or of another in the namespace. */
int ethtool_feature(struct nic *nic, const char *dev, const char *feature,
		    bool *on, bool *fixed)
{
	struct request r = { .dev = dev ? dev : nic->name };
	struct feature f = { .name = feature };
	int ret = genl_call("ethtool", ETHTOOL_MSG_FEATURES_GET, 0, fill, &r,
			    on_features, &f, NULL);

	*on = f.on;
	*fixed = !f.switchable;
	return ret ? ret : f.known ? 0 : -EOPNOTSUPP;
}

static void take(void **to, __u32 *len, const void *from, __u32 n, size_t size)
{
	*len = n;
	*to = xrealloc(*to, n, size);
	if (n)
		memcpy(*to, from, n * size);
}

static int on_rss(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *tb[ATTRS];
	struct rss *rss = arg;

	parse(nlh, tb);
	rss->hfunc = number(tb[RSS_HFUNC]);
	rss->xfrm = number(tb[RSS_INPUT_XFRM]);
	if (tb[RSS_INDIR])
		take((void **)&rss->table, &rss->buckets,
		     mnl_attr_get_payload(tb[RSS_INDIR]),
		     mnl_attr_get_payload_len(tb[RSS_INDIR]) / sizeof(__u32),
		     sizeof(__u32));
	if (tb[RSS_HKEY])
		take((void **)&rss->key, &rss->key_len,
		     mnl_attr_get_payload(tb[RSS_HKEY]),
		     mnl_attr_get_payload_len(tb[RSS_HKEY]), 1);
	return MNL_CB_OK;
}

static int rss_by_ioctl(struct nic *nic)
{
	struct ethtool_rxfh probe = { .cmd = ETHTOOL_GRSSH }, *rxfh;
	struct rss *rss = &nic->rss;
	size_t bytes;
	int ret;

	ret = eth_ioctl(nic, &probe);
	if (ret)
		return ret;
	bytes = probe.indir_size * sizeof(__u32) + probe.key_size;
	rxfh = xrealloc(NULL, sizeof(probe) + bytes, 1);
	*rxfh = probe;
	rxfh->cmd = ETHTOOL_GRSSH;
	ret = eth_ioctl(nic, rxfh);
	if (!ret) {
		rss->hfunc = rxfh->hfunc;
		/* The input transformation is where older kernels have 0. */
		rss->xfrm = rxfh->rsvd8[0];
		take((void **)&rss->table, &rss->buckets, rxfh->rss_config,
		     rxfh->indir_size, sizeof(__u32));
		take((void **)&rss->key, &rss->key_len,
		     rxfh->rss_config + rxfh->indir_size, rxfh->key_size, 1);
	}
	free(rxfh);
	return ret;
}

int ethtool_rss(struct nic *nic)
{
	int ret;

	nic->rss.buckets = 0;
	nic->rss.key_len = 0;
	ret = get(nic, MSG_RSS_GET, on_rss, &nic->rss);
	/* 6.1 has no such command. */
	return ret == -EOPNOTSUPP || ret == -EINVAL ? rss_by_ioctl(nic) : ret;
}

/* The table that the kernel makes when nobody has set one. */
bool rss_is_default(const struct rss *rss, unsigned int queues)
{
	__u32 i;

	for (i = 0; i < rss->buckets; i++)
		if (rss->table[i] != i % queues)
			return false;
	return true;
}

static const struct {
	__u64 bit;
	char letter;
} fields_of[] = {
	{ RXH_L2DA, 'm' }, { RXH_VLAN, 'v' }, { RXH_L3_PROTO, 't' },
	{ RXH_IP_SRC, 's' }, { RXH_IP_DST, 'd' }, { RXH_L4_B_0_1, 'f' },
	{ RXH_L4_B_2_3, 'n' }, { RXH_DISCARD, 'r' },
};

#define N_FIELDS (sizeof(fields_of) / sizeof(fields_of[0]))

/* As letters of ethtool(8), at most N_FIELDS and a '\0'. */
int ethtool_hash_fields(struct nic *nic, bool v6, char *fields)
{
	struct ethtool_rxnfc nfc = {
		.cmd = ETHTOOL_GRXFH,
		.flow_type = v6 ? TCP_V6_FLOW : TCP_V4_FLOW,
	};
	int ret = eth_ioctl(nic, &nfc);
	size_t i;

	for (i = 0; !ret && i < N_FIELDS; i++)
		if (nfc.data & fields_of[i].bit)
			*fields++ = fields_of[i].letter;
	*fields = '\0';
	return ret;
}

/* Room for rules, and how much of it is taken. */
int ethtool_rules(struct nic *nic)
{
	struct ethtool_rxnfc count = { .cmd = ETHTOOL_GRXCLSRLCNT };
	int ret = eth_ioctl(nic, &count);

	nic->slots = 0;
	if (ret)
		return ret;
	nic->any_slot = count.data & RX_CLS_LOC_SPECIAL;
	nic->slots_used = count.rule_cnt;
	nic->slots = count.data & ~RX_CLS_LOC_SPECIAL;
	if (!nic->slots) {
		/* Older drivers tell it only with the list. */
		struct ethtool_rxnfc *all;

		all = xrealloc(NULL, 1, sizeof(*all) + count.rule_cnt * sizeof(__u32));
		memset(all, 0, sizeof(*all));
		all->cmd = ETHTOOL_GRXCLSRLALL;
		all->rule_cnt = count.rule_cnt;
		if (!eth_ioctl(nic, all))
			nic->slots = all->data;
		free(all);
	}
	return nic->slots ? 0 : -EOPNOTSUPP;
}

static void rule_spec(struct ethtool_rx_flow_spec *fs, unsigned int index,
		      unsigned int classes, unsigned int queue)
{
	__be16 port = htons(0x8000 | (index & ~RULE_TCP6));
	__be16 care = htons(0x8000 | (classes - 1));

	memset(fs, 0, sizeof(*fs));
	fs->ring_cookie = queue;
	if (index & RULE_TCP6) {
		fs->flow_type = TCP_V6_FLOW;
		fs->h_u.tcp_ip6_spec.pdst = port;
		fs->m_u.tcp_ip6_spec.pdst = care;
	} else {
		fs->flow_type = TCP_V4_FLOW;
		fs->h_u.tcp_ip4_spec.pdst = port;
		fs->m_u.tcp_ip4_spec.pdst = care;
	}
}

static int rule_get(struct nic *nic, __u32 location, struct ethtool_rx_flow_spec *fs)
{
	struct ethtool_rxnfc nfc = {
		.cmd = ETHTOOL_GRXCLSRULE,
		.fs.location = location,
	};
	int ret = eth_ioctl(nic, &nfc);

	*fs = nfc.fs;
	return ret;
}

/* Is what is at its place still the rule that setup put there? */
static bool rule_is_ours(struct nic *nic, const struct rule *rule)
{
	struct ethtool_rx_flow_spec want, have;

	if (rule_get(nic, rule->location, &have))
		return false;
	rule_spec(&want, rule->index, rule->classes, rule->queue);
	if (have.flow_type != want.flow_type || have.ring_cookie != want.ring_cookie)
		return false;
	if (rule->index & RULE_TCP6)
		return have.h_u.tcp_ip6_spec.pdst == want.h_u.tcp_ip6_spec.pdst &&
		       have.m_u.tcp_ip6_spec.pdst == want.m_u.tcp_ip6_spec.pdst;
	return have.h_u.tcp_ip4_spec.pdst == want.h_u.tcp_ip4_spec.pdst &&
	       have.m_u.tcp_ip4_spec.pdst == want.m_u.tcp_ip4_spec.pdst;
}

/* The last free place: rules of others, which come first, win. */
static int free_slot(struct nic *nic, __u32 *slot)
{
	struct ethtool_rxnfc *all;
	bool taken;
	__u32 i, n;
	int ret;

	if (nic->any_slot) {
		*slot = RX_CLS_LOC_ANY;
		return 0;
	}
	ret = ethtool_rules(nic);
	if (ret)
		return ret;
	n = nic->slots_used;
	all = xrealloc(NULL, 1, sizeof(*all) + n * sizeof(__u32));
	memset(all, 0, sizeof(*all));
	all->cmd = ETHTOOL_GRXCLSRLALL;
	all->rule_cnt = n;
	ret = eth_ioctl(nic, all);
	for (*slot = nic->slots; !ret && *slot-- > 0;) {
		taken = false;
		for (i = 0; i < n; i++)
			taken |= all->rule_locs[i] == *slot;
		if (!taken)
			break;
	}
	free(all);
	return ret ? ret : *slot < nic->slots ? 0 : -ENOSPC;
}

int ethtool_rule_add(struct nic *nic, unsigned int index, unsigned int classes,
		     unsigned int queue)
{
	struct ethtool_rxnfc nfc = { .cmd = ETHTOOL_SRXCLSRLINS };
	int ret;

	rule_spec(&nfc.fs, index, classes, queue);
	ret = free_slot(nic, &nfc.fs.location);
	if (!ret)
		ret = eth_ioctl(nic, &nfc);
	if (ret) {
		nic_fail(nic, "%s", strerror(-ret));
		return ret;
	}
	nic->rules = xrealloc(nic->rules, nic->n_rules + 1, sizeof(*nic->rules));
	nic->rules[nic->n_rules++] = (struct rule){
		.index = index, .classes = classes, .queue = queue,
		.location = nfc.fs.location,
	};
	return 0;
}

/* Takes it from the list, too. One that is no longer there is no error. */
int ethtool_rule_del(struct nic *nic, const struct rule *rule)
{
	struct ethtool_rxnfc nfc = {
		.cmd = ETHTOOL_SRXCLSRLDEL,
		.fs.location = rule->location,
	};
	size_t i = rule - nic->rules;
	int ret = 0;

	if (rule_is_ours(nic, rule))
		ret = eth_ioctl(nic, &nfc);
	if (ret) {
		nic_fail(nic, "%s", strerror(-ret));
		return ret;
	}
	memmove(&nic->rules[i], &nic->rules[i + 1],
		(--nic->n_rules - i) * sizeof(*nic->rules));
	return 0;
}

static int set_rxfh(struct nic *nic, const __u32 *table, __u32 buckets,
		    const unsigned char *key, __u32 key_len)
{
	struct ethtool_rxfh *rxfh;
	int ret;

	rxfh = xrealloc(NULL, 1, sizeof(*rxfh) + nic->rss.buckets * sizeof(__u32) + key_len);
	memset(rxfh, 0, sizeof(*rxfh));
	rxfh->cmd = ETHTOOL_SRSSH;
	rxfh->indir_size = buckets;
	rxfh->key_size = key_len;
	/* On newer kernels this is the input transformation: no change. */
	rxfh->rsvd8[0] = nic->rss.xfrm ? 0xff : 0;
	if (table)
		memcpy(rxfh->rss_config, table, buckets * sizeof(__u32));
	if (key)
		memcpy(rxfh->rss_config + (table ? buckets : 0), key, key_len);
	ret = eth_ioctl(nic, rxfh);
	free(rxfh);
	return ret;
}

static int set_table(struct nic *nic, const char *value)
{
	__u32 n = 0, *table;
	char *end;
	int ret;

	/* No size at all is the kernel's word for the default. */
	if (!strcmp(value, "default"))
		return set_rxfh(nic, NULL, 0, NULL, 0);
	ret = ethtool_rss(nic);
	if (ret)
		return ret;
	table = xrealloc(NULL, nic->rss.buckets, sizeof(*table));
	while (n < nic->rss.buckets && *value) {
		table[n++] = strtoul(value, &end, 10);
		value = end + (*end == ' ');
	}
	ret = n == nic->rss.buckets && !*value ?
	      set_rxfh(nic, table, n, NULL, 0) : -ERANGE;
	free(table);
	return ret;
}

static int set_key(struct nic *nic, const char *value)
{
	__u32 len = strlen(value) / 2, i;
	unsigned char *key;
	int ret;

	ret = ethtool_rss(nic);
	if (ret)
		return ret;
	key = xrealloc(NULL, len, 1);
	for (i = 0; !ret && i < len; i++)
		if (sscanf(value + 2 * i, "%2hhx", &key[i]) != 1)
			ret = -EINVAL;
	if (!ret)
		ret = set_rxfh(nic, NULL, ETH_RXFH_INDIR_NO_CHANGE, key, len);
	free(key);
	return ret;
}

static int set_hash_fields(struct nic *nic, bool v6, const char *value)
{
	struct ethtool_rxnfc nfc = {
		.cmd = ETHTOOL_SRXFH,
		.flow_type = v6 ? TCP_V6_FLOW : TCP_V4_FLOW,
	};
	size_t i;

	for (i = 0; i < N_FIELDS; i++)
		if (strchr(value, fields_of[i].letter))
			nfc.data |= fields_of[i].bit;
	return eth_ioctl(nic, &nfc);
}

/* The kernel's name of a feature that is a knob. */
const char *feature_of(enum knob_kind kind)
{
	switch (kind) {
	case KNOB_LRO:
		return "rx-lro";
	case KNOB_GRO_HW:
		return "rx-gro-hw";
	case KNOB_NTUPLE:
		return "rx-ntuple-filter";
	default:
		return NULL;
	}
}

static int want_feature(struct nic *nic, const char *feature, bool want, bool *on)
{
	struct request r = {
		.attr = ETHTOOL_A_FEATURES_WANTED, .value = want, .feature = feature,
	};
	int ret = set(nic, ETHTOOL_MSG_FEATURES_SET, &r);
	bool fixed;

	return ret ? ret : ethtool_feature(nic, NULL, feature, on, &fixed);
}

static int set_feature(struct nic *nic, enum knob_kind kind, bool want)
{
	const char *feature = feature_of(kind);
	bool on;
	int ret;

	/* Without filters, the driver would drop them. */
	if (kind == KNOB_NTUPLE && !want && !ethtool_rules(nic) && nic->slots_used) {
		nic_note(nic, "ntuple filters stay on, for %u rule%s that setup has not made",
			 nic->slots_used, nic->slots_used == 1 ? "" : "s");
		return 0;
	}
	ret = want_feature(nic, feature, want, &on);
	/* Drivers that switch it off themselves leave it wanted: want it anew. */
	if (!ret && on != want)
		ret = want_feature(nic, feature, !want, &on);
	if (!ret && on != want)
		ret = want_feature(nic, feature, want, &on);
	/* The kernel takes what it can, and that may be nothing. */
	if (!ret && on != want) {
		ret = -EOPNOTSUPP;
		nic_fail(nic, "the driver does not do it");
	}
	return ret;
}

static int set_number(struct nic *nic, int cmd, unsigned short attr, const char *value)
{
	struct request r = { .attr = attr, .value = strtoul(value, NULL, 10) };

	return set(nic, cmd, &r);
}

static int set_adaptive(struct nic *nic, const char *value)
{
	struct request r = {
		.attr = ETHTOOL_A_COALESCE_USE_ADAPTIVE_RX,
		.value = !strcmp(value, "on"),
		.byte = true,
	};

	return set(nic, ETHTOOL_MSG_COALESCE_SET, &r);
}

/* 0, or -errno with nic->error set. */
int ethtool_set(struct nic *nic, enum knob_kind kind, const char *value)
{
	int ret;

	free(nic->error);
	nic->error = NULL;
	switch (kind) {
	case KNOB_RX_CHANNELS:
		ret = set_number(nic, ETHTOOL_MSG_CHANNELS_SET,
				 ETHTOOL_A_CHANNELS_RX_COUNT, value);
		break;
	case KNOB_TX_CHANNELS:
		ret = set_number(nic, ETHTOOL_MSG_CHANNELS_SET,
				 ETHTOOL_A_CHANNELS_TX_COUNT, value);
		break;
	case KNOB_COMBINED:
		ret = set_number(nic, ETHTOOL_MSG_CHANNELS_SET,
				 ETHTOOL_A_CHANNELS_COMBINED_COUNT, value);
		break;
	case KNOB_RX_RING:
		ret = set_number(nic, ETHTOOL_MSG_RINGS_SET,
				 ETHTOOL_A_RINGS_RX, value);
		break;
	case KNOB_RX_USECS:
		ret = set_number(nic, ETHTOOL_MSG_COALESCE_SET,
				 ETHTOOL_A_COALESCE_RX_USECS, value);
		break;
	case KNOB_ADAPTIVE_RX:
		ret = set_adaptive(nic, value);
		break;
	case KNOB_LRO:
	case KNOB_GRO_HW:
	case KNOB_NTUPLE:
		ret = set_feature(nic, kind, !strcmp(value, "on"));
		break;
	case KNOB_KEY:
		ret = set_key(nic, value);
		break;
	case KNOB_TABLE:
		ret = set_table(nic, value);
		break;
	case KNOB_HASH_TCP4:
	case KNOB_HASH_TCP6:
		ret = set_hash_fields(nic, kind == KNOB_HASH_TCP6, value);
		break;
	default:
		ret = -EINVAL;
	}
	if (ret && !nic->error)
		nic_fail(nic, "%s", strerror(-ret));
	return ret;
}
