// SPDX-License-Identifier: GPL-2.0
/*
 * fastsocket nic show: one collection of facts, printed as text or as JSON.
 */
#include <err.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nic.h"

static void add(struct json_object *obj, const char *key, struct json_object *val)
{
	if (json_object_object_add(obj, key, val))
		errx(EXIT_FAILURE, "cannot allocate memory");
}

static struct json_object *string(const char *s)
{
	return s ? json_object_new_string(s) : NULL;
}

/* A number where the knob is one, its text otherwise, null where it is not. */
static struct json_object *value(const struct knobs *ks, enum knob_kind kind,
				 unsigned int index)
{
	struct knob like = { .kind = kind, .index = index };
	const char *v = knobs_get(ks, &like);

	if (v && *v && kind != KNOB_XPS && kind != KNOB_RPS &&
	    v[strspn(v, "0123456789")] == '\0')
		return json_object_new_int64(strtoul(v, NULL, 10));
	return string(v);
}

static struct json_object *queues_json(const struct nic *nic, const struct knobs *ks)
{
	unsigned int n = nic->rx_queues > nic->tx_queues ? nic->rx_queues : nic->tx_queues;
	struct json_object *list = json_object_new_array(), *queue, *irqs, *irq;
	unsigned int i;
	size_t j;

	for (i = 0; i < n; i++) {
		queue = json_object_new_object();
		add(queue, "queue", json_object_new_int64(i));
		irqs = json_object_new_array();
		for (j = 0; j < nic->n_irqs; j++) {
			struct knob like = { .kind = KNOB_IRQ, .name = (char *)nic->irqs[j].name };

			if (nic->irqs[j].queue != i)
				continue;
			irq = json_object_new_object();
			add(irq, "irq", json_object_new_int64(nic->irqs[j].irq));
			add(irq, "name", string(nic->irqs[j].name));
			add(irq, "cpus", string(knobs_get(ks, &like)));
			json_object_array_add(irqs, irq);
		}
		add(queue, "irqs", irqs);
		add(queue, "xps_cpus", value(ks, KNOB_XPS, i));
		add(queue, "rps_cpus", value(ks, KNOB_RPS, i));
		add(queue, "rfs_flows", value(ks, KNOB_RFS, i));
		json_object_array_add(list, queue);
	}
	return list;
}

static struct json_object *rules_json(const struct nic *nic)
{
	struct json_object *list = json_object_new_array(), *rule;
	size_t i;

	for (i = 0; i < nic->n_rules; i++) {
		const struct rule *r = &nic->rules[i];

		rule = json_object_new_object();
		add(rule, "flow", string(r->index & RULE_TCP6 ? "tcp6" : "tcp4"));
		add(rule, "dst_port", json_object_new_int64(0x8000 | (r->index & ~RULE_TCP6)));
		add(rule, "mask", json_object_new_int64(0x8000 | (r->classes - 1)));
		add(rule, "queue", json_object_new_int64(r->queue));
		add(rule, "location", json_object_new_int64(r->location));
		json_object_array_add(list, rule);
	}
	return list;
}

static struct json_object *xdp_json(const struct nic *nic)
{
	unsigned int id = nic->xdp_id ? nic->xdp_id : nic->foreign_xdp;
	struct json_object *xdp;

	if (!id)
		return NULL;
	xdp = json_object_new_object();
	add(xdp, "id", json_object_new_int64(id));
	add(xdp, "ours", json_object_new_boolean(nic->xdp_id));
	add(xdp, "path", string(nic->xdp_native ? "native" : "generic"));
	add(xdp, "cpus", string(nic->xdp_id ? nic->xdp_cpus : NULL));
	return xdp;
}

static struct json_object *facts(struct nic *nic, const struct knobs *ks)
{
	struct json_object *obj = json_object_new_object();
	struct json_object *part, *list = json_object_new_array();
	char *line = module_line(nic->ifindex), **warnings;
	size_t n, i;

	add(obj, "device", string(nic->name));
	add(obj, "ifindex", json_object_new_int64(nic->ifindex));
	add(obj, "driver", string(*nic->driver ? nic->driver : NULL));
	add(obj, "up", json_object_new_boolean(nic->up));
	add(obj, "steering", string(nic->mode));
	add(obj, "saved", string(nic->saved ? nic->state_path : NULL));
	part = json_object_new_object();
	add(part, "rx", value(ks, KNOB_RX_CHANNELS, 0));
	add(part, "tx", value(ks, KNOB_TX_CHANNELS, 0));
	add(part, "combined", value(ks, KNOB_COMBINED, 0));
	add(obj, "channels", part);
	add(obj, "rx_ring", value(ks, KNOB_RX_RING, 0));
	add(obj, "adaptive_rx", value(ks, KNOB_ADAPTIVE_RX, 0));
	add(obj, "rx_usecs", value(ks, KNOB_RX_USECS, 0));
	add(obj, "ntuple_filters", value(ks, KNOB_NTUPLE, 0));
	add(obj, "rss_table", string(!nic->rss.buckets ? NULL :
				     rss_is_default(&nic->rss, nic->rx_queues) ? "default" : "custom"));
	add(obj, "hash_tcp4", value(ks, KNOB_HASH_TCP4, 0));
	add(obj, "hash_tcp6", value(ks, KNOB_HASH_TCP6, 0));
	add(obj, "queues", queues_json(nic, ks));
	add(obj, "rules", rules_json(nic));
	add(obj, "xdp", xdp_json(nic));
	add(obj, "module", string(line));
	free(line);
	warnings = path_warnings(&n);
	for (i = 0; i < n; i++) {
		json_object_array_add(list, string(warnings[i]));
		free(warnings[i]);
	}
	free(warnings);
	add(obj, "warnings", list);
	return obj;
}

static struct json_object *item(struct json_object *obj, const char *key)
{
	struct json_object *v = NULL;

	json_object_object_get_ex(obj, key, &v);
	return v;
}

/* "-" is what the device does not have. */
static const char *text(struct json_object *obj, const char *key)
{
	struct json_object *v = item(obj, key);

	return !v ? "-" : json_object_get_string_len(v) || !json_object_is_type(v, json_type_string) ?
	       json_object_get_string(v) : "none";
}

static void print_queues(struct json_object *list)
{
	static const char * const head[] = {
		"QUEUE", "IRQ", "NAME", "CPUS", "XPS", "RPS", "RFS",
	};
	struct grid *g = grid_new("rrlllll");
	struct json_object *queue, *irqs, *irq;
	size_t i, j, n;

	for (i = 0; i < sizeof(head) / sizeof(head[0]); i++)
		grid_add(g, xstrdup(head[i]));
	for (i = 0; i < json_object_array_length(list); i++) {
		queue = json_object_array_get_idx(list, i);
		irqs = item(queue, "irqs");
		n = json_object_array_length(irqs);
		for (j = 0; j < (n ? n : 1); j++) {
			irq = n ? json_object_array_get_idx(irqs, j) : NULL;
			grid_add(g, xstrdup(text(queue, "queue")));
			grid_add(g, xstrdup(irq ? text(irq, "irq") : "-"));
			grid_add(g, xstrdup(irq ? text(irq, "name") : "-"));
			grid_add(g, xstrdup(irq ? text(irq, "cpus") : "-"));
			grid_add(g, xstrdup(text(queue, "xps_cpus")));
			grid_add(g, xstrdup(text(queue, "rps_cpus")));
			grid_add(g, xstrdup(text(queue, "rfs_flows")));
		}
	}
	grid_print(g);
}

static void print_rules(struct json_object *list)
{
	struct json_object *rule;
	size_t i;

	for (i = 0; i < json_object_array_length(list); i++) {
		rule = json_object_array_get_idx(list, i);
		printf("rule %s: %s dst-port %#x/%#x to queue %s\n", text(rule, "location"),
		       text(rule, "flow"), json_object_get_int(item(rule, "dst_port")),
		       json_object_get_int(item(rule, "mask")), text(rule, "queue"));
	}
}

static void print_text(struct json_object *obj)
{
	struct json_object *xdp = item(obj, "xdp"), *channels = item(obj, "channels");
	struct json_object *warnings = item(obj, "warnings");
	size_t i;

	printf("%s: driver %s, %s, steering %s\n", text(obj, "device"), text(obj, "driver"),
	       json_object_get_boolean(item(obj, "up")) ? "up" : "down",
	       item(obj, "steering") ? text(obj, "steering") : "not set up");
	printf("channels: rx %s, tx %s, combined %s; rx ring %s; adaptive-rx %s, rx-usecs %s\n",
	       text(channels, "rx"), text(channels, "tx"), text(channels, "combined"),
	       text(obj, "rx_ring"), text(obj, "adaptive_rx"), text(obj, "rx_usecs"));
	printf("RSS table %s, hash of tcp4 %s, tcp6 %s; ntuple filters %s\n",
	       text(obj, "rss_table"), text(obj, "hash_tcp4"), text(obj, "hash_tcp6"),
	       text(obj, "ntuple_filters"));
	print_queues(item(obj, "queues"));
	print_rules(item(obj, "rules"));
	if (xdp)
		printf("XDP program %s, %s path, %s%s\n", text(xdp, "id"), text(xdp, "path"),
		       json_object_get_boolean(item(xdp, "ours")) ? "fastsocket's, to CPUs " :
		       geteuid() ? "whose only root can tell" : "not fastsocket's",
		       json_object_get_boolean(item(xdp, "ours")) ? text(xdp, "cpus") : "");
	printf("module: %s\n", item(obj, "module") ? text(obj, "module") :
	       "knows nothing of this device");
	printf("former settings: %s%s\n", item(obj, "saved") ? "saved in " : "not saved",
	       item(obj, "saved") ? text(obj, "saved") : "");
	for (i = 0; i < json_object_array_length(warnings); i++)
		printf("warning: %s\n",
		       json_object_get_string(json_object_array_get_idx(warnings, i)));
}

int nic_show(struct nic *nic, bool json)
{
	struct json_object *obj;
	struct knobs ks;

	nic_snapshot(nic, &ks);
	obj = facts(nic, &ks);
	if (json)
		puts(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN |
						    JSON_C_TO_STRING_NOSLASHESCAPE));
	else
		print_text(obj);
	json_object_put(obj);
	knobs_free(&ks);
	return EXIT_SUCCESS;
}
