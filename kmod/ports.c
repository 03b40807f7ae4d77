// SPDX-License-Identifier: GPL-2.0
/*
 * Which ports a CPU's connections need, so that replies come to it: nothing but
 * arithmetic, that user space can compile, too.
 *
 * By port: of the destination ports with FASTSOCKET_PORT_CLASSES set, the low
 * bits name a class and each class comes to one CPU. By RSS: the device hashes
 * the 4-tuple with the Toeplitz function, and its indirection table names the
 * queue. As the function is linear over XOR, the hash of a packet is that of
 * its addresses and the peer's port, XORed with one word for each byte of our
 * port: trying a port costs three loads.
 */
#include <linux/kernel.h>

#include "fastsocket.h"
#include "ports.h"

/* The Toeplitz hash of @len bytes that begin at byte @at of the input. */
static u32 fs_toeplitz(const u8 *key, int at, const void *data, int len)
{
	const u8 *byte = data;
	u32 hash = 0, window;
	int i, bit;

	key += at;
	window = (u32)key[0] << 24 | key[1] << 16 | key[2] << 8 | key[3];
	for (i = 0; i < len; i++) {
		for (bit = 7; bit >= 0; bit--) {
			if (byte[i] & BIT(bit))
				hash ^= window;
			window = window << 1 | (key[i + 4] >> bit & 1);
		}
	}
	return hash;
}

/* Where the packet's fields are in the input. */
#define FS_AT_SPORT(v6)	((v6) ? 32 : 8)
#define FS_AT_DPORT(v6)	((v6) ? 34 : 10)

static u32 fs_rss_hash(const struct fs_rss *rss, const struct fs_flow *flow)
{
	int len = flow->v6 ? 16 : 4;

	return fs_toeplitz(rss->key, 0, &flow->saddr, len) ^
	       fs_toeplitz(rss->key, len, &flow->daddr, len) ^
	       fs_toeplitz(rss->key, FS_AT_SPORT(flow->v6), &flow->sport, 2);
}

/**
 * fs_rss_prepare() - fill in what follows from the key
 * @rss: its key is set
 *
 * Context: any.
 */
void fs_rss_prepare(struct fs_rss *rss)
{
	int v6, i;
	u8 byte;

	for (v6 = 0; v6 < 2; v6++) {
		for (i = 0; i < 256; i++) {
			byte = i;
			rss->port[v6][0][i] = fs_toeplitz(rss->key, FS_AT_DPORT(v6), &byte, 1);
			rss->port[v6][1][i] = fs_toeplitz(rss->key, FS_AT_DPORT(v6) + 1, &byte, 1);
		}
	}
}

/**
 * fs_ports_by_rss() - candidates on a device that steers by RSS
 * @ports: has the CPU and the range, the rest 0
 * @rss: how it hashes
 * @flow: the connection's addresses and the peer's port
 *
 * Context: RCU read side, if that is what keeps @rss.
 * Return: true, as each port may be one.
 */
bool fs_ports_by_rss(struct fs_ports *ports, const struct fs_rss *rss,
		     const struct fs_flow *flow)
{
	ports->rss = rss;
	ports->v6 = flow->v6;
	ports->hash = fs_rss_hash(rss, flow);
	ports->total = ports->high - ports->low + 1;
	return true;
}

/* Whole rows of one port of each class; the ends may stick out. */
static bool fs_ports_rows(struct fs_ports *ports)
{
	if (ports->low > ports->high)
		return false;
	ports->total = (ports->high / ports->step - ports->low / ports->step + 1) *
		       ports->nclasses;
	return ports->total;
}

/**
 * fs_class_cmp() - order of classes for fs_ports_by_class()
 * @a: a class
 * @b: another
 * @priv: the CPU of each class
 *
 * Context: any.
 * Return: as for sort_r().
 */
int fs_class_cmp(const void *a, const void *b, const void *priv)
{
	const s32 *cpus = priv;
	u16 x = *(const u16 *)a, y = *(const u16 *)b;

	return cpus[x] != cpus[y] ? cpus[x] - cpus[y] : x - y;
}

/**
 * fs_ports_by_class() - candidates on a device that steers by port
 * @ports: has the CPU and the range, the rest 0
 * @classes: all of them, sorted by fs_class_cmp()
 * @cpus: the CPU of each class
 * @count: number of classes, a power of 2
 *
 * Context: RCU read side, if that is what keeps @classes.
 * Return: false where no port is.
 */
bool fs_ports_by_class(struct fs_ports *ports, const u16 *classes, const s32 *cpus,
		       u32 count)
{
	u32 i;

	ports->low = max(ports->low, FASTSOCKET_PORT_CLASSES);
	ports->step = count;
	/* The classes of one CPU: a run of the sorted ones. */
	ports->classes = classes;
	for (i = 0; i < count; i++) {
		int cpu = cpus[classes[i]];

		if (cpu < ports->cpu)
			ports->classes++;
		else if (cpu == ports->cpu)
			ports->nclasses++;
		else
			break;
	}
	return fs_ports_rows(ports);
}

/**
 * fs_ports_by_number() - candidates on a device of which nothing is known
 * @ports: has the CPU and the range, the rest 0
 * @step: a power of 2, more than any CPU's number
 *
 * Each CPU gets the ports that end in its number.
 *
 * Context: any.
 * Return: false where no port is.
 */
bool fs_ports_by_number(struct fs_ports *ports, u32 step)
{
	ports->step = step;
	ports->nclasses = 1;
	return fs_ports_rows(ports);
}

/**
 * fs_ports_nth() - one of the ports
 * @ports: as one of fs_ports_by_*() has left them
 * @n: which, less than its total
 *
 * Context: RCU read side, as for what made @ports.
 * Return: the port, or -1 where this one's replies go elsewhere.
 */
int fs_ports_nth(const struct fs_ports *ports, u32 n)
{
	const struct fs_rss *rss = ports->rss;
	u32 hash;
	int port;

	if (rss) {
		port = ports->low + n;
		hash = ports->hash ^ rss->port[ports->v6][0][port >> 8] ^
		       rss->port[ports->v6][1][port & 0xff];
		/* Power of 2 or not: the low bits first. */
		return rss->cpus[hash % rss->size] == ports->cpu ? port : -1;
	}
	port = round_down(ports->low, ports->step) +
	       n / ports->nclasses * ports->step +
	       (ports->classes ? ports->classes[n % ports->nclasses] : ports->cpu);
	return port >= ports->low && port <= ports->high ? port : -1;
}
