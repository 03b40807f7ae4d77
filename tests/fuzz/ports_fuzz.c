// SPDX-License-Identifier: GPL-2.0
/*
 * Ports that kmod/ports.c chooses, against what the interface promises of them:
 * each port of the range whose replies come to the CPU is given exactly once,
 * and no other. What comes where is computed here as plainly as it can be. To be
 * linked with libFuzzer.
 */
#include <arpa/inet.h>
#include <string.h>

#include "fastsocket.h"
#include "fuzz.h"
#include "ports.h"

#define PORTS		65536
#define RSS_PORTS	1024	/* each is hashed bit by bit */
#define TUPLE		36	/* bytes of the longest input of the hash */

/* What is left of the input; 0 goes on after its end. */
struct input {
	const u8 *data;
	size_t size;
};

static void take(struct input *in, void *to, size_t n)
{
	size_t have = n < in->size ? n : in->size;

	memset(to, 0, n);
	memcpy(to, in->data, have);
	in->data += have;
	in->size -= have;
}

static u32 number(struct input *in, u32 limit)
{
	u16 v;

	take(in, &v, sizeof(v));
	return v % limit;
}

/* The Toeplitz function as it is defined: a bit that is set adds the 32 bits of the key there. */
static u32 window[TUPLE * 8];

static void set_windows(const u8 *key)
{
	int at, bit;

	for (at = 0; at < TUPLE * 8; at++) {
		window[at] = 0;
		for (bit = at; bit < at + 32; bit++)
			window[at] = window[at] * 2 + (key[bit / 8] >> (7 - bit % 8)) % 2;
	}
}

static u32 toeplitz(const struct fs_flow *flow, int port)
{
	int len = flow->v6 ? 16 : 4, at;
	u8 tuple[TUPLE];
	u32 hash = 0;

	memcpy(tuple, &flow->saddr, len);
	memcpy(tuple + len, &flow->daddr, len);
	memcpy(tuple + 2 * len, &flow->sport, 2);
	tuple[2 * len + 2] = port / 256;
	tuple[2 * len + 3] = port % 256;
	for (at = 0; at < (2 * len + 4) * 8; at++)
		if (tuple[at / 8] & 128 >> at % 8)
			hash ^= window[at];
	return hash;
}

/* The hash that fs_ports_nth() looks the CPU up by. */
static u32 module_hash(const struct fs_ports *ports, int port)
{
	return ports->hash ^ ports->rss->port[ports->v6][0][port / 256] ^
	       ports->rss->port[ports->v6][1][port % 256];
}

/* The destination and source of packets, and their hash, as Microsoft publishes them. */
static const struct {
	const char *daddr;
	int dport;
	const char *saddr;
	int sport;
	u32 hash;
} published[] = {
	{ "161.142.100.80", 1766, "66.9.149.187", 2794, 0x51ccc178 },
	{ "65.69.140.83", 4739, "199.92.111.2", 14230, 0xc626b0ea },
	{ "12.22.207.184", 38024, "24.19.198.95", 12898, 0x5c2b394a },
	{ "209.142.163.6", 2217, "38.27.205.30", 48228, 0xafc7327f },
	{ "202.188.127.2", 1303, "153.39.163.191", 44251, 0x10e828a2 },
	{ "3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x40207d3d },
	{ "ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0xdde51bbf },
	{ "fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251,
	  0x02d1feef },
};

static void check_published(void)
{
	static struct fs_rss rss = { .key = {
		0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
		0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
		0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
		0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
	} };
	unsigned int i;

	fs_rss_prepare(&rss);
	set_windows(rss.key);
	for (i = 0; i < sizeof(published) / sizeof(published[0]); i++) {
		struct fs_flow flow = {
			.v6 = strchr(published[i].daddr, ':'),
			.sport = htons(published[i].sport),
		};
		struct fs_ports ports = { 0 };
		u32 want = published[i].hash;

		inet_pton(flow.v6 ? AF_INET6 : AF_INET, published[i].saddr, &flow.saddr);
		inet_pton(flow.v6 ? AF_INET6 : AF_INET, published[i].daddr, &flow.daddr);
		fs_ports_by_rss(&ports, &rss, &flow);
		CHECK(toeplitz(&flow, published[i].dport) == want);
		CHECK(module_hash(&ports, published[i].dport) == want);
	}
}

/* By port, whether its replies come to the CPU; and how often it has been given. */
static bool comes[PORTS];
static u8 given[PORTS];

static void check(struct fs_ports *ports, bool any, int low, int high)
{
	u32 n;
	int port;

	CHECK(any == (ports->total > 0));
	CHECK(ports->total <= 2 * PORTS);
	memset(given, 0, sizeof(given));
	for (n = 0; n < ports->total; n++) {
		port = fs_ports_nth(ports, n);
		CHECK(port == -1 || (port >= low && port <= high));
		if (port >= 0)
			CHECK(!given[port]++);
	}
	for (port = low; port <= high; port++)
		CHECK(given[port] == comes[port]);
}

/* The CPUs of a table: a few numbers again and again, -1 among them. */
static void take_cpus(struct input *in, s32 *cpus, u32 count)
{
	s32 first[64];
	u32 i, n = 1 + number(in, 64), limit = 1 + number(in, 8192);

	for (i = 0; i < n; i++)
		first[i] = (s32)number(in, limit + 1) - 1;
	for (i = 0; i < count; i++)
		cpus[i] = first[(i + i / n) % n];
}

static void by_rss(struct input *in, struct fs_ports *ports)
{
	int low = ports->low, port;
	struct fs_flow flow = { 0 };
	struct fs_rss *rss;
	u32 size = 1 + number(in, 65536);
	u8 v6;

	take(in, &v6, 1);
	flow.v6 = v6 % 2;
	take(in, &flow.saddr, flow.v6 ? 16 : 4);
	take(in, &flow.daddr, flow.v6 ? 16 : 4);
	take(in, &flow.sport, 2);
	rss = calloc(1, sizeof(*rss) + size * sizeof(*rss->cpus));
	CHECK(rss);
	take(in, rss->key, sizeof(rss->key));
	rss->size = size;
	take_cpus(in, rss->cpus, size);
	if (ports->cpu < 0)
		ports->cpu = max(0, rss->cpus[number(in, size)]);
	if (ports->high >= low + RSS_PORTS)
		ports->high = low + RSS_PORTS - 1;

	fs_rss_prepare(rss);
	set_windows(rss->key);
	fs_ports_by_rss(ports, rss, &flow);
	for (port = low; port <= ports->high; port++) {
		u32 hash = toeplitz(&flow, port);

		CHECK(module_hash(ports, port) == hash);
		comes[port] = rss->cpus[hash % size] == ports->cpu;
	}
	check(ports, true, low, ports->high);
	free(rss);
}

static const s32 *sort_by;

static int class_cmp(const void *a, const void *b)
{
	return fs_class_cmp(a, b, sort_by);
}

static void by_class(struct input *in, struct fs_ports *ports)
{
	u32 count = 1 << number(in, 13), i;
	s32 *cpus = malloc(count * sizeof(*cpus));
	u16 *classes = malloc(count * sizeof(*classes));
	int low = ports->low, port;
	bool any;

	CHECK(cpus && classes);
	take_cpus(in, cpus, count);
	if (ports->cpu < 0)
		ports->cpu = max(0, cpus[number(in, count)]);
	for (i = 0; i < count; i++)
		classes[i] = i;
	sort_by = cpus;
	qsort(classes, count, sizeof(*classes), class_cmp);
	for (port = low; port <= ports->high; port++)
		comes[port] = port & FASTSOCKET_PORT_CLASSES && cpus[port % count] == ports->cpu;
	any = fs_ports_by_class(ports, classes, cpus, count);
	check(ports, any, low, ports->high);
	free(classes);
	free(cpus);
}

static void by_number(struct input *in, struct fs_ports *ports)
{
	u32 step = 1 << number(in, 14);
	int port;
	bool any;

	ports->cpu = max(ports->cpu, 0) % step;
	for (port = ports->low; port <= ports->high; port++)
		comes[port] = port % step == (u32)ports->cpu;
	any = fs_ports_by_number(ports, step);
	check(ports, any, ports->low, ports->high);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	check_published();
	return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static void (* const ways[])(struct input *in, struct fs_ports *ports) = {
		by_rss, by_class, by_number,
	};
	struct input in = { data, size };
	u32 way = number(&in, 3);
	int a = 1 + number(&in, 65535), b = 1 + number(&in, 65535);
	/* Any CPU or, as -1 says, one of the table's. */
	struct fs_ports ports = {
		.cpu = (int)number(&in, 8193) - 1,
		.low = a < b ? a : b,
		.high = max(a, b),
	};

	ways[way](&in, &ports);
	return 0;
}
