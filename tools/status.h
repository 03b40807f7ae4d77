/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What fastsocket status knows, between the file that gathers it and those
 * that print it.
 */
#ifndef _FASTSOCKET_STATUS_H
#define _FASTSOCKET_STATUS_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <time.h>

#include "fastsocket.h"

/* How a program's connections on an address come to it. */
enum path {
	PATH_LOCAL,
	PATH_OFF,
	PATH_SLOW,
	PATH_STOCK,
};

extern const char * const path_text[];

/**
 * struct local - what the program table needs of a local listener
 * @cpu: whose SYNs it takes
 * @inode: its socket, 0 once closed
 * @parent: index of the application's listener
 * @live: it takes new connections
 */
struct local {
	unsigned int cpu;
	unsigned long inode;
	size_t parent;
	bool live;
};

/**
 * struct parent - an application's listener
 * @inode: its socket
 * @port: TCP port
 * @family: AF_INET or AF_INET6
 * @used: it has a live local listener
 * @addr: address as text
 */
struct parent {
	unsigned long inode;
	unsigned int port;
	int family;
	bool used;
	char addr[INET6_ADDRSTRLEN];
};

/**
 * struct snapshot - everything read at one time
 * @time: when, in seconds since boot
 * @version: of the module, "" if unknown
 * @listen_spawn: the sysctl, -1 if unknown
 * @stats: the file stats
 * @listeners: the file listeners
 * @local: its lines
 * @n_local: how many
 * @parent: listeners of applications, those without local ones too
 * @n_parent: how many
 * @cpus: one more than the highest CPU
 */
struct snapshot {
	double time;
	char version[64];
	int listen_spawn;
	struct table stats;
	struct table listeners;
	struct local *local;
	size_t n_local;
	struct parent *parent;
	size_t n_parent;
	size_t cpus;
};

/**
 * struct program - processes of one name that share an address and its fate
 * @name: command name, NULL if none is known to hold it
 * @parent: index of a listener of theirs on the address
 * @path: how connections come to them
 * @pids: the processes, by pid
 * @n_pids: how many
 * @threads: of all of them
 * @cpu: by CPU number: they have a local listener there
 */
struct program {
	const char *name;
	size_t parent;
	enum path path;
	long *pids;
	size_t n_pids;
	int threads;
	bool *cpu;
};

/**
 * struct programs - all programs that listen on TCP
 * @p: them, users of local listeners first
 * @n: how many
 * @unknown: a local listener has no holder that can be seen
 */
struct programs {
	struct program *p;
	size_t n;
	bool unknown;
};

/**
 * struct holders - the last walk over /proc, and what it looked for
 * @ps: the processes found
 * @want: sockets looked for, sorted
 * @n: how many
 * @time: when, as in struct snapshot
 */
struct holders {
	struct processes ps;
	unsigned long *want;
	size_t n;
	double time;
};

double now(clockid_t clock);
void snapshot_read(struct snapshot *s);
void snapshot_free(struct snapshot *s);
void holders_update(struct holders *h, const struct snapshot *s);
void programs_find(struct programs *progs, const struct snapshot *s,
		   const struct processes *ps);
void programs_free(struct programs *progs);

void cpu_listeners(const struct snapshot *s, unsigned long long cpu,
		   unsigned long long *live, unsigned long long *queue,
		   unsigned long long *drops);
double counter(const struct snapshot *s, const struct snapshot *old,
	       size_t row, const char *col);
double total(const struct snapshot *s, const struct snapshot *old,
	     const char *col);

void print_json(const struct snapshot *s, const struct snapshot *old,
		const struct processes *ps, const struct programs *progs);

#endif /* _FASTSOCKET_STATUS_H */
