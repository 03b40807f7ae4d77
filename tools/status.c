// SPDX-License-Identifier: GPL-2.0
/*
 * fastsocket status: per core and per program, once or again and again.
 */
#include <argp.h>
#include <err.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "status.h"

struct status_args {
	bool json;
	double interval;
};

static const struct argp_option options[] = {
	{ "json", 'j', NULL, 0, "Print a JSON object, with --watch one per line", 0 },
	{ "watch", 'w', "SECONDS", OPTION_ARG_OPTIONAL, "Repeat every second, or every SECONDS, with rates", 0 },
	{ 0 }
};

static error_t parse_opt(int key, char *arg, struct argp_state *state)
{
	struct status_args *args = state->input;
	char *end;

	switch (key) {
	case 'j':
		args->json = true;
		return 0;
	case 'w':
		args->interval = 1;
		if (!arg)
			return 0;
		args->interval = strtod(arg, &end);
		/* A day is long enough; the comparison refuses NaN, too. */
		if (end == arg || *end ||
		    !(args->interval >= 0.01 && args->interval <= 86400))
			argp_error(state, "--watch wants seconds between 0.01 and 86400, not '%s'",
				   arg);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static char *number(double v, bool rate)
{
	return xasprintf("%.*f", rate && v > 0 && v < 10, v);
}

static char *share(double local, double remote, double slow)
{
	double all = local + remote + slow;

	/* 100.0% is said only of all: round down, but not what rates lose. */
	return all > 0 ? xasprintf("%.1f%%", floor(1000 * local / all + 1e-6) / 10) :
			 xstrdup("-");
}

static void print_head(const struct snapshot *s)
{
	static const char * const words[] = {
		"off, every connection takes the slow path",
		"workers that are bound to one CPU get a local listener there",
		"each worker gets a CPU and a local listener there",
	};

	printf("fastsocket %s, net.fastsocket.listen_spawn = ",
	       *s->version ? s->version : "(unknown version)");
	if (s->listen_spawn < 0)
		printf("? (cannot be read)\n");
	else
		printf("%d: %s\n", s->listen_spawn,
		       s->listen_spawn < 3 ? words[s->listen_spawn] : "a mode this command does not know");
}

static void print_cpus(const struct snapshot *s, const struct snapshot *old)
{
	static const char * const head[] = {
		"CPU", "LISTENERS", "ACCEPT-LOCAL", "REMOTE", "SLOW", "SHARE",
		"SYN-LOCAL", "SYN-SLOW", "QUEUE", "DROPS",
	};
	unsigned long long cpu, live, queue, drops, sum[3] = { 0 };
	long present = sysconf(_SC_NPROCESSORS_CONF);
	double local, remote, slow, syn_local, syn_slow;
	struct grid *g = grid_new("rrrrrrrrrr");
	size_t i;

	printf("\n%s:\n", old ? "Per second" : "Since the module was loaded");
	for (i = 0; i < sizeof(head) / sizeof(head[0]); i++)
		grid_add(g, xstrdup(head[i]));
	for (i = 0; i <= s->stats.rows; i++) {
		bool last = i == s->stats.rows;

#define VALUE(col) (last ? total(s, old, col) : counter(s, old, i, col))
		local = VALUE("accept_local");
		remote = VALUE("accept_remote");
		slow = VALUE("accept_slow");
		syn_local = VALUE("syn_local");
		syn_slow = VALUE("syn_slow");
#undef VALUE
		if (last) {
			live = sum[0];
			queue = sum[1];
			drops = sum[2];
			grid_add(g, xstrdup("all"));
		} else {
			cpu = table_num(&s->stats, i, "cpu");
			cpu_listeners(s, cpu, &live, &queue, &drops);
			sum[0] += live;
			sum[1] += queue;
			sum[2] += drops;
			/* Sockets for CPUs that were never plugged in. */
			if ((long)cpu >= present && !live && !queue && !drops &&
			    local + remote + slow + syn_local + syn_slow == 0)
				continue;
			grid_add(g, xasprintf("%llu", cpu));
		}
		grid_add(g, xasprintf("%llu", live));
		grid_add(g, number(local, old));
		grid_add(g, number(remote, old));
		grid_add(g, number(slow, old));
		grid_add(g, share(local, remote, slow));
		grid_add(g, number(syn_local, old));
		grid_add(g, number(syn_slow, old));
		grid_add(g, xasprintf("%llu", queue));
		grid_add(g, xasprintf("%llu", drops));
	}
	grid_print(g);
}

/* Of the connections that programs accept, and of those that they make. */
static const char * const packet_cols[2][3] = {
	{ "passive_local", "passive_remote", "passive_missed" },
	{ "active_local", "active_remote", "active_missed" },
};

static const char * const connect_cols[] = { "connect_local", "connect_stock" };

static bool has_all(const struct snapshot *s, const char * const *cols, size_t n)
{
	while (n--)
		if (!table_has(&s->stats, cols[n]))
			return false;
	return true;
}

/* A cell of the column, or of its sum below the last line: "-" without it. */
static char *cell(const struct snapshot *s, const struct snapshot *old, size_t row,
		  const char *col)
{
	if (!table_has(&s->stats, col))
		return xstrdup("-");
	return number(row < s->stats.rows ? counter(s, old, row, col) :
					    total(s, old, col), old);
}

static char *packet_share(const struct snapshot *s, const struct snapshot *old,
			  size_t row, const char * const *cols)
{
	double v[3];
	size_t i;

	if (!has_all(s, cols, 3))
		return xstrdup("-");
	for (i = 0; i < 3; i++)
		v[i] = row < s->stats.rows ? counter(s, old, row, cols[i]) :
					     total(s, old, cols[i]);
	/* What the table has missed is on the right core all the same. */
	return share(v[0] + v[2], v[1], 0);
}

static bool idle(const struct snapshot *s, size_t row)
{
	unsigned long long sum = 0;
	size_t i, j;

	for (i = 0; i < 2; i++) {
		for (j = 0; j < 3; j++)
			sum += table_num(&s->stats, row, packet_cols[i][j]);
		sum += table_num(&s->stats, row, connect_cols[i]);
	}
	return !sum;
}

static void print_packets(const struct snapshot *s, const struct snapshot *old)
{
	static const char * const head[] = {
		"CPU", "PASSIVE-LOCAL", "REMOTE", "MISSED", "SHARE",
		"ACTIVE-LOCAL", "REMOTE", "MISSED", "SHARE",
		"CONNECT-LOCAL", "STOCK",
	};
	long present = sysconf(_SC_NPROCESSORS_CONF);
	bool all[2] = { has_all(s, packet_cols[0], 3), has_all(s, packet_cols[1], 3) };
	unsigned long long cpu;
	struct grid *g;
	size_t i, j, k;

	if (!all[0] && !all[1] && !has_all(s, connect_cols, 2))
		return;
	printf("\nPackets of connections accepted (passive) and made (active)%s:\n",
	       old ? ", per second" : "");
	g = grid_new("rrrrrrrrrrr");
	for (i = 0; i < sizeof(head) / sizeof(head[0]); i++)
		grid_add(g, xstrdup(head[i]));
	for (i = 0; i <= s->stats.rows; i++) {
		if (i < s->stats.rows) {
			cpu = table_num(&s->stats, i, "cpu");
			if ((long)cpu >= present && idle(s, i))
				continue;
			grid_add(g, xasprintf("%llu", cpu));
		} else {
			grid_add(g, xstrdup("all"));
		}
		for (j = 0; j < 2; j++) {
			for (k = 0; k < 3; k++)
				grid_add(g, cell(s, old, i, packet_cols[j][k]));
			grid_add(g, packet_share(s, old, i, packet_cols[j]));
		}
		for (j = 0; j < 2; j++)
			grid_add(g, cell(s, old, i, connect_cols[j]));
	}
	grid_print(g);

	printf("core-local packets:");
	for (j = 0; j < 2; j++) {
		double v[3];
		char *text = packet_share(s, old, s->stats.rows, packet_cols[j]);

		printf("%s %s %s", j ? "," : "", j ? "active" : "passive", text);
		free(text);
		if (!all[j])
			continue;
		for (k = 0; k < 3; k++)
			v[k] = total(s, old, packet_cols[j][k]);
		printf(" (%.0f of %.0f)", v[0] + v[2], v[0] + v[1] + v[2]);
	}
	printf("\n");
}

/* "1-4,7", with the tail left out where it is long. */
static char *ranges(const long *v, size_t n)
{
	size_t i, j, shown = 0, size;
	char *text;
	FILE *f;

	f = open_memstream(&text, &size);
	if (!f)
		err(EXIT_FAILURE, "cannot allocate memory");
	for (i = 0; i < n; i = j) {
		for (j = i + 1; j < n && v[j] == v[j - 1] + 1; j++)
			;
		if (shown++ == 8) {
			fputs(",...", f);
			break;
		}
		fprintf(f, "%s%ld", i ? "," : "", v[i]);
		if (j > i + 1)
			fprintf(f, "%c%ld", j > i + 2 ? '-' : ',', v[j - 1]);
	}
	if (!n)
		fputc('-', f);
	fclose(f);
	return text;
}

static char *cpu_ranges(const struct program *p, size_t cpus)
{
	long *v = xrealloc(NULL, cpus, sizeof(*v));
	size_t i, n = 0;
	char *text;

	for (i = 0; i < cpus; i++)
		if (p->cpu[i])
			v[n++] = i;
	text = ranges(v, n);
	free(v);
	return text;
}

static char *pid_text(const struct program *p)
{
	char *pids = ranges(p->pids, p->n_pids), *text;

	if (p->threads <= (int)p->n_pids)
		return pids;
	text = xasprintf("%s (%d threads)", pids, p->threads);
	free(pids);
	return text;
}

static void print_programs(const struct snapshot *s,
			   const struct programs *progs)
{
	struct grid *g = grid_new("lllll");
	size_t i;

	printf("\n");
	if (!progs->n)
		printf("No program listens on TCP here.\n");
	else
		for (i = 0; i < 5; i++)
			grid_add(g, xstrdup((const char *[]){
				"PROGRAM", "PID", "LISTEN", "CPUS", "CONNECTIONS" }[i]));
	for (i = 0; i < progs->n; i++) {
		const struct program *p = &progs->p[i];
		const struct parent *parent = &s->parent[p->parent];

		grid_add(g, xstrdup(p->name ? p->name : "?"));
		grid_add(g, pid_text(p));
		grid_add(g, xasprintf(parent->family == AF_INET6 ? "[%s]:%u" : "%s:%u",
				      parent->addr, parent->port));
		grid_add(g, cpu_ranges(p, s->cpus));
		grid_add(g, xstrdup(path_text[p->path]));
	}
	grid_print(g);
}

static void print_text(const struct snapshot *s, const struct snapshot *old,
		       const struct processes *ps, const struct programs *progs)
{
	double local = total(s, old, "accept_local");
	double remote = total(s, old, "accept_remote");
	double slow = total(s, old, "accept_slow");
	char *text = share(local, remote, slow);

	print_head(s);
	print_cpus(s, old);
	if (local + remote + slow > 0)
		printf("Accepted on the core of the SYN: %s\n", text);
	free(text);
	print_packets(s, old);
	print_programs(s, progs);
	if (ps->unreadable)
		printf("%zu process%s could not be looked into%s.\n", ps->unreadable,
		       ps->unreadable == 1 ? "" : "es",
		       geteuid() ? ": run as root to see all programs" : "");
	else if (progs->unknown)
		printf("?: held by a process that cannot be seen from here.\n");
}

static void show(const struct status_args *args, const struct snapshot *s,
		 const struct snapshot *old, struct holders *h)
{
	struct programs progs;

	holders_update(h, s);
	programs_find(&progs, s, &h->ps);
	if (args->json)
		print_json(s, old, &h->ps, &progs);
	else
		print_text(s, old, &h->ps, &progs);
	programs_free(&progs);
}

static void watch(const struct status_args *args, struct snapshot *s,
		  struct holders *h)
{
	struct snapshot old;
	struct timespec pause = {
		.tv_sec = args->interval,
		.tv_nsec = fmod(args->interval, 1) * 1e9,
	};

	for (;;) {
		if (fflush(stdout))
			err(EXIT_FAILURE, "cannot write the output");
		clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		old = *s;
		snapshot_read(s);
		if (!args->json)
			fputs(isatty(STDOUT_FILENO) ? "\033[H\033[2J" : "\n", stdout);
		show(args, s, &old, h);
		snapshot_free(&old);
	}
}

int cmd_status(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_opt,
		.doc = "Show, for the network namespace of the caller, which cores and programs have local listeners and how many connections they accept on the core of their SYN.",
	};
	struct status_args args = { 0 };
	struct holders h = { 0 };
	struct snapshot s;

	argp_parse(&argp, argc, argv, 0, NULL, &args);

	snapshot_read(&s);
	if (args.interval && !args.json && isatty(STDOUT_FILENO))
		fputs("\033[H\033[2J", stdout);
	show(&args, &s, NULL, &h);
	if (args.interval)
		watch(&args, &s, &h);
	snapshot_free(&s);
	processes_free(&h.ps);
	free(h.want);
	return EXIT_SUCCESS;
}
