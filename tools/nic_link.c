// SPDX-License-Identifier: GPL-2.0
/*
 * Which device is meant, and whether it is one that has queues.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "nic.h"

struct link {
	unsigned int peer;
	bool peer_elsewhere;
	unsigned int flags;
	char kind[32];
	char address[64];
};

static int on_link(const struct nlmsghdr *nlh, void *arg)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr, *info;
	const unsigned char *mac;
	struct link *link = arg;
	unsigned int i;

	link->flags = ifi->ifi_flags;
	mnl_attr_for_each(attr, nlh, sizeof(*ifi)) {
		switch (mnl_attr_get_type(attr)) {
		case IFLA_ADDRESS:
			mac = mnl_attr_get_payload(attr);
			for (i = 0; i < mnl_attr_get_payload_len(attr) && i < 20; i++)
				sprintf(&link->address[i * 3], "%02x:", mac[i]);
			if (i)
				link->address[i * 3 - 1] = '\0';
			break;
		case IFLA_LINK:
			link->peer = mnl_attr_get_u32(attr);
			break;
		case IFLA_LINK_NETNSID:
			link->peer_elsewhere = true;
			break;
		case IFLA_LINKINFO:
			mnl_attr_for_each_nested(info, attr)
				if (mnl_attr_get_type(info) == IFLA_INFO_KIND)
					snprintf(link->kind, sizeof(link->kind), "%s",
						 mnl_attr_get_str(info));
			break;
		}
	}
	return MNL_CB_OK;
}

static int link_get(unsigned int ifindex, struct link *link)
{
	char buf[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *ifi;

	nlh->nlmsg_type = RTM_GETLINK;
	ifi = mnl_nlmsg_put_extra_header(nlh, sizeof(*ifi));
	ifi->ifi_index = ifindex;
	memset(link, 0, sizeof(*link));
	return nl_call(NETLINK_ROUTE, nlh, on_link, link, NULL);
}

/* "a, b and c" of the names that start with @prefix in a directory. */
static char *names(const char *dir, const char *prefix)
{
	char *list = NULL, *longer;
	struct dirent *de;
	DIR *d = opendir(dir);

	while (d && (de = readdir(d))) {
		if (*de->d_name == '.' || strncmp(de->d_name, prefix, strlen(prefix)))
			continue;
		longer = xasprintf("%s%s%s", list ? list : "", list ? ", " : "",
				   de->d_name + strlen(prefix));
		free(list);
		list = longer;
	}
	if (d)
		closedir(d);
	return list;
}

static char *devices(void)
{
	struct if_nameindex *all = if_nameindex(), *i;
	char *list = xstrdup(""), *longer;

	for (i = all; i && i->if_name; i++) {
		longer = xasprintf("%s%s%s", list, *list ? ", " : "", i->if_name);
		free(list);
		list = longer;
	}
	if_freenameindex(all);
	return list;
}

/* The name of a veth's other end, if that is in this namespace, or NULL. */
char *nic_peer(const struct nic *nic)
{
	char name[IFNAMSIZ];
	struct link link;

	if (link_get(nic->ifindex, &link) || !link.peer || link.peer_elsewhere ||
	    !if_indextoname(link.peer, name))
		return NULL;
	return xstrdup(name);
}

/* /sys shows the namespace it was mounted in, which may not be the caller's. */
static void check_sysfs(const struct nic *nic, const struct link *link)
{
	char path[128], index[32], address[64];

	snprintf(path, sizeof(path), "/sys/class/net/%s/ifindex", nic->name);
	if (read_line(path, index, sizeof(index)) &&
	    strtoul(index, NULL, 10) == nic->ifindex) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/address", nic->name);
		if (!read_line(path, address, sizeof(address)) ||
		    !strcmp(address, link->address))
			return;
	}
	errx(EXIT_FAILURE, "/sys shows another network namespace than the one that %s is in: enter it with 'ip netns exec', which mounts /sys anew",
	     nic->name);
}

void nic_open(struct nic *nic, const char *name)
{
	struct link link;
	char path[128], *lower, *list;

	memset(nic, 0, sizeof(*nic));
	nic->ifindex = strlen(name) < IFNAMSIZ ? if_nametoindex(name) : 0;
	if (!nic->ifindex) {
		list = devices();
		errx(EXIT_FAILURE, "there is no device '%s' in this network namespace; there are %s",
		     name, *list ? list : "none at all");
	}
	snprintf(nic->name, sizeof(nic->name), "%s", name);
	if (link_get(nic->ifindex, &link))
		errx(EXIT_FAILURE, "cannot ask the kernel about %s", name);
	nic->up = link.flags & IFF_UP;
	if (link.flags & IFF_LOOPBACK)
		errx(EXIT_FAILURE, "%s is the loopback device: what it carries is processed on the CPU that sends, there is nothing to set up",
		     name);
	check_sysfs(nic, &link);

	snprintf(path, sizeof(path), "/sys/class/net/%s", name);
	lower = names(path, "lower_");
	if (lower)
		errx(EXIT_FAILURE, "%s (%s) has no queues of its own; set up what is below it: %s",
		     name, *link.kind ? link.kind : "a virtual device", lower);
	if (!strcmp(link.kind, "bond") || !strcmp(link.kind, "bridge") ||
	    !strcmp(link.kind, "team"))
		errx(EXIT_FAILURE, "%s is a %s without members: it has no queues, set up the devices that will be its members",
		     name, link.kind);
	ethtool_driver(nic);
}
