// SPDX-License-Identifier: GPL-2.0
/*
 * fastsocket nic: set a network device up so that a connection's packets come
 * to one CPU, show what is set, and put back what was.
 */
#include <argp.h>
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nic.h"

#define RX_RING		2048	/* packets */
#define RX_USECS	20

enum steer { STEER_AUTO, STEER_NTUPLE, STEER_RSS, STEER_XDP, STEER_OFF, STEERS };

static const char * const steer_name[STEERS] = { "auto", "ntuple", "rss", "xdp", "off" };

struct nic_args {
	const char *device;
	const char *cpus;
	enum steer steer;
	bool dry_run;
	bool json;
};

/**
 * struct plan - what a device is to be
 * @steer: not STEER_AUTO
 * @cpu: CPUs, @n of them; queue q is for cpu[q % n]
 * @queues: rx queues there will be
 * @tx_queues: likewise
 * @classes: of ports, a power of 2
 */
struct plan {
	enum steer steer;
	unsigned int *cpu;
	unsigned int n;
	unsigned int queues;
	unsigned int tx_queues;
	unsigned int classes;
};

int nic_fail(struct nic *nic, const char *fmt, ...)
{
	char *text;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		err(EXIT_FAILURE, "cannot allocate memory");
	va_end(ap);
	free(nic->error);
	nic->error = text;
	return -1;
}

void nic_note(const struct nic *nic, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "%s: ", nic->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static unsigned int least(unsigned int a, unsigned int b)
{
	return a < b ? a : b;
}

static unsigned int power_of_2(unsigned int n)
{
	unsigned int p = 1;

	while (p < n)
		p *= 2;
	return p;
}

static void choose_cpus(const char *list, struct plan *plan)
{
	struct cpus online, chosen;
	unsigned int i;
	char line[4096];

	if (!read_line("/sys/devices/system/cpu/online", line, sizeof(line)) ||
	    !cpus_parse_list(&online, line))
		errx(EXIT_FAILURE, "cannot tell which CPUs are online: /sys/devices/system/cpu/online cannot be read");
	if (list && !cpus_parse_list(&chosen, list))
		errx(EXIT_USAGE, "--cpus wants a list like 0-3,8, not '%s'", list);
	plan->cpu = cpus_array(list ? &chosen : &online, &plan->n);
	if (!plan->n)
		errx(EXIT_USAGE, "--cpus names no CPU");
	for (i = 0; i < plan->n; i++)
		if (!cpus_has(&online, plan->cpu[i]))
			errx(EXIT_FAILURE, "CPU %u of --cpus is not online; online are %s",
			     plan->cpu[i], line);
	if (plan->n > MAX_CLASSES)
		plan->n = MAX_CLASSES;
}

/* How many queues a device will have for so many CPUs. */
static void count_queues(const struct nic *nic, struct plan *plan)
{
	const struct channels *c = &nic->channels;

	plan->queues = nic->rx_queues;
	plan->tx_queues = nic->tx_queues;
	if (nic->have_channels && c->max_combined) {
		plan->queues = c->rx + least(c->max_combined, plan->n);
		plan->tx_queues = c->tx + least(c->max_combined, plan->n);
	} else if (nic->have_channels) {
		plan->queues = least(c->max_rx, plan->n);
		plan->tx_queues = least(c->max_tx, plan->n);
	}
}

/* Why a device cannot say on which CPU a queue is processed; NULL if it can. */
static char *queues_unknown(const struct nic *nic, const struct plan *plan)
{
	unsigned int q;
	size_t i;

	if (plan->queues < 2)
		return xstrdup("it has one rx queue only");
	for (q = 0; q < least(plan->queues, nic->rx_queues); q++) {
		for (i = 0; i < nic->n_irqs; i++)
			if (nic->irqs[i].queue == q)
				break;
		if (i == nic->n_irqs)
			return xasprintf("the interrupt of rx queue %u cannot be found, so that nobody knows which CPU processes it",
					 q);
	}
	return NULL;
}

static char *no_ntuple(struct nic *nic, const struct plan *plan, const struct knobs *now)
{
	const char *on = knobs_first(now, KNOB_NTUPLE);
	unsigned int want = 2 * plan->classes, room;

	if (!on || (!strcmp(on, "off") && nic->ntuple_fixed))
		return xstrdup("it has no ntuple filters");
	/* Some tell of their room only once filters are on. */
	if (!nic->slots)
		return strcmp(on, "on") ? NULL : xstrdup("it has no room for ntuple rules");
	room = nic->slots - least(nic->slots, nic->slots_used) + nic->n_rules;
	if (room < want)
		return xasprintf("it has room for %u more ntuple rules, and %u are needed",
				 room, want);
	return NULL;
}

static char *no_rss(const struct nic *nic, const struct knobs *now)
{
	if (!nic->rss.key_len || !nic->rss.buckets)
		return xstrdup("it does not show the key and the table of its RSS");
	if (nic->rss.hfunc && nic->rss.hfunc != 1)
		return xstrdup("its RSS does not hash by Toeplitz ('ethtool -X DEV hfunc toeplitz' may change that)");
	if (nic->rss.xfrm)
		return xstrdup("its RSS hash is made symmetric ('ethtool -X DEV xfrm none' changes that)");
	if (!knobs_first(now, KNOB_HASH_TCP4) || !knobs_first(now, KNOB_HASH_TCP6))
		return xstrdup("it does not say what its RSS hashes");
	return NULL;
}

static char *no_xdp(struct nic *nic)
{
	if (nic->foreign_xdp)
		return xasprintf("XDP program %u, which is not fastsocket's, is attached and stays; detach it ('ip link set DEV xdp off') if it is not needed",
				 nic->foreign_xdp);
	if (xdp_test(nic))
		return xasprintf("the kernel does not take the XDP program: %s", nic->error);
	return NULL;
}

/* Why the device cannot do it, NULL if it can. */
static char *cannot(struct nic *nic, struct plan *plan, const struct knobs *now)
{
	char *why = NULL;

	if (plan->steer == STEER_NTUPLE || plan->steer == STEER_RSS)
		why = queues_unknown(nic, plan);
	plan->classes = power_of_2(plan->steer == STEER_XDP ? plan->n : plan->queues);
	if (why)
		return why;
	switch (plan->steer) {
	case STEER_NTUPLE:
		return no_ntuple(nic, plan, now);
	case STEER_RSS:
		return no_rss(nic, now);
	case STEER_XDP:
		return no_xdp(nic);
	default:
		return NULL;
	}
}

static void want_number(struct knobs *target, enum knob_kind kind, unsigned int v)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", v);
	knobs_put(target, kind, 0, NULL, text);
}

static void want_queues(const struct nic *nic, const struct plan *plan, struct knobs *target)
{
	if (nic->have_channels && nic->channels.max_combined) {
		want_number(target, KNOB_COMBINED, least(nic->channels.max_combined, plan->n));
	} else if (nic->have_channels) {
		if (nic->channels.max_rx)
			want_number(target, KNOB_RX_CHANNELS, plan->queues);
		if (nic->channels.max_tx)
			want_number(target, KNOB_TX_CHANNELS, plan->tx_queues);
	}
}

static void want_tuning(const struct nic *nic, const struct knobs *now, struct knobs *target)
{
	const char *ring = knobs_first(target, KNOB_RX_RING);
	unsigned int most = least(nic->rx_ring_max, RX_RING);

	if (ring && strtoul(ring, NULL, 10) < most)
		want_number(target, KNOB_RX_RING, most);
	if (knobs_first(now, KNOB_ADAPTIVE_RX))
		knobs_put(target, KNOB_ADAPTIVE_RX, 0, NULL, "off");
	if (knobs_first(now, KNOB_RX_USECS))
		want_number(target, KNOB_RX_USECS, RX_USECS);
}

static void want_cpu(struct knobs *target, enum knob_kind kind, unsigned int queue,
		     const char *name, unsigned int cpu)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", cpu);
	knobs_put(target, kind, queue, name, text);
}

static void want_irqs(const struct nic *nic, const struct plan *plan, struct knobs *target)
{
	unsigned int queue;
	size_t i;

	if (!nic->n_irqs)
		return;
	if (knobs_first(target, KNOB_BANS))
		knobs_put(target, KNOB_BANS, 0, NULL, BANS_OURS);
	for (i = 0; i < nic->n_irqs; i++)
		if (nic->irqs[i].queue < plan->queues)
			want_cpu(target, KNOB_IRQ, nic->irqs[i].queue, nic->irqs[i].name,
				 plan->cpu[nic->irqs[i].queue % plan->n]);
	for (queue = nic->rx_queues; queue < plan->queues; queue++)
		want_cpu(target, KNOB_IRQ, queue, NULL, plan->cpu[queue % plan->n]);
}

/* Each CPU sends by one queue: its own, where there are enough. */
static void want_xps(const struct plan *plan, struct knobs *target)
{
	unsigned int queue, i;
	char *list;

	for (queue = 0; plan->tx_queues > 1 && queue < plan->tx_queues; queue++) {
		struct cpus cpus = { 0 };

		for (i = queue; i < plan->n; i += plan->tx_queues)
			cpus_add(&cpus, plan->cpu[i]);
		list = cpus_list(&cpus);
		knobs_put(target, KNOB_XPS, queue, NULL, list);
		free(list);
	}
}

static void want_rules(const struct plan *plan, struct knobs *target)
{
	unsigned int c, v6;
	char value[32];

	for (v6 = 0; v6 < 2; v6++) {
		for (c = 0; c < plan->classes; c++) {
			snprintf(value, sizeof(value), "%u %u", plan->classes,
				 c % plan->queues);
			knobs_put(target, KNOB_RULE, c | (v6 ? RULE_TCP6 : 0), NULL, value);
		}
	}
}

static void want_module(const struct plan *plan, struct knobs *target)
{
	unsigned int n = plan->steer == STEER_RSS ? plan->queues : plan->classes, i;
	size_t size;
	char *text;
	FILE *f;

	f = open_memstream(&text, &size);
	if (!f)
		err(EXIT_FAILURE, "cannot allocate memory");
	fputs(plan->steer == STEER_RSS ? "rss" : "port", f);
	for (i = 0; i < n; i++)
		fprintf(f, "%c%u", i ? ',' : ' ',
			plan->cpu[(plan->steer == STEER_NTUPLE ? i % plan->queues : i) % plan->n]);
	fclose(f);
	knobs_put(target, KNOB_MODULE, 0, NULL, text);
	free(text);
}

static void want_steering(const struct plan *plan, struct knobs *target, bool module)
{
	struct cpus cpus = { 0 };
	unsigned int i;
	char *list;

	/* Packets are to be processed where they have been steered to. */
	for (i = 0; i < plan->queues; i++) {
		knobs_put(target, KNOB_RPS, i, NULL, "");
		knobs_put(target, KNOB_RFS, i, NULL, "0");
	}
	if (plan->steer != STEER_XDP && knobs_first(target, KNOB_TABLE))
		knobs_put(target, KNOB_TABLE, 0, NULL, "default");
	switch (plan->steer) {
	case STEER_NTUPLE:
		knobs_put(target, KNOB_NTUPLE, 0, NULL, "on");
		want_rules(plan, target);
		break;
	case STEER_RSS:
		knobs_put(target, KNOB_HASH_TCP4, 0, NULL, "sdfn");
		knobs_put(target, KNOB_HASH_TCP6, 0, NULL, "sdfn");
		break;
	default:
		for (i = 0; i < plan->n; i++)
			cpus_add(&cpus, plan->cpu[i]);
		list = cpus_list(&cpus);
		knobs_put(target, KNOB_XDP, 0, NULL, list);
		free(list);
		/* The kernel does it anyway; so it is said, and restored. */
		if (knobs_first(target, KNOB_LRO))
			knobs_put(target, KNOB_LRO, 0, NULL, "off");
		if (knobs_first(target, KNOB_GRO_HW))
			knobs_put(target, KNOB_GRO_HW, 0, NULL, "off");
	}
	if (module)
		want_module(plan, target);
}

/* What the device had before the first setup, without what will not be there. */
static void start_from(const struct nic *nic, const struct plan *plan, struct knobs *target)
{
	const struct knobs *original = &nic->original;
	const char *table;
	char *end;
	size_t i;

	memset(target, 0, sizeof(*target));
	for (i = 0; i < original->n; i++) {
		const struct knob *k = &original->k[i];

		if ((k->kind == KNOB_XPS && k->index >= plan->tx_queues) ||
		    ((k->kind == KNOB_IRQ || k->kind == KNOB_RPS || k->kind == KNOB_RFS) &&
		     k->index >= plan->queues) ||
		    (k->kind == KNOB_IRQ && !irq_named(nic, k->name)))
			continue;
		knobs_put(target, k->kind, k->index, k->name, k->value);
	}
	table = knobs_first(target, KNOB_TABLE);
	while (table && *table && strcmp(table, "default")) {
		if (strtoul(table, &end, 10) >= plan->queues) {
			knobs_put(target, KNOB_TABLE, 0, NULL, "default");
			break;
		}
		table = end + (*end == ' ');
	}
}

static void say_cpus(const struct nic *nic, const struct plan *plan)
{
	struct cpus without = { 0 };
	unsigned int i;
	char *list;

	if (plan->queues >= plan->n || plan->steer == STEER_XDP)
		return;
	for (i = plan->queues; i < plan->n; i++)
		cpus_add(&without, plan->cpu[i]);
	list = cpus_list(&without);
	nic_note(nic, "it has %u queue%s for %u CPUs: nothing is received on CPUs %s, whose workers serve by the slow path%s",
		 plan->queues, plan->queues == 1 ? "" : "s", plan->n, list,
		 plan->steer == STEER_OFF ? "" : "; --steer xdp reaches all CPUs");
	free(list);
}

static void say_irqbalance(const struct nic *nic)
{
	char *args = xstrdup(""), *longer;
	size_t i;

	if (!nic->irqbalance || !nic->n_irqs)
		goto out;
	for (i = 0; i < nic->n_irqs; i++) {
		longer = xasprintf("%s%s--banirq=%u", args, i ? " " : "", nic->irqs[i].irq);
		free(args);
		args = longer;
	}
	if (*nic->irqbalance_silent)
		nic_note(nic, "irqbalance (pid %d) cannot be told to keep away, and will move the interrupts: %s; put IRQBALANCE_ARGS=\"%s\" into /etc/default/irqbalance and restart it",
			 (int)nic->irqbalance, nic->irqbalance_silent, args);
	else
		nic_note(nic, "irqbalance keeps away until it is restarted; IRQBALANCE_ARGS=\"%s\" in /etc/default/irqbalance makes that last",
			 args);
out:
	free(args);
}

static void say_path(const struct nic *nic)
{
	char **list;
	size_t n, i;

	list = path_warnings(&n);
	for (i = 0; i < n; i++) {
		nic_note(nic, "warning: %s", list[i]);
		free(list[i]);
	}
	free(list);
}

/* Keep what is there, unless an earlier setup has. */
static void save(struct nic *nic, const struct knobs *now)
{
	size_t i;

	if (nic->saved)
		return;
	for (i = 0; i < now->n; i++) {
		const struct knob *k = &now->k[i];

		/* Left over from a state that is lost: not to come back. */
		if (k->kind == KNOB_RULE || k->kind == KNOB_XDP || k->kind == KNOB_MODULE)
			continue;
		knobs_put(&nic->original, k->kind, k->index, k->name, k->value);
	}
}

/* 0; 1 if the device does not do it after all, and nothing has been changed. */
static int carry_out(struct nic *nic, struct plan *plan, struct knobs *now,
		     const struct knobs *target, bool dry)
{
	unsigned int changes, undone;
	char *why, *mode = nic->mode;
	bool first = !nic->saved;
	size_t i;

	if (dry) {
		if (nic_apply(nic, target, "set", APPLY_DRY, &changes))
			errx(EXIT_FAILURE, "%s: %s", nic->name, nic->error);
		nic_note(nic, changes ? "a dry run: nothing has been changed" :
			 "all of it is set already");
		return 0;
	}
	nic->mode = xstrdup(steer_name[plan->steer]);
	if (state_write(nic))
		errx(EXIT_FAILURE, "%s; nothing has been changed", nic->error);
	nic->saved = true;
	if (!nic_apply(nic, target, "set", APPLY, &changes)) {
		free(mode);
		if (!changes)
			nic_note(nic, "all of it is set already");
		return 0;
	}
	why = xstrdup(nic->error);
	nic_note(nic, "%s; undoing what has been done", why);
	for (i = 0; i < nic->original.n; i++) {
		const struct knob *k = &nic->original.k[i];

		/* Of queues that were not there when @now was taken. */
		if (k->kind == KNOB_IRQ && !knobs_get(now, k))
			knobs_put(now, k->kind, k->index, k->name, k->value);
	}
	if (nic_apply(nic, now, "undo", APPLY_GOING_ON, &undone))
		errx(EXIT_FAILURE, "%s: not all could be undone; what was there before is saved in %s",
		     nic->name, nic->state_path);
	free(nic->mode);
	nic->mode = mode;
	if (first)
		state_remove(nic);
	else if (state_write(nic))
		errx(EXIT_FAILURE, "%s", nic->error);
	nic_fail(nic, "%s", why);
	free(why);
	return 1;
}

/* A failure that says no more than that this kind of steering is not for it. */
static bool of_steering(enum knob_kind kind)
{
	return kind == KNOB_NTUPLE || kind == KNOB_TABLE || kind == KNOB_HASH_TCP4 ||
	       kind == KNOB_HASH_TCP6 || kind == KNOB_RULE || kind == KNOB_XDP ||
	       kind == KNOB_MODULE;
}

static bool try(struct nic *nic, struct plan *plan, struct knobs *now,
		const struct nic_args *args)
{
	bool auto_ = args->steer == STEER_AUTO, module = false;
	char *why = cannot(nic, plan, now);
	struct knobs target;
	int ret;

	if (why && !auto_)
		errx(EXIT_FAILURE, "%s cannot steer by %s: %s; nothing has been changed, and --steer auto takes what it can do",
		     nic->name, steer_name[plan->steer], why);
	if (why) {
		nic_note(nic, "no steering by %s: %s", steer_name[plan->steer], why);
		free(why);
		return false;
	}
	if (plan->steer != STEER_OFF)
		module = module_steers(&why);
	start_from(nic, plan, &target);
	want_queues(nic, plan, &target);
	want_tuning(nic, now, &target);
	want_irqs(nic, plan, &target);
	want_xps(plan, &target);
	if (plan->steer != STEER_OFF)
		want_steering(plan, &target, module);
	ret = carry_out(nic, plan, now, &target, args->dry_run);
	knobs_free(&target);
	if (ret && auto_ && of_steering(nic->failed)) {
		nic_note(nic, "no steering by %s: %s", steer_name[plan->steer], nic->error);
		free(why);
		return false;
	}
	if (ret)
		errx(EXIT_FAILURE, "%s: %s; nothing has been changed", nic->name, nic->error);
	if (why)
		nic_note(nic, "%s", why);
	free(why);
	return true;
}

/*
 * A link that goes down for a moment may take the terminal with it; the work
 * is to be finished all the same.
 */
static void hold_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGPIPE);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static void need_root(const char *what)
{
	if (geteuid())
		errx(EXIT_FAILURE, "not permitted to %s: run as root", what);
}

static int setup(struct nic *nic, const struct nic_args *args)
{
	struct plan plan = { .steer = args->steer };
	struct knobs now;
	char path[64];

	choose_cpus(args->cpus, &plan);
	nic_snapshot(nic, &now);
	snprintf(path, sizeof(path), "/sys/class/net/%s/device", nic->name);
	if (!nic->up && !nic->n_irqs && !access(path, F_OK))
		errx(EXIT_FAILURE, "%s is down, and has its interrupts only while it is up: 'ip link set %s up', then repeat; nothing has been changed",
		     nic->name, nic->name);
	count_queues(nic, &plan);
	save(nic, &now);
	if (args->steer != STEER_AUTO)
		try(nic, &plan, &now, args);
	else
		for (plan.steer = STEER_NTUPLE; plan.steer < STEER_OFF; plan.steer++)
			if (try(nic, &plan, &now, args))
				break;
	if (plan.steer == STEER_OFF && args->steer == STEER_AUTO)
		try(nic, &plan, &now, args);
	nic_note(nic, "steering: %s", steer_name[plan.steer]);
	if (!nic->n_irqs)
		nic_note(nic, "it has no interrupts that can be found: no affinity is set");
	say_cpus(nic, &plan);
	say_irqbalance(nic);
	say_path(nic);
	if (!args->dry_run)
		nic_note(nic, "what was set before is saved in %s; neither the settings nor this file survive a reboot",
			 nic->state_path);
	knobs_free(&now);
	free(plan.cpu);
	return EXIT_SUCCESS;
}

static int reset(struct nic *nic)
{
	unsigned int changes;

	xdp_look(nic);
	if (!nic->saved && !nic->xdp_id)
		errx(EXIT_FAILURE, "nothing is saved of %s: it has not been set up since the machine was started, and what was set before does not survive a reboot",
		     nic->name);
	if (nic_apply(nic, &nic->original, "set", APPLY_GOING_ON, &changes))
		errx(EXIT_FAILURE, "%s: not all could be restored; it stays saved in %s",
		     nic->name, nic->state_path);
	nic_note(nic, changes ? "all is as it was before the setup" :
		 "nothing differs from what it was before the setup");
	state_remove(nic);
	return EXIT_SUCCESS;
}

static const struct argp_option setup_options[] = {
	{ "steer", 's', "MODE", 0, "How packets find the CPU of their connection: auto (the default), ntuple, rss, xdp or off", 0 },
	{ "cpus", 'c', "LIST", 0, "Use these CPUs instead of all that are online", 0 },
	{ "dry-run", 'n', NULL, 0, "Print what would be changed, change nothing", 0 },
	{ 0 }
};

static const struct argp_option show_options[] = {
	{ "json", 'j', NULL, 0, "Print a JSON object", 0 },
	{ 0 }
};

static error_t parse_opt(int key, char *arg, struct argp_state *state)
{
	struct nic_args *args = state->input;
	int i;

	switch (key) {
	case 's':
		for (i = 0; i < STEERS; i++) {
			if (!strcmp(arg, steer_name[i])) {
				args->steer = i;
				return 0;
			}
		}
		argp_error(state, "--steer is auto, ntuple, rss, xdp or off, not '%s'", arg);
		return 0;
	case 'c':
		args->cpus = arg;
		return 0;
	case 'n':
		args->dry_run = true;
		return 0;
	case 'j':
		args->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (args->device)
			argp_error(state, "there is one device at a time; '%s' is too many", arg);
		args->device = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "the device is missing");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int cmd_setup(int argc, char **argv)
{
	static const struct argp argp = {
		.options = setup_options,
		.parser = parse_opt,
		.args_doc = "DEVICE",
		.doc = "Give each queue of DEVICE a CPU and have the packets of a connection come to one of them. Prints each change before it makes it; what was set before is saved for 'reset'.",
	};
	struct nic_args args = { 0 };
	struct nic nic;
	int ret;

	argp_parse(&argp, argc, argv, 0, NULL, &args);
	need_root("set up a device");
	nic_open(&nic, args.device);
	if (!args.dry_run) {
		ret = state_lock();
		hold_signals();
		if (ret)
			errx(EXIT_FAILURE, "cannot save what is set now in /run/fastsocket: %s; nothing has been changed",
			     strerror(-ret));
	}
	state_read(&nic);
	return setup(&nic, &args);
}

static int cmd_show(int argc, char **argv)
{
	static const struct argp argp = {
		.options = show_options,
		.parser = parse_opt,
		.args_doc = "DEVICE",
		.doc = "Show how DEVICE is set up: queues, interrupts and CPUs, steering, and what is in the way.",
	};
	struct nic_args args = { 0 };
	struct nic nic;

	argp_parse(&argp, argc, argv, 0, NULL, &args);
	nic_open(&nic, args.device);
	state_read(&nic);
	return nic_show(&nic, args.json);
}

static int cmd_reset(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse_opt,
		.args_doc = "DEVICE",
		.doc = "Put everything back that was set before the first 'setup' of DEVICE.",
	};
	struct nic_args args = { 0 };
	struct nic nic;
	int ret;

	argp_parse(&argp, argc, argv, 0, NULL, &args);
	need_root("reset a device");
	nic_open(&nic, args.device);
	ret = state_lock();
	hold_signals();
	if (ret)
		errx(EXIT_FAILURE, "cannot use /run/fastsocket: %s; nothing has been changed",
		     strerror(-ret));
	state_read(&nic);
	return reset(&nic);
}

static const struct command commands[] = {
	{ "setup", "fastsocket nic setup", cmd_setup },
	{ "show", "fastsocket nic show", cmd_show },
	{ "reset", "fastsocket nic reset", cmd_reset },
	{ NULL }
};

static const char doc[] =
	"Set up a network device for core-local connections.\n"
	"\n"
	"Commands:\n"
	"  setup DEVICE   queues, interrupts and steering, a CPU each\n"
	"  show DEVICE    what is set\n"
	"  reset DEVICE   what was set before the setup, again\n"
	"\v"
	"'fastsocket nic COMMAND --help' lists the options of a command.";

int cmd_nic(int argc, char **argv)
{
	return run_command(argc, argv, commands, "nic ", "setup, show and reset",
			   "COMMAND [OPTION...] DEVICE", doc);
}
