// SPDX-License-Identifier: GPL-2.0
/*
 * Settings as text: reading all of them, saying what changes, and setting them
 * in an order that works.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nic.h"

/* Names in the state file. */
const char *knob_key(enum knob_kind kind)
{
	static const char * const keys[KNOBS] = {
		[KNOB_RX_CHANNELS] = "rx-channels",
		[KNOB_TX_CHANNELS] = "tx-channels",
		[KNOB_COMBINED] = "combined-channels",
		[KNOB_RX_RING] = "rx-ring",
		[KNOB_ADAPTIVE_RX] = "adaptive-rx",
		[KNOB_RX_USECS] = "rx-usecs",
		[KNOB_LRO] = "large-receive-offload",
		[KNOB_GRO_HW] = "rx-gro-hw",
		[KNOB_NTUPLE] = "ntuple-filters",
		[KNOB_KEY] = "rss-key",
		[KNOB_TABLE] = "rss-table",
		[KNOB_HASH_TCP4] = "rx-flow-hash-tcp4",
		[KNOB_HASH_TCP6] = "rx-flow-hash-tcp6",
		[KNOB_BANS] = "irqbalance-bans",
		[KNOB_IRQ] = "irq",
		[KNOB_XPS] = "xps",
		[KNOB_RPS] = "rps",
		[KNOB_RFS] = "rfs",
		[KNOB_RULE] = "rule",
		[KNOB_XDP] = "xdp",
		[KNOB_MODULE] = "module",
	};

	return keys[kind];
}

static struct knob *find(const struct knobs *ks, const struct knob *like)
{
	size_t i;

	for (i = 0; i < ks->n; i++) {
		struct knob *k = &ks->k[i];

		if (k->kind == like->kind &&
		    (k->name && like->name ? !strcmp(k->name, like->name) :
					     k->index == like->index))
			return k;
	}
	return NULL;
}

void knobs_put(struct knobs *ks, enum knob_kind kind, unsigned int index,
	       const char *name, const char *value)
{
	struct knob like = { .kind = kind, .index = index, .name = (char *)name };
	struct knob *k = find(ks, &like);

	if (k) {
		free(k->value);
	} else {
		ks->k = xrealloc(ks->k, ks->n + 1, sizeof(*ks->k));
		k = &ks->k[ks->n++];
		*k = (struct knob){
			.kind = kind, .index = index,
			.name = name ? xstrdup(name) : NULL,
		};
	}
	k->value = xstrdup(value);
}

const char *knobs_get(const struct knobs *ks, const struct knob *like)
{
	struct knob *k = find(ks, like);

	return k ? k->value : NULL;
}

const char *knobs_first(const struct knobs *ks, enum knob_kind kind)
{
	size_t i;

	for (i = 0; i < ks->n; i++)
		if (ks->k[i].kind == kind)
			return ks->k[i].value;
	return NULL;
}

void knobs_free(struct knobs *ks)
{
	size_t i;

	for (i = 0; i < ks->n; i++) {
		free(ks->k[i].name);
		free(ks->k[i].value);
	}
	free(ks->k);
	memset(ks, 0, sizeof(*ks));
}

static void put_number(struct knobs *ks, enum knob_kind kind, unsigned int v)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", v);
	knobs_put(ks, kind, 0, NULL, text);
}

static void read_queues(struct nic *nic)
{
	struct channels *c = &nic->channels;
	char path[128];
	struct dirent *de;
	DIR *d;

	nic->have_channels = !ethtool_channels(nic) &&
			     (c->max_combined || c->max_rx || c->max_tx);
	nic->rx_queues = 0;
	nic->tx_queues = 0;
	snprintf(path, sizeof(path), "/sys/class/net/%s/queues", nic->name);
	d = opendir(path);
	while (d && (de = readdir(d))) {
		nic->rx_queues += !strncmp(de->d_name, "rx-", 3);
		nic->tx_queues += !strncmp(de->d_name, "tx-", 3);
	}
	if (d)
		closedir(d);
	/* A kernel without RPS has no directories of rx queues. */
	if (!nic->rx_queues)
		nic->rx_queues = c->rx + c->combined ? c->rx + c->combined : 1;
	if (!nic->tx_queues)
		nic->tx_queues = c->tx + c->combined ? c->tx + c->combined : 1;
}

static void read_rss(struct nic *nic, struct knobs *ks)
{
	struct rss *rss = &nic->rss;
	char *text, *at;
	__u32 i;

	if (ethtool_rss(nic))
		return;
	if (rss->key_len) {
		text = xrealloc(NULL, rss->key_len, 2 + 1);
		for (i = 0; i < rss->key_len; i++)
			sprintf(text + 2 * i, "%02x", rss->key[i]);
		knobs_put(ks, KNOB_KEY, 0, NULL, text);
		free(text);
	}
	if (!rss->buckets)
		return;
	if (rss_is_default(rss, nic->rx_queues)) {
		knobs_put(ks, KNOB_TABLE, 0, NULL, "default");
		return;
	}
	text = xrealloc(NULL, rss->buckets, 12);
	for (at = text, i = 0; i < rss->buckets; i++)
		at += sprintf(at, "%s%u", i ? " " : "", rss->table[i]);
	knobs_put(ks, KNOB_TABLE, 0, NULL, text);
	free(text);
}

static void queue_path(const struct nic *nic, const struct knob *k, char *path, size_t size)
{
	static const char * const files[] = {
		[KNOB_XPS] = "xps_cpus", [KNOB_RPS] = "rps_cpus", [KNOB_RFS] = "rps_flow_cnt",
	};

	snprintf(path, size, "/sys/class/net/%s/queues/%s-%u/%s", nic->name,
		 k->kind == KNOB_XPS ? "tx" : "rx", k->index, files[k->kind]);
}

static void read_queue(struct nic *nic, struct knobs *ks, enum knob_kind kind,
		       unsigned int queue)
{
	struct knob k = { .kind = kind, .index = queue };
	char path[128], line[8192], *list;
	struct cpus cpus;

	queue_path(nic, &k, path, sizeof(path));
	/* Without several tx queues, there is no XPS to be read. */
	if (!read_line(path, line, sizeof(line)))
		return;
	if (kind == KNOB_RFS) {
		knobs_put(ks, kind, queue, NULL, line);
	} else if (cpus_parse_mask(&cpus, line)) {
		list = cpus_list(&cpus);
		knobs_put(ks, kind, queue, NULL, list);
		free(list);
	}
}

static void read_irqs(struct nic *nic, struct knobs *ks)
{
	struct cpus cpus;
	char *text;
	size_t i;

	irqs_find(nic);
	text = irqbalance_bans(nic);
	if (text)
		knobs_put(ks, KNOB_BANS, 0, NULL, text);
	free(text);
	for (i = 0; i < nic->n_irqs; i++) {
		if (irq_affinity(nic->irqs[i].irq, &cpus))
			continue;
		text = cpus_list(&cpus);
		knobs_put(ks, KNOB_IRQ, nic->irqs[i].queue, nic->irqs[i].name, text);
		free(text);
	}
}

/* All that is set now, in @ks, and what the device can do, in @nic. */
void nic_snapshot(struct nic *nic, struct knobs *ks)
{
	int adaptive, usecs, kind, v6;
	bool on, fixed = true;
	char fields[16];
	unsigned int i;
	__u32 ring;

	memset(ks, 0, sizeof(*ks));
	read_queues(nic);
	if (nic->have_channels) {
		if (nic->channels.max_rx)
			put_number(ks, KNOB_RX_CHANNELS, nic->channels.rx);
		if (nic->channels.max_tx)
			put_number(ks, KNOB_TX_CHANNELS, nic->channels.tx);
		if (nic->channels.max_combined)
			put_number(ks, KNOB_COMBINED, nic->channels.combined);
	}
	ethtool_ring(nic, &ring);
	if (nic->rx_ring_max)
		put_number(ks, KNOB_RX_RING, ring);
	ethtool_coalesce(nic, &adaptive, &usecs);
	if (adaptive >= 0)
		knobs_put(ks, KNOB_ADAPTIVE_RX, 0, NULL, adaptive ? "on" : "off");
	if (usecs >= 0)
		put_number(ks, KNOB_RX_USECS, usecs);
	for (kind = KNOB_LRO; kind <= KNOB_NTUPLE; kind++)
		if (!ethtool_feature(nic, NULL, feature_of(kind), &on, &fixed))
			knobs_put(ks, kind, 0, NULL, on ? "on" : "off");
	nic->ntuple_fixed = fixed;
	read_rss(nic, ks);
	for (v6 = 0; v6 < 2; v6++)
		if (!ethtool_hash_fields(nic, v6, fields))
			knobs_put(ks, v6 ? KNOB_HASH_TCP6 : KNOB_HASH_TCP4, 0, NULL, fields);
	read_irqs(nic, ks);
	for (i = 0; i < nic->tx_queues; i++)
		read_queue(nic, ks, KNOB_XPS, i);
	for (i = 0; i < nic->rx_queues; i++) {
		read_queue(nic, ks, KNOB_RPS, i);
		read_queue(nic, ks, KNOB_RFS, i);
	}
	ethtool_rules(nic);
	for (i = 0; i < nic->n_rules; i++) {
		char value[32];

		snprintf(value, sizeof(value), "%u %u", nic->rules[i].classes,
			 nic->rules[i].queue);
		knobs_put(ks, KNOB_RULE, nic->rules[i].index, NULL, value);
	}
	xdp_look(nic);
	if (nic->xdp_id)
		knobs_put(ks, KNOB_XDP, 0, NULL, nic->xdp_cpus ? nic->xdp_cpus : "unknown");
	if (nic->told && !module_forgot(nic->ifindex))
		knobs_put(ks, KNOB_MODULE, 0, NULL, nic->told);
}

static int set_queue(struct nic *nic, const struct knob *k)
{
	char path[128], *mask = NULL;
	const char *value = k->value;
	struct cpus cpus;
	int fd, ret = 0;

	if (k->kind != KNOB_RFS) {
		cpus_parse_list(&cpus, k->value);
		mask = cpus_mask(&cpus);
		value = mask;
	}
	queue_path(nic, k, path, sizeof(path));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		ret = nic_fail(nic, "%s", strerror(errno));
	if (fd >= 0)
		close(fd);
	free(mask);
	return ret;
}

static int set_rule(struct nic *nic, const struct knob *k)
{
	unsigned int classes, queue;
	size_t i;
	int ret;

	for (i = 0; i < nic->n_rules; i++) {
		if (nic->rules[i].index == k->index) {
			ret = ethtool_rule_del(nic, &nic->rules[i]);
			if (ret)
				return ret;
			break;
		}
	}
	if (sscanf(k->value, "%u %u", &classes, &queue) == 2)
		return ethtool_rule_add(nic, k->index, classes, queue);
	return 0;
}

/* 0, or not with nic->error set. */
int knob_set(struct nic *nic, const struct knob *k)
{
	int ret;

	switch (k->kind) {
	case KNOB_BANS:
		return irqbalance_ban(nic, k->value);
	case KNOB_IRQ:
		return irq_set(nic, k);
	case KNOB_XPS:
	case KNOB_RPS:
	case KNOB_RFS:
		return set_queue(nic, k);
	case KNOB_RULE:
		ret = set_rule(nic, k);
		break;
	case KNOB_XDP:
		ret = xdp_set(nic, k->value);
		break;
	case KNOB_MODULE:
		ret = module_tell(nic, k->value);
		break;
	default:
		return ethtool_set(nic, k->kind, k->value);
	}
	/* What only the file knows is in it before anything else is done. */
	if (!ret && nic->saved)
		ret = state_write(nic);
	return ret;
}

static char *label(const struct nic *nic, const struct knob *k)
{
	size_t i;

	switch (k->kind) {
	case KNOB_RX_CHANNELS:
		return xstrdup("rx channels");
	case KNOB_TX_CHANNELS:
		return xstrdup("tx channels");
	case KNOB_COMBINED:
		return xstrdup("combined channels");
	case KNOB_RX_RING:
		return xstrdup("rx ring");
	case KNOB_KEY:
		return xstrdup("RSS key");
	case KNOB_TABLE:
		return xstrdup("RSS table");
	case KNOB_BANS:
		return xasprintf("irqbalance (pid %d) banned IRQs", (int)nic->irqbalance);
	case KNOB_IRQ:
		for (i = 0; i < nic->n_irqs; i++)
			if (k->name && !strcmp(k->name, nic->irqs[i].name))
				return xasprintf("IRQ %u (%s) affinity",
						 nic->irqs[i].irq, k->name);
		return xasprintf("IRQ of %squeue %u affinity", k->name ? "" : "new ", k->index);
	case KNOB_XPS:
		return xasprintf("tx queue %u XPS CPUs", k->index);
	case KNOB_RPS:
		return xasprintf("rx queue %u RPS CPUs", k->index);
	case KNOB_RFS:
		return xasprintf("rx queue %u RFS flows", k->index);
	case KNOB_RULE:
		return xasprintf("ntuple rule tcp%c class %u", k->index & RULE_TCP6 ? '6' : '4',
				 k->index & ~RULE_TCP6);
	case KNOB_XDP:
		return xstrdup("XDP program");
	case KNOB_MODULE:
		return xstrdup("module");
	default:
		return xstrdup(knob_key(k->kind));
	}
}

static char *shown(const struct knob *k, const char *value)
{
	unsigned int classes, queue;

	if (!value || !*value)
		return xstrdup("none");
	switch (k->kind) {
	case KNOB_KEY:
		return xasprintf("%.8s...", value);
	case KNOB_TABLE:
		return xstrdup(strcmp(value, "default") ? "as saved" : value);
	case KNOB_RULE:
		sscanf(value, "%u %u", &classes, &queue);
		return xasprintf("dst-port %#x/%#x to queue %u",
				 0x8000 | (k->index & ~RULE_TCP6),
				 0x8000 | (classes - 1), queue);
	case KNOB_XDP:
		return xasprintf("fastsocket_xdp to CPUs %s", value);
	case KNOB_MODULE:
		return xasprintf("by %s %s", strncmp(value, "rss", 3) ? "class of port, CPUs" :
				 "queue, CPUs", strchr(value, ' ') + 1);
	default:
		return xstrdup(value);
	}
}

/* Is the IRQ in a list of numbers with blanks between? */
static bool listed(const char *list, unsigned int irq)
{
	unsigned long n;
	char *end;

	while (*list) {
		n = strtoul(list, &end, 10);
		if (end == list)
			return false;
		if (n == irq)
			return true;
		list = end;
	}
	return false;
}

static bool same(const struct nic *nic, const struct knob *k, const char *have)
{
	size_t i;

	if (k->kind == KNOB_BANS && have && !strcmp(k->value, BANS_OURS)) {
		for (i = 0; i < nic->n_irqs; i++)
			if (!listed(have, nic->irqs[i].irq))
				return false;
		return true;
	}
	/* What a queue has that is not there yet. */
	if (!have && (k->kind == KNOB_RPS || k->kind == KNOB_RFS || k->kind == KNOB_XPS))
		return !*k->value || !strcmp(k->value, "0");
	return have ? !strcmp(have, k->value) : !*k->value;
}

/**
 * struct run - an nic_apply() in progress
 * @verb: first word of each line
 * @dry: say it, do not do it
 * @failed: the first failure, where the run went on
 * @changes: how many lines
 */
struct run {
	const char *verb;
	bool dry;
	int failed;
	unsigned int changes;
};

static void say(const struct nic *nic, struct run *run, const struct knob *k, const char *old)
{
	char *what = label(nic, k), *from = shown(k, old), *to = shown(k, k->value);

	printf("%-5s%s %s -> %s\n", run->verb, what, from, to);
	free(what);
	free(from);
	free(to);
	run->changes++;
}

/* What makes a device better, but no difference to where packets go. */
static bool optional(enum knob_kind kind)
{
	return kind == KNOB_RX_RING || kind == KNOB_ADAPTIVE_RX || kind == KNOB_RX_USECS;
}

static int set_one(struct nic *nic, struct run *run, const struct knob *k, bool going_on)
{
	char *what, *why;
	int ret;

	if (run->dry)
		return 0;
	ret = knob_set(nic, k);
	if (!ret)
		return 0;
	what = label(nic, k);
	why = xasprintf("cannot set %s: %s", what, nic->error ? nic->error : "?");
	if (ret == -EOPNOTSUPP && optional(k->kind)) {
		nic_note(nic, "%s; it stays as it is", why);
		ret = 0;
	} else if (going_on) {
		nic_note(nic, "%s", why);
		run->failed = ret;
		ret = 0;
	} else {
		nic_fail(nic, "%s", why);
		nic->failed = k->kind;
	}
	free(what);
	free(why);
	return ret;
}

/* Those of setup's own making, which go where @target does not have them. */
static bool is_made(enum knob_kind kind)
{
	return kind == KNOB_RULE || kind == KNOB_XDP || kind == KNOB_MODULE;
}

static int take_away(struct nic *nic, struct run *run, const struct knobs *fresh,
		     const struct knobs *target, bool going_on)
{
	const char *want;
	int ret = 0;
	size_t i;

	/* The module first: it is not to believe what no longer holds. */
	for (i = fresh->n; !ret && i-- > 0;) {
		struct knob none = fresh->k[i];

		if (!is_made(none.kind))
			continue;
		want = knobs_get(target, &none);
		/* An XDP program is replaced by the other. */
		if (want && (none.kind == KNOB_XDP || !strcmp(want, none.value)))
			continue;
		none.value = KNOB_NONE;
		say(nic, run, &none, fresh->k[i].value);
		ret = set_one(nic, run, &none, going_on);
	}
	return ret;
}

/* How many rx queues there will be; where that cannot be set, no matter. */
static unsigned int queues_of(const struct knobs *target)
{
	const char *rx = knobs_first(target, KNOB_RX_CHANNELS);
	const char *combined = knobs_first(target, KNOB_COMBINED);

	if (!rx && !combined)
		return -1;
	return (rx ? strtoul(rx, NULL, 10) : 0) +
	       (combined ? strtoul(combined, NULL, 10) : 0);
}

/* An interrupt can be set by its name only as long as its queue is there. */
static int set_leaving(struct nic *nic, struct run *run, const struct knobs *fresh,
		       const struct knobs *target, bool going_on)
{
	unsigned int queues = queues_of(target);
	const char *old;
	int ret = 0;
	size_t i;

	for (i = 0; !ret && i < target->n; i++) {
		const struct knob *k = &target->k[i];

		if (k->kind != KNOB_IRQ || k->index < queues)
			continue;
		old = knobs_get(fresh, k);
		if (!old || !strcmp(old, k->value))
			continue;
		say(nic, run, k, old);
		ret = set_one(nic, run, k, going_on);
	}
	return ret;
}

/* Save how the interrupts of queues that setup has made were found. */
static int save_new_irqs(struct nic *nic, const struct knobs *now)
{
	bool found = false;
	size_t i;

	for (i = 0; nic->saved && i < now->n; i++) {
		const struct knob *k = &now->k[i];

		if (k->kind != KNOB_IRQ || knobs_get(&nic->original, k))
			continue;
		knobs_put(&nic->original, k->kind, k->index, k->name, k->value);
		found = true;
	}
	return found ? state_write(nic) : 0;
}

static int set_kind(struct nic *nic, struct run *run, enum knob_kind kind,
		    const struct knobs *fresh, const struct knobs *now,
		    const struct knobs *target, bool going_on)
{
	unsigned int queues = queues_of(target);
	const char *old;
	int ret = 0;
	size_t i;

	for (i = 0; !ret && i < target->n; i++) {
		const struct knob *k = &target->k[i];

		if (k->kind != kind || (kind == KNOB_IRQ && k->index >= queues))
			continue;
		old = knobs_get(fresh, k);
		if (is_made(kind) && kind != KNOB_XDP && old && strcmp(old, k->value))
			old = NULL;	/* taken away above */
		if (!same(nic, k, old))
			say(nic, run, k, old);
		else if (same(nic, k, knobs_get(now, k)))
			continue;
		ret = set_one(nic, run, k, going_on);
	}
	return ret;
}

/* The kernel refuses fewer queues than a table uses that somebody has set. */
static int clear_table(struct nic *nic, struct run *run, const struct knobs *fresh,
		       const struct knobs *target, bool going_on)
{
	const char *have = knobs_first(fresh, KNOB_TABLE);
	const char *want = knobs_first(target, KNOB_TABLE);
	struct knob table = { .kind = KNOB_TABLE, .value = "default" };

	if (!have || !want || !strcmp(have, want) || strcmp(want, "default"))
		return 0;
	return set_one(nic, run, &table, going_on);
}

/*
 * Make what is set into @target, and print each change as "@verb what old ->
 * new" before it is made. The lines are the same for APPLY_DRY. 0, or not with
 * nic->error set.
 */
int nic_apply(struct nic *nic, const struct knobs *target, const char *verb,
	      enum apply how, unsigned int *changes)
{
	struct run run = { .verb = verb, .dry = how == APPLY_DRY };
	bool going_on = how == APPLY_GOING_ON, remade = false;
	struct knobs fresh, later = { 0 };
	int kind, ret;

	nic_snapshot(nic, &fresh);
	ret = take_away(nic, &run, &fresh, target, going_on);
	if (!ret)
		ret = set_leaving(nic, &run, &fresh, target, going_on);
	for (kind = 0; !ret && kind <= KNOB_RX_RING; kind++) {
		unsigned int before = run.changes;

		if (kind == KNOB_RX_CHANNELS)
			ret = clear_table(nic, &run, &fresh, target, going_on);
		if (!ret)
			ret = set_kind(nic, &run, kind, &fresh, &fresh, target, going_on);
		remade |= run.changes != before;
	}
	/* Queues that are made anew have forgotten what was said of them. */
	if (remade && !run.dry && !ret) {
		nic_snapshot(nic, &later);
		ret = save_new_irqs(nic, &later);
	}
	for (; !ret && kind < KNOBS; kind++)
		ret = set_kind(nic, &run, kind, &fresh, later.n ? &later : &fresh,
			       target, going_on);
	knobs_free(&fresh);
	knobs_free(&later);
	*changes = run.changes;
	return ret ? ret : run.failed;
}
