// SPDX-License-Identifier: GPL-2.0
/*
 * Requests over netlink, and what the kernel says of those it refuses.
 */
#include <err.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nic.h"

struct answer {
	int (*reply)(const struct nlmsghdr *nlh, void *arg);
	void *arg;
};

static int on_reply(const struct nlmsghdr *nlh, void *arg)
{
	struct answer *a = arg;

	return a->reply ? a->reply(nlh, a->arg) : MNL_CB_OK;
}

/* The kernel's own words, if it has any. */
static char *refusal(const struct nlmsghdr *nlh)
{
	const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);
	size_t off = sizeof(*e);
	const struct nlattr *attr;

	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return NULL;
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED))
		off += mnl_nlmsg_get_payload_len(&e->msg);
	mnl_attr_for_each(attr, nlh, off)
		if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG)
			return xstrdup(mnl_attr_get_str(attr));
	return NULL;
}

static int exchange(struct mnl_socket *nl, struct nlmsghdr *nlh,
		    struct answer *a, char **why)
{
	static char buf[65536];
	unsigned int portid = mnl_socket_get_portid(nl), seq = time(NULL);
	const struct nlmsghdr *first = (void *)buf;
	ssize_t n;
	int ret;

	nlh->nlmsg_seq = seq;
	nlh->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	if (mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	do {
		n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
		if (n < 0)
			return -errno;
		ret = mnl_cb_run(buf, n, seq, portid, on_reply, a);
		if (ret < 0) {
			ret = -errno;
			if (why && n >= (ssize_t)sizeof(*first) &&
			    first->nlmsg_type == NLMSG_ERROR)
				*why = refusal(first);
			return ret;
		}
	} while (ret > 0);
	return 0;
}

/* 0 or -errno; @why, where it is given, is then what the kernel said or NULL. */
int nl_call(int bus, struct nlmsghdr *nlh,
	    int (*reply)(const struct nlmsghdr *nlh, void *arg), void *reply_arg,
	    char **why)
{
	struct answer a = { reply, reply_arg };
	struct mnl_socket *nl;
	int one = 1, ret;

	if (why)
		*why = NULL;
	nl = mnl_socket_open2(bus, SOCK_CLOEXEC);
	if (!nl)
		return -errno;
	mnl_socket_setsockopt(nl, NETLINK_EXT_ACK, &one, sizeof(one));
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0)
		ret = -errno;
	else
		ret = exchange(nl, nlh, &a, why);
	mnl_socket_close(nl);
	return ret;
}

static int on_family(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, nlh, sizeof(struct genlmsghdr))
		if (mnl_attr_get_type(attr) == CTRL_ATTR_FAMILY_ID)
			*(int *)arg = mnl_attr_get_u16(attr);
	return MNL_CB_OK;
}

/* The families that have been asked for; there are two. */
static int family_id(const char *name)
{
	static struct {
		const char *name;
		int id;
	} known[4];
	char buf[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct genlmsghdr *genl;
	size_t i;
	int ret;

	for (i = 0; known[i].name; i++)
		if (!strcmp(known[i].name, name))
			return known[i].id;
	nlh->nlmsg_type = GENL_ID_CTRL;
	genl = mnl_nlmsg_put_extra_header(nlh, sizeof(*genl));
	genl->cmd = CTRL_CMD_GETFAMILY;
	genl->version = 1;
	mnl_attr_put_strz(nlh, CTRL_ATTR_FAMILY_NAME, name);
	ret = nl_call(NETLINK_GENERIC, nlh, on_family, &known[i].id, NULL);
	if (ret)
		return ret;
	known[i].name = name;
	return known[i].id;
}

int genl_call(const char *family, int cmd, int flags,
	      void (*fill)(struct nlmsghdr *nlh, const void *arg), const void *arg,
	      int (*reply)(const struct nlmsghdr *nlh, void *arg), void *reply_arg,
	      char **why)
{
	char buf[4096];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct genlmsghdr *genl;
	int id = family_id(family);

	if (why)
		*why = NULL;
	if (id < 0)
		return id == -ENOENT ? -EOPNOTSUPP : id;
	nlh->nlmsg_type = id;
	nlh->nlmsg_flags = flags;
	genl = mnl_nlmsg_put_extra_header(nlh, sizeof(*genl));
	genl->cmd = cmd;
	genl->version = 1;
	fill(nlh, arg);
	return nl_call(NETLINK_GENERIC, nlh, reply, reply_arg, why);
}
