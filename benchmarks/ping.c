// SPDX-License-Identifier: GPL-2.0
/*
 * Connections to an echo server (echo.c, with "keep"): some with a message under
 * way all the time, of which the latency is measured, and many that are idle.
 *
 * usage: ping ADDRESS PORT ACTIVE IDLE SECONDS [SOURCE]...
 *
 * Opens the idle ones and prints "idle COUNT", and waits for a line of input. Then
 * lets the active ones go for SECONDS and prints a JSON object: how many echoes
 * there have been, and percentiles of their latency in microseconds. Connections
 * come from each SOURCE address in turn, as each has 64,512 ports at most.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE		64
#define MAX_ACTIVE	4096
/* Less than a listener's backlog holds. */
#define BURST		64
/* Latencies are counted in steps of a 16th of a power of two, in ns. */
#define STEP_BITS	4
#define STEPS		(64 << STEP_BITS)

static struct sockaddr_in to = { .sin_family = AF_INET };
static char **sources;
static int nsources;
static uint64_t sent[MAX_ACTIVE], counts[STEPS];

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

static unsigned int get_step(uint64_t ns)
{
	int shift = 63 - __builtin_clzll(ns | 1 << STEP_BITS) - STEP_BITS;

	return ((unsigned int)shift << STEP_BITS) + (ns >> shift);
}

/* The middle of a step, in ns. */
static double get_ns(unsigned int step)
{
	unsigned int shift = step >> STEP_BITS ? (step >> STEP_BITS) - 1 : 0;
	double low = step - ((uint64_t)shift << STEP_BITS);

	return (low + 0.5) * (UINT64_C(1) << shift);
}

static double get_percentile(uint64_t total, double part)
{
	uint64_t seen = 0;

	for (unsigned int i = 0; i < STEPS; i++) {
		seen += counts[i];
		if (seen >= total * part)
			return get_ns(i) / 1000;
	}
	return 0;
}

/* A connection, or the beginning of one. */
static int start_one(long n, int flags)
{
	struct sockaddr_in from = { .sin_family = AF_INET };
	/* Reset when closed: what comes next is not to wait for TIME_WAIT. */
	struct linger reset = { .l_onoff = 1 };
	int fd = socket(AF_INET, SOCK_STREAM | flags, 0), one = 1;

	if (fd < 0)
		err(1, "socket");
	if (nsources) {
		if (inet_pton(AF_INET, sources[n % nsources], &from.sin_addr) != 1)
			errx(2, "%s is no address", sources[n % nsources]);
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		if (bind(fd, (struct sockaddr *)&from, sizeof(from)))
			err(1, "bind to %s", sources[n % nsources]);
	}
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) && errno != EINPROGRESS)
		err(1, "connection %ld", n);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	return fd;
}

/* Many at a time, as nobody waits for a single one. */
static void open_idle(long idle)
{
	struct pollfd burst[BURST];

	for (long done = 0; done < idle;) {
		int n = idle - done < BURST ? idle - done : BURST;

		for (int i = 0; i < n; i++) {
			burst[i].fd = start_one(done++, SOCK_NONBLOCK);
			burst[i].events = POLLOUT;
		}
		for (int i = 0; i < n; i++) {
			int error;
			socklen_t length = sizeof(error);

			if (poll(&burst[i], 1, -1) != 1 ||
			    getsockopt(burst[i].fd, SOL_SOCKET, SO_ERROR, &error, &length))
				err(1, "poll");
			errno = error;
			if (error)
				err(1, "an idle connection");
		}
	}
}

static void send_message(int fd, unsigned int n)
{
	static const char message[MESSAGE];

	sent[n] = now();
	if (write(fd, message, sizeof(message)) != sizeof(message))
		err(1, "write");
}

static uint64_t ping(const int *fds, int active, int seconds)
{
	int set = epoll_create1(0);
	uint64_t start, end, total = 0;

	for (int i = 0; i < active; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.u32 = i };

		if (epoll_ctl(set, EPOLL_CTL_ADD, fds[i], &event))
			err(1, "epoll_ctl");
	}
	start = now();
	end = start + seconds * UINT64_C(1000000000);
	for (int i = 0; i < active; i++)
		send_message(fds[i], i);
	while (now() < end) {
		struct epoll_event events[64];
		int n = epoll_wait(set, events, 64, 1000);

		for (int i = 0; i < n; i++) {
			unsigned int which = events[i].data.u32;
			char buffer[MESSAGE];
			ssize_t length = read(fds[which], buffer, sizeof(buffer));

			/* So short a message comes in one piece. */
			if (length != sizeof(buffer))
				errx(1, "an echo of %zd bytes", length);
			counts[get_step(now() - sent[which])]++;
			total++;
			send_message(fds[which], which);
		}
	}
	return total;
}

int main(int argc, char **argv)
{
	struct rlimit files = { 1 << 20, 1 << 20 };
	int active, seconds, fds[MAX_ACTIVE];
	uint64_t total;
	long idle;

	if (argc < 6 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
		errx(2, "usage: ping ADDRESS PORT ACTIVE IDLE SECONDS [SOURCE]...");
	to.sin_port = htons(atoi(argv[2]));
	active = atoi(argv[3]);
	idle = atol(argv[4]);
	seconds = atoi(argv[5]);
	if (active < 1 || active > MAX_ACTIVE || idle < 0 || seconds < 1)
		errx(2, "1 to %d active ones, for a second at least", MAX_ACTIVE);
	sources = argv + 6;
	nsources = argc - 6;
	if (setrlimit(RLIMIT_NOFILE, &files))
		err(1, "setrlimit");
	open_idle(idle);
	printf("idle %ld\n", idle);
	fflush(stdout);
	getchar();
	for (int i = 0; i < active; i++)
		fds[i] = start_one(i, 0);
	total = ping(fds, active, seconds);
	printf("{\"echoes\": %llu, \"p50\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f}\n",
	       (unsigned long long)total, get_percentile(total, .5),
	       get_percentile(total, .99), get_percentile(total, .999));
	return 0;
}
