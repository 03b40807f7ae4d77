/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the command share.
 */
#ifndef _FASTSOCKET_TOOL_H
#define _FASTSOCKET_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Exit statuses; the last three are those of env(1). */
#define EXIT_USAGE		2
#define EXIT_OWN_ERROR		125
#define EXIT_CANNOT_RUN		126
#define EXIT_NOT_FOUND		127

/* Subcommands: argv[0] is what usage messages call them. */
int cmd_nic(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_unload(int argc, char **argv);

/**
 * struct command - a subcommand
 * @name: what it is called by
 * @shown: its argv[0], which usage messages show
 * @run: does it; returns the exit status
 */
struct command {
	const char *name;
	const char *shown;
	int (*run)(int argc, char **argv);
};

/**
 * run_command() - run the subcommand that the arguments name
 * @argc: their number
 * @argv: the arguments
 * @table: what there is, ended by one without a name
 * @prefix: what comes before the name in messages
 * @names: those of all of them
 * @args: for the usage message
 * @help: text of the help
 *
 * Return: its exit status; ends the program with EXIT_USAGE if there is none.
 */
int run_command(int argc, char **argv, const struct command *table, const char *prefix,
		const char *names, const char *args, const char *help);

/* Memory or death. */
void *xrealloc(void *p, size_t n, size_t size);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/**
 * struct table - a /proc file of columns under a header line
 * @cols: columns
 * @rows: lines below the header
 * @head: column names
 * @cell: @rows * @cols strings, "" where a line is short
 * @text: what all of them point into
 */
struct table {
	size_t cols;
	size_t rows;
	char **head;
	char **cell;
	char *text;
};

int table_read(struct table *t, const char *path);
void table_free(struct table *t);
bool table_has(const struct table *t, const char *col);
const char *table_str(const struct table *t, size_t row, const char *col);
unsigned long long table_num(const struct table *t, size_t row, const char *col);

/**
 * struct process - a process that holds sockets that were asked for
 * @pid: its id
 * @threads: how many it has
 * @name: its command name
 * @inodes: the sockets, @n_inodes of them, each once
 */
struct process {
	pid_t pid;
	int threads;
	char name[64];
	unsigned long *inodes;
	size_t n_inodes;
};

/**
 * struct processes - result of a walk over /proc
 * @p: the processes, by pid
 * @n: how many
 * @unreadable: processes whose descriptors could not be read
 */
struct processes {
	struct process *p;
	size_t n;
	size_t unreadable;
};

void proc_name(pid_t pid, char *buf, size_t size);
size_t proc_each_fd(void (*fn)(pid_t pid, const char *link, void *arg),
		    void *arg);
void processes_scan(struct processes *ps, const unsigned long *want, size_t n);
void processes_free(struct processes *ps);
bool process_holds(const struct process *p, unsigned long inode);
int inode_cmp(const void *a, const void *b);

/* Read the first line of a file, without its newline. */
char *read_line(const char *path, char *buf, size_t size);

/* Columns of text as wide as their widest cell. */
struct grid;
struct grid *grid_new(const char *align);
void grid_add(struct grid *g, char *cell);
void grid_print(struct grid *g);

#endif /* _FASTSOCKET_TOOL_H */
