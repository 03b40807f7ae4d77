// SPDX-License-Identifier: GPL-2.0
/*
 * Interrupts of a device's queues, where they go, and irqbalance, which would
 * move them.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "nic.h"

/* Newer than the headers of Debian 12: the family "netdev". */
#define NETDEV_QUEUE_GET	10
#define NETDEV_NAPI_GET		11
#define QUEUE_ID		1
#define QUEUE_IFINDEX		2
#define QUEUE_NAPI_ID		4
#define NAPI_IFINDEX		1
#define NAPI_ID			2
#define NAPI_IRQ		3

struct napi_queue {
	unsigned int napi, queue;
};

struct napi_queues {
	struct nic *nic;
	struct napi_queue *q;
	size_t n;
};

static void add_irq(struct nic *nic, unsigned int irq, unsigned int queue,
		    const char *name)
{
	struct queue_irq *q;
	size_t i;

	for (i = 0; i < nic->n_irqs; i++)
		if (nic->irqs[i].irq == irq)
			return;
	nic->irqs = xrealloc(nic->irqs, nic->n_irqs + 1, sizeof(*nic->irqs));
	q = &nic->irqs[nic->n_irqs++];
	*q = (struct queue_irq){ .irq = irq, .queue = queue };
	snprintf(q->name, sizeof(q->name), "%s", name);
}

static void ask_for(struct nlmsghdr *nlh, const void *arg)
{
	const unsigned int *request = arg;

	mnl_attr_put_u32(nlh, request[0], request[1]);
}

static int on_queue(const struct nlmsghdr *nlh, void *arg)
{
	unsigned int id = 0, napi = 0;
	struct napi_queues *qs = arg;
	const struct nlattr *attr;

	mnl_attr_for_each(attr, nlh, sizeof(struct genlmsghdr)) {
		switch (mnl_attr_get_type(attr)) {
		case QUEUE_ID:
			id = mnl_attr_get_u32(attr);
			break;
		case QUEUE_NAPI_ID:
			napi = mnl_attr_get_u32(attr);
			break;
		}
	}
	if (napi) {
		qs->q = xrealloc(qs->q, qs->n + 1, sizeof(*qs->q));
		/* An rx and a tx queue may share it; their numbers are the same. */
		qs->q[qs->n++] = (struct napi_queue){ napi, id };
	}
	return MNL_CB_OK;
}

static char *irq_name(unsigned int irq, char *name, size_t size)
{
	char path[64];
	struct dirent *de;
	DIR *d;

	/* A directory under that of the IRQ has the name of its action. */
	snprintf(name, size, "%u", irq);
	snprintf(path, sizeof(path), "/proc/irq/%u", irq);
	d = opendir(path);
	while (d && (de = readdir(d)))
		if (de->d_type == DT_DIR && *de->d_name != '.')
			snprintf(name, size, "%.*s", (int)size - 1, de->d_name);
	if (d)
		closedir(d);
	return name;
}

static int on_napi(const struct nlmsghdr *nlh, void *arg)
{
	struct napi_queues *qs = arg;
	const struct nlattr *attr;
	unsigned int id = 0;
	int irq = -1;
	char name[96];
	size_t i;

	mnl_attr_for_each(attr, nlh, sizeof(struct genlmsghdr)) {
		if (mnl_attr_get_type(attr) == NAPI_ID)
			id = mnl_attr_get_u32(attr);
		if (mnl_attr_get_type(attr) == NAPI_IRQ)
			irq = mnl_attr_get_u32(attr);
	}
	for (i = 0; irq > 0 && i < qs->n; i++)
		if (qs->q[i].napi == id)
			add_irq(qs->nic, irq, qs->q[i].queue,
				irq_name(irq, name, sizeof(name)));
	return MNL_CB_OK;
}

/* What the kernel itself knows: from 6.8 on, and of drivers that tell it. */
static void irqs_of_napi(struct nic *nic)
{
	unsigned int queues[2] = { QUEUE_IFINDEX, nic->ifindex };
	unsigned int napis[2] = { NAPI_IFINDEX, nic->ifindex };
	struct napi_queues qs = { .nic = nic };

	if (!genl_call("netdev", NETDEV_QUEUE_GET, NLM_F_DUMP, ask_for, queues,
		       on_queue, &qs, NULL) && qs.n)
		genl_call("netdev", NETDEV_NAPI_GET, NLM_F_DUMP, ask_for, napis,
			  on_napi, &qs, NULL);
	free(qs.q);
}

/* The queue that the name of an IRQ's action ends in, or -1. */
static int queue_in_name(const char *name)
{
	static const char * const words[] = {
		"rx", "tx", "input", "output", "queue", "comp", "fp-", "-q",
	};
	char text[96], *end;
	size_t i;

	snprintf(text, sizeof(text), "%s", name);
	/* mlx5_comp3@pci:0000:01:00.0 */
	text[strcspn(text, "@")] = '\0';
	end = text + strlen(text);
	while (end > text && isdigit((unsigned char)end[-1]))
		end--;
	if (!*end || end == text)
		return -1;
	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcasestr(text, words[i]))
			return atoi(end);
	return -1;
}

/* Is @word in @text, without a letter or digit before or behind it? */
static bool has_word(const char *text, const char *word)
{
	const char *at = text;

	while ((at = strstr(at, word))) {
		if ((at == text || !isalnum((unsigned char)at[-1])) &&
		    !isalnum((unsigned char)at[strlen(word)]))
			return true;
		at++;
	}
	return false;
}

static bool irq_of_device(const struct nic *nic, unsigned int irq)
{
	static const char * const dirs[] = { "device", "device/.." };
	char path[128];
	size_t i;

	/* That of a virtio device belongs to the PCI device above it. */
	for (i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/%s/msi_irqs/%u",
			 nic->name, dirs[i], irq);
		if (!access(path, F_OK))
			return true;
	}
	return false;
}

static void irqs_of_names(struct nic *nic)
{
	char *line = NULL, *name;
	FILE *f = fopen("/proc/interrupts", "re");
	unsigned int irq;
	size_t size = 0;
	int queue, n;

	while (f && getline(&line, &size, f) > 0) {
		if (sscanf(line, " %u:%n", &irq, &n) != 1)
			continue;
		line[strcspn(line, "\n")] = '\0';
		/* The last word of the line; several actions share no MSI. */
		name = strrchr(line, ' ');
		if (!name)
			continue;
		name++;
		queue = queue_in_name(name);
		if (queue >= 0 && (irq_of_device(nic, irq) || has_word(name, nic->name)))
			add_irq(nic, irq, queue, name);
	}
	free(line);
	if (f)
		fclose(f);
}

static int irq_cmp(const void *a, const void *b)
{
	const struct queue_irq *x = a, *y = b;

	if (x->queue != y->queue)
		return x->queue < y->queue ? -1 : 1;
	return (x->irq > y->irq) - (x->irq < y->irq);
}

/* The IRQs of queues, by queue; none where they cannot be told. */
void irqs_find(struct nic *nic)
{
	unsigned int first = -1, last = 0;
	size_t i;

	nic->n_irqs = 0;
	irqs_of_napi(nic);
	if (!nic->n_irqs)
		irqs_of_names(nic);
	for (i = 0; i < nic->n_irqs; i++) {
		if (nic->irqs[i].queue < first)
			first = nic->irqs[i].queue;
		if (nic->irqs[i].queue > last)
			last = nic->irqs[i].queue;
	}
	/* Some drivers count from 1. */
	for (i = 0; i < nic->n_irqs && first == 1 && last == nic->rx_queues; i++)
		nic->irqs[i].queue--;
	if (nic->n_irqs)
		qsort(nic->irqs, nic->n_irqs, sizeof(*nic->irqs), irq_cmp);
}

int irq_affinity(unsigned int irq, struct cpus *cpus)
{
	char path[64], line[4096];

	snprintf(path, sizeof(path), "/proc/irq/%u/smp_affinity_list", irq);
	if (!read_line(path, line, sizeof(line)) || !cpus_parse_list(cpus, line))
		return -1;
	return 0;
}

static int irq_write(struct nic *nic, unsigned int irq, const char *value)
{
	char path[64];
	int fd, ret = 0;

	snprintf(path, sizeof(path), "/proc/irq/%u/smp_affinity_list", irq);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		ret = -errno;
	if (fd >= 0)
		close(fd);
	if (ret == -EIO)
		nic_fail(nic, "the kernel keeps its affinity for itself (a managed interrupt)");
	else if (ret)
		nic_fail(nic, "%s", strerror(-ret));
	return ret;
}

/* Has the device an IRQ of this name? */
bool irq_named(const struct nic *nic, const char *name)
{
	size_t i;

	for (i = 0; i < nic->n_irqs; i++)
		if (!strcmp(nic->irqs[i].name, name))
			return true;
	return false;
}

/* By name; by queue where that is not known or, with the device's, another. */
int irq_set(struct nic *nic, const struct knob *k)
{
	bool by_name, found = false;
	int ret = 0;
	size_t i;

	irqs_find(nic);
	by_name = k->name && irq_named(nic, k->name);
	for (i = 0; !ret && i < nic->n_irqs; i++) {
		if (by_name ? strcmp(k->name, nic->irqs[i].name) :
			      k->index != nic->irqs[i].queue)
			continue;
		found = true;
		ret = irq_write(nic, nic->irqs[i].irq, k->value);
	}
	if (!found) {
		nic_fail(nic, "there is no such interrupt%s",
			 nic->up ? "" : " while the device is down");
		return -ENOENT;
	}
	return ret;
}

/*
 * irqbalance(1), "API". It wants credentials with each request, and reads no
 * more than 500 bytes.
 */
#define IRQBALANCE_MAX	499

static pid_t irqbalance_pid(void)
{
	char name[64], path[64], c[2];
	DIR *d = opendir("/proc");
	struct dirent *de;
	struct stat st;
	pid_t pid = 0;

	while (d && !pid && (de = readdir(d))) {
		if (!isdigit((unsigned char)*de->d_name))
			continue;
		/* Anybody may have that name. (Of this directory, the owner is always told.) */
		snprintf(path, sizeof(path), "/proc/%d", atoi(de->d_name));
		if (stat(path, &st) || st.st_uid)
			continue;
		proc_name(atoi(de->d_name), name, sizeof(name));
		/* One that is ending has no command line any more. */
		snprintf(path, sizeof(path), "/proc/%d/cmdline", atoi(de->d_name));
		if (!strcmp(name, "irqbalance") && read_line(path, c, sizeof(c)))
			pid = atoi(de->d_name);
	}
	if (d)
		closedir(d);
	return pid;
}

/*
 * It dies (SIGPIPE) of an answer that nobody can get any more: where it is late, a
 * process stays behind until it has answered.
 */
static void wait_behind(int fd)
{
	char rest[256];
	int saved = errno;

	if (fork()) {
		errno = saved;
		return;
	}
	setsid();
	/* The lock above all: nobody is to wait for this one. */
	if (fd)
		close_range(0, fd - 1, 0);
	close_range(fd + 1, ~0U, 0);
	while (read(fd, rest, sizeof(rest)) > 0 || errno == EAGAIN || errno == EINTR)
		errno = 0;
	_exit(0);
}

static int irqbalance_ask(struct nic *nic, const char *request, char *answer, size_t size)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(struct ucred))];
	} control = { 0 };
	struct iovec iov = { (char *)request, strlen(request) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.buf, .msg_controllen = sizeof(control.buf),
	};
	struct ucred me = { getpid(), geteuid(), getegid() };
	/* After new bans it looks at all anew, and sleeps for 10 s without hearing anybody. */
	struct timeval limit = { .tv_sec = 15 };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	size_t len = 0;
	ssize_t n = -1;
	int fd;

	/* Once is enough. */
	if (nic->irqbalance_late)
		return -EAGAIN;
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_CREDENTIALS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(me));
	memcpy(CMSG_DATA(cmsg), &me, sizeof(me));
	snprintf(addr.sun_path, sizeof(addr.sun_path),
		 "/run/irqbalance/irqbalance%d.sock", (int)nic->irqbalance);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	/* For connect(), as few may wait to be accepted. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)) &&
	    sendmsg(fd, &msg, MSG_NOSIGNAL) >= 0) {
		/* It closes when it is done, with or without an answer. */
		while (len < size - 1 && (n = read(fd, answer + len, size - 1 - len)) > 0)
			len += n;
		if (n < 0 && errno == EAGAIN)
			wait_behind(fd);
	}
	answer[len] = '\0';
	n = n < 0 ? -errno : 0;
	nic->irqbalance_late = n == -EAGAIN;
	close(fd);
	return n;
}

/* The IRQs that irqbalance leaves alone, NULL where it does not run or talk. */
char *irqbalance_bans(struct nic *nic)
{
	static char answer[65536];
	char *at = answer, *bans, *longer;
	unsigned int irq;
	int ret;

	nic->irqbalance_silent[0] = '\0';
	nic->irqbalance = irqbalance_pid();
	if (!nic->irqbalance)
		return NULL;
	ret = irqbalance_ask(nic, "setup", answer, sizeof(answer));
	if (ret)
		nic->irqbalance = irqbalance_pid();
	if (!nic->irqbalance)
		return NULL;
	if (ret || strncmp(answer, "SLEEP ", 6)) {
		snprintf(nic->irqbalance_silent, sizeof(nic->irqbalance_silent),
			 "its socket in /run/irqbalance does not answer%s%s",
			 ret ? ": " : "", ret ? strerror(-ret) : "");
		return NULL;
	}
	bans = xstrdup("");
	while ((at = strstr(at, "IRQ "))) {
		at += 4;
		irq = strtoul(at, NULL, 10);
		longer = xasprintf("%s%s%u", bans, *bans ? " " : "", irq);
		free(bans);
		bans = longer;
	}
	return bans;
}

/* BANS_OURS is the device's IRQs beside those that are banned already. */
int irqbalance_ban(struct nic *nic, const char *value)
{
	char *list = irqbalance_bans(nic), *longer, answer[16];
	char *padded, irq[16];
	size_t i;
	int ret;

	if (!list) {
		/* It has ended since, and its bans with it. */
		if (!nic->irqbalance)
			return 0;
		nic_fail(nic, "%s", nic->irqbalance_silent);
		return -EIO;
	}
	if (strcmp(value, BANS_OURS)) {
		free(list);
		list = xstrdup(value);
	}
	irqs_find(nic);
	for (i = 0; !strcmp(value, BANS_OURS) && i < nic->n_irqs; i++) {
		padded = xasprintf(" %s ", list);
		snprintf(irq, sizeof(irq), " %u ", nic->irqs[i].irq);
		if (!strstr(padded, irq)) {
			longer = xasprintf("%s%s%u", list, *list ? " " : "",
					   nic->irqs[i].irq);
			free(list);
			list = longer;
		}
		free(padded);
	}
	longer = xasprintf("settings ban irqs %s", *list ? list : "NONE");
	free(list);
	ret = 0;
	if (strlen(longer) > IRQBALANCE_MAX)
		snprintf(nic->irqbalance_silent, sizeof(nic->irqbalance_silent),
			 "its socket takes no list as long as this");
	else
		ret = irqbalance_ask(nic, longer, answer, sizeof(answer));
	free(longer);
	if (ret)
		nic_fail(nic, "irqbalance does not take it: %s", strerror(-ret));
	return ret;
}
