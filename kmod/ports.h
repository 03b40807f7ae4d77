/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A connection, how a device hashes, and the ports that follow from both.
 */
#ifndef _FS_PORTS_H
#define _FS_PORTS_H

#include <linux/in6.h>
#include <linux/types.h>

struct net;

/**
 * struct fs_flow - a connection as its packets come in
 * @net: the namespace
 * @v6: IPv6; IPv4-mapped addresses count as IPv4
 * @saddr: the peer's address, IPv4 in the first word
 * @daddr: our address
 * @sport: the peer's port
 * @dport: our port
 */
struct fs_flow {
	const struct net *net;
	bool v6;
	struct in6_addr saddr, daddr;
	__be16 sport, dport;
};

/* Bytes of a key that the hash of an IPv6 packet needs. */
#define FS_RSS_KEY	(36 + 4)

/**
 * struct fs_rss - how a device hashes
 * @key: what the hash of an IPv6 packet needs of the hash key
 * @port: the part of each value of the high and low byte of the destination
 *	port, for IPv4 and IPv6
 * @size: entries of @cpus
 * @cpus: the indirection table, by CPU instead of queue
 */
struct fs_rss {
	u8 key[FS_RSS_KEY];
	u32 port[2][2][256];
	u32 size;
	s32 cpus[];
};

/**
 * struct fs_ports - the ports of a range whose replies come to one CPU
 * @rss: in STEER_RSS, how the device hashes; otherwise NULL
 * @cpu: the CPU
 * @classes: classes of ports that come to the CPU; NULL where its number is
 *	the class, as the device has not been set up
 * @nclasses: their number
 * @step: number of all classes, a power of 2
 * @low: first port of the range
 * @high: last one
 * @hash: in STEER_RSS, the Toeplitz hash of all but the port
 * @v6: which of the tables has the port's part
 * @total: candidates to ask fs_ports_nth() for
 *
 * Valid within one RCU read side.
 */
struct fs_ports {
	const struct fs_rss *rss;
	int cpu;
	const u16 *classes;
	u32 nclasses;
	u32 step;
	int low, high;
	u32 hash;
	bool v6;
	u32 total;
};

void fs_rss_prepare(struct fs_rss *rss);
bool fs_ports_by_rss(struct fs_ports *ports, const struct fs_rss *rss,
		     const struct fs_flow *flow);
int fs_class_cmp(const void *a, const void *b, const void *priv);
bool fs_ports_by_class(struct fs_ports *ports, const u16 *classes, const s32 *cpus,
		       u32 count);
bool fs_ports_by_number(struct fs_ports *ports, u32 step);
int fs_ports_nth(const struct fs_ports *ports, u32 n);

#endif /* _FS_PORTS_H */
