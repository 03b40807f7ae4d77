// SPDX-License-Identifier: GPL-2.0
/*
 * What was there before the first setup, kept where reset finds it: in /run,
 * as the settings themselves do not survive a reboot either.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nic.h"

#define RUN	"/run/fastsocket"
#define DIR	RUN "/nic"
#define LOCK	DIR "/lock"

/* Inode numbers of namespaces are used again, their cookies never. */
static unsigned long long netns_cookie(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unsigned long long cookie = 0;
	socklen_t len = sizeof(cookie);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len))
		err(EXIT_FAILURE, "cannot tell which network namespace this is");
	close(fd);
	return cookie;
}

static const char *string(struct json_object *obj, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(obj, key, &v) ?
	       json_object_get_string(v) : NULL;
}

static unsigned int number(struct json_object *obj, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(obj, key, &v) ?
	       json_object_get_int64(v) : 0;
}

static struct json_object *array(struct json_object *obj, const char *key, size_t *n)
{
	struct json_object *v;

	*n = 0;
	if (!json_object_object_get_ex(obj, key, &v) ||
	    !json_object_is_type(v, json_type_array))
		return NULL;
	*n = json_object_array_length(v);
	return v;
}

static char *copy(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

static void read_knobs(struct nic *nic, struct json_object *obj)
{
	struct json_object *list, *k;
	const char *key, *value;
	size_t i, n;
	int kind;

	list = array(obj, "original", &n);
	for (i = 0; i < n; i++) {
		k = json_object_array_get_idx(list, i);
		key = string(k, "knob");
		value = string(k, "value");
		for (kind = 0; key && value && kind < KNOBS; kind++)
			if (!strcmp(key, knob_key(kind)))
				knobs_put(&nic->original, kind, number(k, "index"),
					  string(k, "name"), value);
	}
}

/* Fills what struct nic says is kept in the file, if there is one. */
void state_read(struct nic *nic)
{
	struct json_object *obj, *list, *r;
	size_t i;

	nic->state_path = xasprintf(DIR "/%llu-%u.json", netns_cookie(), nic->ifindex);
	if (access(nic->state_path, F_OK))
		return;
	obj = json_object_from_file(nic->state_path);
	if (!obj || !json_object_is_type(obj, json_type_object))
		errx(EXIT_FAILURE, "%s, where the former settings of %s are saved, cannot be understood: remove it to give up restoring them",
		     nic->state_path, nic->name);
	nic->saved = true;
	nic->mode = copy(string(obj, "mode"));
	nic->told = copy(string(obj, "told"));
	nic->xdp_cpus = copy(string(obj, "xdp_cpus"));
	read_knobs(nic, obj);
	list = array(obj, "rules", &nic->n_rules);
	nic->rules = xrealloc(NULL, nic->n_rules, sizeof(*nic->rules));
	for (i = 0; i < nic->n_rules; i++) {
		r = json_object_array_get_idx(list, i);
		nic->rules[i] = (struct rule){
			.index = number(r, "index"),
			.classes = number(r, "classes"),
			.queue = number(r, "queue"),
			.location = number(r, "location"),
		};
	}
	json_object_put(obj);
}

static void add(struct json_object *obj, const char *key, struct json_object *val)
{
	if (json_object_object_add(obj, key, val))
		errx(EXIT_FAILURE, "cannot allocate memory");
}

static void add_string(struct json_object *obj, const char *key, const char *s)
{
	if (s)
		add(obj, key, json_object_new_string(s));
}

static struct json_object *state_json(const struct nic *nic)
{
	struct json_object *obj = json_object_new_object();
	struct json_object *list = json_object_new_array(), *o;
	size_t i;

	add_string(obj, "device", nic->name);
	add_string(obj, "mode", nic->mode);
	add_string(obj, "told", nic->told);
	add_string(obj, "xdp_cpus", nic->xdp_cpus);
	for (i = 0; i < nic->original.n; i++) {
		const struct knob *k = &nic->original.k[i];

		o = json_object_new_object();
		add_string(o, "knob", knob_key(k->kind));
		add(o, "index", json_object_new_int64(k->index));
		add_string(o, "name", k->name);
		add_string(o, "value", k->value);
		json_object_array_add(list, o);
	}
	add(obj, "original", list);
	list = json_object_new_array();
	for (i = 0; i < nic->n_rules; i++) {
		const struct rule *r = &nic->rules[i];

		o = json_object_new_object();
		add(o, "index", json_object_new_int64(r->index));
		add(o, "classes", json_object_new_int64(r->classes));
		add(o, "queue", json_object_new_int64(r->queue));
		add(o, "location", json_object_new_int64(r->location));
		json_object_array_add(list, o);
	}
	add(obj, "rules", list);
	return obj;
}

/* Whole or not at all. */
int state_write(struct nic *nic)
{
	struct json_object *obj = state_json(nic);
	const char *text = json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN);
	char *temp = xasprintf("%s.new", nic->state_path);
	size_t len = strlen(text);
	int fd, ret = 0;

	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len || rename(temp, nic->state_path)) {
		ret = errno ? -errno : -ENOSPC;
		nic_fail(nic, "cannot write %s: %s", nic->state_path, strerror(-ret));
		unlink(temp);
	}
	if (fd >= 0)
		close(fd);
	free(temp);
	json_object_put(obj);
	return ret;
}

void state_remove(struct nic *nic)
{
	unlink(nic->state_path);
	nic->saved = false;
}

/*
 * One at a time; held until the process ends. By a file that is root's alone: who can
 * open one can lock it.
 */
int state_lock(void)
{
	int fd;

	if ((mkdir(RUN, 0755) && errno != EEXIST) ||
	    (mkdir(DIR, 0755) && errno != EEXIST))
		return -errno;
	fd = open(LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return 0;
	if (errno != EWOULDBLOCK)
		return -errno;
	warnx("waiting for another 'fastsocket nic' to end");
	return flock(fd, LOCK_EX) ? -errno : 0;
}
