// SPDX-License-Identifier: GPL-2.0
/*
 * What fastsocket status shows: the module's tables, the listeners of this
 * namespace and the programs that hold them.
 */
#include <err.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

#define STATS		"/proc/net/fastsocket/stats"
#define LISTENERS	"/proc/net/fastsocket/listeners"

/* In watch mode, walk over all descriptors of the machine only this often. */
#define RESCAN_SECONDS	10

const char * const path_text[] = {
	[PATH_LOCAL] = "core-local",
	[PATH_OFF] = "off",
	[PATH_SLOW] = "slow path",
	[PATH_STOCK] = "not used",
};

double now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static size_t add_parent(struct snapshot *s, unsigned long inode, int family,
			 const char *addr, unsigned int port)
{
	struct parent *p;
	size_t i;

	for (i = 0; i < s->n_parent; i++) {
		p = &s->parent[i];
		if (p->inode == inode && p->family == family &&
		    p->port == port && !strcmp(p->addr, addr))
			return i;
	}
	s->parent = xrealloc(s->parent, s->n_parent + 1, sizeof(*s->parent));
	p = &s->parent[s->n_parent];
	*p = (struct parent){ .inode = inode, .family = family, .port = port };
	snprintf(p->addr, sizeof(p->addr), "%s", addr);
	return s->n_parent++;
}

static void read_locals(struct snapshot *s)
{
	const struct table *t = &s->listeners;
	struct local *l;
	size_t i;

	s->local = xrealloc(NULL, t->rows, sizeof(*s->local));
	for (i = 0; i < t->rows; i++) {
		l = &s->local[s->n_local++];
		l->cpu = table_num(t, i, "cpu");
		l->inode = table_num(t, i, "inode");
		l->live = !strcmp(table_str(t, i, "state"), "live") ||
			  !strcmp(table_str(t, i, "state"), "stalled");
		l->parent = add_parent(s, table_num(t, i, "parent_inode"),
				       table_num(t, i, "family") == 6 ? AF_INET6 : AF_INET,
				       table_str(t, i, "local"),
				       table_num(t, i, "port"));
		if (l->live)
			s->parent[l->parent].used = true;
		if (s->cpus <= l->cpu)
			s->cpus = l->cpu + 1;
	}
}

/* Words of 32 bits, each printed as a number of the machine's byte order. */
static bool parse_addr(const char *hex, int family, char *text, size_t size)
{
	size_t i, words = family == AF_INET6 ? 4 : 1;
	unsigned int word[4];

	for (i = 0; i < words; i++)
		if (sscanf(hex + 8 * i, "%8x", &word[i]) != 1)
			return false;
	return inet_ntop(family, word, text, size);
}

/* Listeners that may have no local ones: the answer to "is mine using it?". */
static void read_tcp(struct snapshot *s, const char *path, int family)
{
	char line[512], hex[33], addr[INET6_ADDRSTRLEN];
	unsigned int port, state;
	unsigned long inode;
	FILE *f;

	f = fopen(path, "re");
	if (!f)
		return;
	if (!fgets(line, sizeof(line), f))
		goto out;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*d: %32[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %*u %*d %lu",
			   hex, &port, &state, &inode) != 4)
			continue;
		/* Listeners come first; connections may follow by the million. */
		if (state != 0x0A)
			break;
		if (inode && parse_addr(hex, family, addr, sizeof(addr)))
			add_parent(s, inode, family, addr, port);
	}
out:
	fclose(f);
}

static void must_read(struct table *t, const char *path)
{
	int ret = table_read(t, path);

	if (ret == -ENOENT)
		errx(EXIT_FAILURE, "the module is not loaded in this kernel (no /proc/net/fastsocket); load it with: modprobe fastsocket");
	errno = -ret;
	if (ret)
		err(EXIT_FAILURE, "cannot read %s", path);
}

void snapshot_read(struct snapshot *s)
{
	char buf[32];
	size_t i;

	memset(s, 0, sizeof(*s));
	must_read(&s->stats, STATS);
	s->time = now(CLOCK_BOOTTIME);
	must_read(&s->listeners, LISTENERS);

	if (!read_line("/sys/module/fastsocket/version", s->version, sizeof(s->version)))
		s->version[0] = '\0';
	s->listen_spawn = -1;
	if (read_line("/proc/sys/net/fastsocket/listen_spawn", buf, sizeof(buf)))
		s->listen_spawn = atoi(buf);

	for (i = 0; i < s->stats.rows; i++)
		if (s->cpus <= table_num(&s->stats, i, "cpu"))
			s->cpus = table_num(&s->stats, i, "cpu") + 1;
	read_locals(s);
	read_tcp(s, "/proc/net/tcp", AF_INET);
	read_tcp(s, "/proc/net/tcp6", AF_INET6);
}

void snapshot_free(struct snapshot *s)
{
	table_free(&s->stats);
	table_free(&s->listeners);
	free(s->local);
	free(s->parent);
}

void holders_update(struct holders *h, const struct snapshot *s)
{
	unsigned long *want;
	size_t i, n = 0;

	want = xrealloc(NULL, s->n_local + s->n_parent, sizeof(*want));
	for (i = 0; i < s->n_local; i++)
		want[n++] = s->local[i].inode;
	for (i = 0; i < s->n_parent; i++)
		want[n++] = s->parent[i].inode;
	qsort(want, n, sizeof(*want), inode_cmp);

	if (h->want && n == h->n && !memcmp(want, h->want, n * sizeof(*want)) &&
	    s->time - h->time < RESCAN_SECONDS) {
		free(want);
		return;
	}
	free(h->want);
	processes_free(&h->ps);
	h->want = want;
	h->n = n;
	h->time = s->time;
	processes_scan(&h->ps, want, n);
}

static bool same_address(const struct parent *a, const struct parent *b)
{
	return a->family == b->family && a->port == b->port &&
	       !strcmp(a->addr, b->addr);
}

/* Sockets that share an address by SO_REUSEPORT share a line. */
static struct program *program_get(struct programs *progs,
				   const struct snapshot *s, const char *name,
				   size_t parent, enum path path)
{
	struct program *p;
	size_t i;

	for (i = 0; i < progs->n; i++) {
		p = &progs->p[i];
		if (!strcmp(p->name ? p->name : "", name ? name : "") &&
		    same_address(&s->parent[p->parent], &s->parent[parent]) &&
		    p->path == path)
			return p;
	}
	progs->p = xrealloc(progs->p, progs->n + 1, sizeof(*progs->p));
	p = &progs->p[progs->n++];
	*p = (struct program){ .name = name, .parent = parent, .path = path };
	p->cpu = xrealloc(NULL, s->cpus, sizeof(*p->cpu));
	memset(p->cpu, 0, s->cpus * sizeof(*p->cpu));
	return p;
}

static void add_pid(struct program *prog, const struct process *ps)
{
	size_t i;

	for (i = 0; i < prog->n_pids; i++)
		if (prog->pids[i] == ps->pid)
			return;
	prog->pids = xrealloc(prog->pids, prog->n_pids + 1, sizeof(*prog->pids));
	prog->pids[prog->n_pids++] = ps->pid;
	prog->threads += ps->threads;
}

/* File @ps if it holds the listener @parent; true if it has local ones of it. */
static bool add_process(struct programs *progs, const struct snapshot *s,
			size_t parent, const struct process *ps)
{
	bool holds = false, live = false;
	struct program *prog;
	enum path path;
	size_t i;

	for (i = 0; i < s->n_local; i++) {
		if (s->local[i].parent == parent && s->local[i].inode &&
		    process_holds(ps, s->local[i].inode)) {
			holds = true;
			live |= s->local[i].live;
		}
	}
	if (holds)
		path = live && s->listen_spawn ? PATH_LOCAL : PATH_OFF;
	else if (process_holds(ps, s->parent[parent].inode))
		path = s->parent[parent].used ? PATH_SLOW : PATH_STOCK;
	else
		return false;

	prog = program_get(progs, s, ps->name, parent, path);
	add_pid(prog, ps);
	for (i = 0; holds && i < s->n_local; i++)
		if (s->local[i].parent == parent && s->local[i].inode &&
		    process_holds(ps, s->local[i].inode))
			prog->cpu[s->local[i].cpu] = true;
	return holds;
}

/* Those that use it before those that do not; then by port and name. */
static const struct snapshot *sort_by;

static int program_cmp(const void *a, const void *b)
{
	const struct program *x = a, *y = b;
	const struct parent *px = &sort_by->parent[x->parent];
	const struct parent *py = &sort_by->parent[y->parent];
	bool stock_x = x->path == PATH_STOCK, stock_y = y->path == PATH_STOCK;

	if (stock_x != stock_y)
		return stock_x - stock_y;
	if (px->port != py->port)
		return px->port < py->port ? -1 : 1;
	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	if (x->path != y->path)
		return x->path < y->path ? -1 : 1;
	return strcmp(x->name ? x->name : "", y->name ? y->name : "");
}

static int long_cmp(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

void programs_find(struct programs *progs, const struct snapshot *s,
		   const struct processes *ps)
{
	struct program *prog;
	size_t parent, i;
	bool local;

	memset(progs, 0, sizeof(*progs));
	for (parent = 0; parent < s->n_parent; parent++) {
		local = false;
		for (i = 0; i < ps->n; i++)
			local |= add_process(progs, s, parent, &ps->p[i]);
		if (local || !s->parent[parent].used)
			continue;
		/* Its holder is hidden from us, or the socket in flight. */
		progs->unknown = true;
		prog = program_get(progs, s, NULL, parent,
				   s->listen_spawn ? PATH_LOCAL : PATH_OFF);
		for (i = 0; i < s->n_local; i++)
			if (s->local[i].parent == parent && s->local[i].live)
				prog->cpu[s->local[i].cpu] = true;
	}
	for (i = 0; i < progs->n; i++)
		if (progs->p[i].n_pids)
			qsort(progs->p[i].pids, progs->p[i].n_pids,
			      sizeof(*progs->p[i].pids), long_cmp);
	sort_by = s;
	if (progs->n)
		qsort(progs->p, progs->n, sizeof(*progs->p), program_cmp);
}

void programs_free(struct programs *progs)
{
	size_t i;

	for (i = 0; i < progs->n; i++) {
		free(progs->p[i].pids);
		free(progs->p[i].cpu);
	}
	free(progs->p);
}

/* The local listeners of a CPU: how many are live, how much waits, what was lost. */
void cpu_listeners(const struct snapshot *s, unsigned long long cpu,
		   unsigned long long *live, unsigned long long *queue,
		   unsigned long long *drops)
{
	const struct table *t = &s->listeners;
	size_t i;

	*live = *queue = *drops = 0;
	for (i = 0; i < t->rows; i++) {
		if (s->local[i].cpu != cpu)
			continue;
		*live += s->local[i].live;
		*queue += table_num(t, i, "queue");
		*drops += table_num(t, i, "drops");
	}
}

/* A counter, or with @old its rate; one that fell was reset by a reload. */
double counter(const struct snapshot *s, const struct snapshot *old,
	       size_t row, const char *col)
{
	unsigned long long value = table_num(&s->stats, row, col), before;

	if (!old)
		return value;
	before = row < old->stats.rows ? table_num(&old->stats, row, col) : 0;
	if (before > value)
		before = 0;
	return (value - before) / fmax(s->time - old->time, 1e-3);
}

double total(const struct snapshot *s, const struct snapshot *old,
	     const char *col)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < s->stats.rows; i++)
		sum += counter(s, old, i, col);
	return sum;
}
