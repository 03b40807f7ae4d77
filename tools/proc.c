// SPDX-License-Identifier: GPL-2.0
/*
 * Reading /proc: tables with a header line, and who holds which descriptor.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fastsocket.h"

char *read_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	char *line;

	if (!f)
		return NULL;
	line = fgets(buf, size, f);
	fclose(f);
	if (line)
		line[strcspn(line, "\n")] = '\0';
	return line;
}

static char *read_all(const char *path)
{
	size_t len = 0, room = 0;
	char *buf = NULL;
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	do {
		if (room - len < 4096) {
			room = room * 2 + 8192;
			buf = xrealloc(buf, room, 1);
		}
		n = read(fd, buf + len, room - len - 1);
		if (n > 0)
			len += n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	buf[len] = '\0';
	close(fd);
	if (!n)
		return buf;
	free(buf);
	return NULL;
}

/* Returns 0 or -errno. */
int table_read(struct table *t, const char *path)
{
	char *next, *line, *word;
	size_t col;

	memset(t, 0, sizeof(*t));
	t->text = read_all(path);
	if (!t->text)
		return -errno;

	next = t->text;
	line = strsep(&next, "\n");
	while ((word = strsep(&line, " \t"))) {
		if (!*word)
			continue;
		t->head = xrealloc(t->head, t->cols + 1, sizeof(*t->head));
		t->head[t->cols++] = word;
	}
	while (t->cols && (line = strsep(&next, "\n"))) {
		if (!*line)
			continue;
		t->cell = xrealloc(t->cell, (t->rows + 1) * t->cols,
				   sizeof(*t->cell));
		for (col = 0; col < t->cols; col++) {
			do
				word = strsep(&line, " \t");
			while (word && !*word);
			t->cell[t->rows * t->cols + col] = word ? word : "";
		}
		t->rows++;
	}
	return 0;
}

void table_free(struct table *t)
{
	free(t->text);
	free(t->head);
	free(t->cell);
	memset(t, 0, sizeof(*t));
}

bool table_has(const struct table *t, const char *col)
{
	size_t i;

	for (i = 0; i < t->cols; i++)
		if (!strcmp(t->head[i], col))
			return true;
	return false;
}

/* A column that this kernel does not have reads as "". */
const char *table_str(const struct table *t, size_t row, const char *col)
{
	size_t i;

	for (i = 0; i < t->cols; i++)
		if (!strcmp(t->head[i], col))
			return t->cell[row * t->cols + i];
	return "";
}

unsigned long long table_num(const struct table *t, size_t row, const char *col)
{
	return strtoull(table_str(t, row, col), NULL, 10);
}

/* In plain ASCII: anybody names his process, and root reads it on a terminal, or as JSON. */
void proc_name(pid_t pid, char *buf, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	if (!read_line(path, buf, size))
		snprintf(buf, size, "?");
	for (; *buf; buf++)
		if (*buf < ' ' || *buf > '~')
			*buf = '?';
}

static int proc_threads(pid_t pid)
{
	char path[64], line[256];
	int threads = 1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 1;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Threads: %d", &threads) == 1)
			break;
	fclose(f);
	return threads;
}

/* Kernel threads have no descriptors to be read, and no command line. */
static bool is_program(pid_t pid)
{
	char path[64], c[2];

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	return read_line(path, c, sizeof(c));
}

/*
 * Call @fn for every descriptor of every process that can be read; returns how
 * many could not.
 */
size_t proc_each_fd(void (*fn)(pid_t pid, const char *link, void *arg),
		    void *arg)
{
	struct dirent *de, *fde;
	size_t unreadable = 0;
	char path[64], link[64];
	DIR *proc, *fds;
	ssize_t n;
	pid_t pid;

	proc = opendir("/proc");
	if (!proc)
		return 1;
	while ((de = readdir(proc))) {
		if (!isdigit((unsigned char)de->d_name[0]))
			continue;
		pid = atoi(de->d_name);
		snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
		fds = opendir(path);
		if (!fds) {
			if (errno != ENOENT && errno != ESRCH && is_program(pid))
				unreadable++;
			continue;
		}
		while ((fde = readdir(fds))) {
			n = readlinkat(dirfd(fds), fde->d_name, link,
				       sizeof(link) - 1);
			if (n < 0 && errno == EACCES) {
				unreadable++;
				break;
			}
			if (n <= 0)
				continue;
			link[n] = '\0';
			fn(pid, link, arg);
		}
		closedir(fds);
	}
	closedir(proc);
	return unreadable;
}

int inode_cmp(const void *a, const void *b)
{
	unsigned long x = *(const unsigned long *)a;
	unsigned long y = *(const unsigned long *)b;

	return (x > y) - (x < y);
}

bool process_holds(const struct process *p, unsigned long inode)
{
	size_t i;

	for (i = 0; i < p->n_inodes; i++)
		if (p->inodes[i] == inode)
			return true;
	return false;
}

struct scan {
	struct processes *ps;
	const unsigned long *want;
	size_t n;
};

static void note_socket(pid_t pid, const char *link, void *arg)
{
	const struct scan *scan = arg;
	struct processes *ps = scan->ps;
	struct process *p;
	unsigned long inode;

	if (sscanf(link, "socket:[%lu]", &inode) != 1 ||
	    !bsearch(&inode, scan->want, scan->n, sizeof(inode), inode_cmp))
		return;
	if (!ps->n || ps->p[ps->n - 1].pid != pid) {
		ps->p = xrealloc(ps->p, ps->n + 1, sizeof(*ps->p));
		p = &ps->p[ps->n++];
		*p = (struct process){ .pid = pid, .threads = proc_threads(pid) };
		proc_name(pid, p->name, sizeof(p->name));
	}
	p = &ps->p[ps->n - 1];
	if (process_holds(p, inode))
		return;
	p->inodes = xrealloc(p->inodes, p->n_inodes + 1, sizeof(*p->inodes));
	p->inodes[p->n_inodes++] = inode;
}

/* Find the processes that hold any of the sockets @want, sorted by inode_cmp(). */
void processes_scan(struct processes *ps, const unsigned long *want, size_t n)
{
	struct scan scan = { .ps = ps, .want = want, .n = n };

	memset(ps, 0, sizeof(*ps));
	ps->unreadable = proc_each_fd(note_socket, &scan);
}

void processes_free(struct processes *ps)
{
	size_t i;

	for (i = 0; i < ps->n; i++)
		free(ps->p[i].inodes);
	free(ps->p);
	memset(ps, 0, sizeof(*ps));
}
