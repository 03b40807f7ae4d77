// SPDX-License-Identifier: GPL-2.0
/*
 * What else is on the way of a packet, and costs more than steering gains:
 * connection tracking and netfilter rules.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nic.h"

struct chains {
	unsigned int n;
	char *list;
};

static const char *family_name(unsigned int family)
{
	switch (family) {
	case NFPROTO_INET:
		return "inet";
	case NFPROTO_IPV4:
		return "ip";
	case NFPROTO_IPV6:
		return "ip6";
	case NFPROTO_NETDEV:
		return "netdev";
	default:
		return NULL;
	}
}

static int on_chain(const struct nlmsghdr *nlh, void *arg)
{
	const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);
	const char *family = family_name(nfg->nfgen_family);
	const char *table = "?", *name = "?";
	const struct nlattr *attr;
	struct chains *c = arg;
	bool base = false;
	char *longer;

	mnl_attr_for_each(attr, nlh, sizeof(*nfg)) {
		switch (mnl_attr_get_type(attr)) {
		case NFTA_CHAIN_TABLE:
			table = mnl_attr_get_str(attr);
			break;
		case NFTA_CHAIN_NAME:
			name = mnl_attr_get_str(attr);
			break;
		case NFTA_CHAIN_HOOK:
			base = true;
			break;
		}
	}
	/* Only base chains have a hook, so that packets come to them. */
	if (!family || !base)
		return MNL_CB_OK;
	longer = xasprintf("%s%s%s %s %s", c->list ? c->list : "",
			   c->list ? ", " : "", family, table, name);
	free(c->list);
	c->list = longer;
	c->n++;
	return MNL_CB_OK;
}

static void nft_chains(struct chains *c)
{
	char buf[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *nfg;

	memset(c, 0, sizeof(*c));
	nlh->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN;
	nlh->nlmsg_flags = NLM_F_DUMP;
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
	nfg->nfgen_family = NFPROTO_UNSPEC;
	nfg->version = NFNETLINK_V0;
	/* A kernel without nftables has no chains of it. */
	nl_call(NETLINK_NETFILTER, nlh, on_chain, c, NULL);
}

static char *legacy_tables(void)
{
	static const char * const files[] = {
		"/proc/net/ip_tables_names", "/proc/net/ip6_tables_names",
	};
	char *list = NULL, *longer, line[64];
	FILE *f;
	int i;

	for (i = 0; i < 2; i++) {
		f = fopen(files[i], "re");
		while (f && fgets(line, sizeof(line), f)) {
			line[strcspn(line, "\n")] = '\0';
			longer = xasprintf("%s%s%s %s", list ? list : "", list ? ", " : "",
					   i ? "ip6tables" : "iptables", line);
			free(list);
			list = longer;
		}
		if (f)
			fclose(f);
	}
	return list;
}

static void add(char ***list, size_t *n, char *text)
{
	*list = xrealloc(*list, *n + 1, sizeof(**list));
	(*list)[(*n)++] = text;
}

/* Sentences, each to be freed, and the array. */
char **path_warnings(size_t *n)
{
	char **list = NULL, count[32] = "", *tables;
	struct chains chains;

	*n = 0;
	if (read_line("/proc/sys/net/netfilter/nf_conntrack_count", count, sizeof(count)) &&
	    strtoul(count, NULL, 10))
		add(&list, n, xasprintf("conntrack follows every connection of this network namespace (%s now): a look-up in a table that all CPUs share, per packet; exempt the services with 'notrack' in a chain of type filter, hook prerouting and output, priority raw (nft), or do without rules that use ct or nat",
					count));
	nft_chains(&chains);
	if (chains.n)
		add(&list, n, xasprintf("%u netfilter chain%s run%s for every packet (%s): accept the services' ports first in each, or drop the tables that are not needed",
					chains.n, chains.n == 1 ? "" : "s", chains.n == 1 ? "s" : "",
					chains.list));
	free(chains.list);
	tables = legacy_tables();
	if (tables)
		add(&list, n, xasprintf("legacy netfilter tables are loaded (%s) and walked rule by rule for every packet: unload those that are not needed, e.g. 'rmmod iptable_filter'",
					tables));
	free(tables);
	return list;
}
