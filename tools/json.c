// SPDX-License-Identifier: GPL-2.0
/*
 * fastsocket status --json.
 */
#include <err.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

static void add(struct json_object *obj, const char *key, struct json_object *val)
{
	if (json_object_object_add(obj, key, val))
		errx(EXIT_FAILURE, "cannot allocate memory");
}

static struct json_object *u64(unsigned long long v)
{
	return json_object_new_uint64(v);
}

/* Rounded: the digits of a double that mean nothing are only noise. */
static struct json_object *decimal(double v, int digits)
{
	char text[64];

	snprintf(text, sizeof(text), "%.*f", digits, v);
	return json_object_new_double_s(v, text);
}

/* Columns as they are named in /proc, so that new ones appear by themselves. */
static struct json_object *row_json(const struct table *t, size_t row)
{
	struct json_object *obj = json_object_new_object();
	const char *cell;
	size_t i;

	for (i = 0; i < t->cols; i++) {
		cell = t->cell[row * t->cols + i];
		if (*cell && cell[strspn(cell, "0123456789")] == '\0')
			add(obj, t->head[i], u64(strtoull(cell, NULL, 10)));
		else
			add(obj, t->head[i], json_object_new_string(cell));
	}
	return obj;
}

static void add_listener_sums(struct json_object *obj, unsigned long long live,
			      unsigned long long queue, unsigned long long drops)
{
	add(obj, "listeners", u64(live));
	add(obj, "queue", u64(queue));
	add(obj, "drops", u64(drops));
}

static void add_cpus_json(struct json_object *obj, const struct snapshot *s,
			  const struct snapshot *old)
{
	struct json_object *cpus = json_object_new_array();
	struct json_object *totals = json_object_new_object();
	struct json_object *rates = json_object_new_object();
	unsigned long long live, queue, drops, sum[3] = { 0 };
	const char *name;
	size_t i;

	for (i = 0; i < s->stats.rows; i++) {
		struct json_object *cpu = row_json(&s->stats, i);

		cpu_listeners(s, table_num(&s->stats, i, "cpu"), &live, &queue, &drops);
		sum[0] += live;
		sum[1] += queue;
		sum[2] += drops;
		add_listener_sums(cpu, live, queue, drops);
		json_object_array_add(cpus, cpu);
	}
	for (i = 0; i < s->stats.cols; i++) {
		name = s->stats.head[i];
		if (!strcmp(name, "cpu"))
			continue;
		add(totals, name, u64(total(s, NULL, name)));
		if (old)
			add(rates, name, decimal(total(s, old, name), 1));
	}
	add_listener_sums(totals, sum[0], sum[1], sum[2]);
	add(obj, "cpus", cpus);
	add(obj, "totals", totals);
	if (old)
		add(obj, "rates", rates);
	else
		json_object_put(rates);
}

/* NULL, which is null, before the first packet and without the columns. */
static struct json_object *packet_share(const struct snapshot *s, const char *local,
					const char *remote, const char *missed)
{
	double n = total(s, NULL, local) + total(s, NULL, missed);
	double all = n + total(s, NULL, remote);

	if (!table_has(&s->stats, local) || !table_has(&s->stats, remote) ||
	    !table_has(&s->stats, missed) || all <= 0)
		return NULL;
	return decimal(n / all, 6);
}

static void add_listeners_json(struct json_object *obj, const struct snapshot *s,
			       const struct processes *ps)
{
	struct json_object *list = json_object_new_array();
	struct json_object *row, *procs, *proc;
	size_t i, j;

	for (i = 0; i < s->n_local; i++) {
		row = row_json(&s->listeners, i);
		procs = json_object_new_array();
		for (j = 0; s->local[i].inode && j < ps->n; j++) {
			if (!process_holds(&ps->p[j], s->local[i].inode))
				continue;
			proc = json_object_new_object();
			add(proc, "pid", u64(ps->p[j].pid));
			add(proc, "name", json_object_new_string(ps->p[j].name));
			add(proc, "threads", u64(ps->p[j].threads));
			json_object_array_add(procs, proc);
		}
		add(row, "processes", procs);
		json_object_array_add(list, row);
	}
	add(obj, "listeners", list);
}

static void add_programs_json(struct json_object *obj, const struct snapshot *s,
			      const struct programs *progs)
{
	struct json_object *list = json_object_new_array();
	struct json_object *row, *pids, *cpus;
	size_t i, j;

	for (i = 0; i < progs->n; i++) {
		const struct program *p = &progs->p[i];

		row = json_object_new_object();
		add(row, "name", p->name ? json_object_new_string(p->name) : NULL);
		pids = json_object_new_array();
		for (j = 0; j < p->n_pids; j++)
			json_object_array_add(pids, u64(p->pids[j]));
		add(row, "pids", pids);
		add(row, "threads", u64(p->threads));
		add(row, "local", json_object_new_string(s->parent[p->parent].addr));
		add(row, "port", u64(s->parent[p->parent].port));
		cpus = json_object_new_array();
		for (j = 0; j < s->cpus; j++)
			if (p->cpu[j])
				json_object_array_add(cpus, u64(j));
		add(row, "cpus", cpus);
		add(row, "connections", json_object_new_string(path_text[p->path]));
		json_object_array_add(list, row);
	}
	add(obj, "programs", list);
}

void print_json(const struct snapshot *s, const struct snapshot *old,
		const struct processes *ps, const struct programs *progs)
{
	struct json_object *obj = json_object_new_object();
	double local = total(s, NULL, "accept_local");
	double all = local + total(s, NULL, "accept_remote") +
		     total(s, NULL, "accept_slow");

	add(obj, "time", decimal(now(CLOCK_REALTIME), 3));
	add(obj, "version", *s->version ? json_object_new_string(s->version) : NULL);
	add(obj, "listen_spawn", s->listen_spawn < 0 ? NULL :
				 json_object_new_int(s->listen_spawn));
	add_cpus_json(obj, s, old);
	add(obj, "local_share", all > 0 ? decimal(local / all, 6) : NULL);
	add(obj, "passive_share", packet_share(s, "passive_local", "passive_remote",
					       "passive_missed"));
	add(obj, "active_share", packet_share(s, "active_local", "active_remote",
					      "active_missed"));
	add_listeners_json(obj, s, ps);
	add_programs_json(obj, s, progs);
	add(obj, "unreadable_processes", u64(ps->unreadable));
	puts(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN |
					    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(obj);
}
