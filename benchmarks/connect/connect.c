// SPDX-License-Identifier: GPL-2.0
/*
 * The cost of connect()'s choice of a port.
 *
 *   connect fill ADDR PORT [local]
 *	For each number read, have that many connections, and print how many
 *	there are: fewer when no port is left. Their ports are those that
 *	connect() gives, or with "local" those of this CPU.
 *   connect sample ADDR PORT COUNT
 *	COUNT times, connect without waiting, print how many ns that has taken,
 *	and close.
 *
 * ADDR is beyond a device that drops what it is to send. The connections that
 * fill are made by TCP_REPAIR: without packets, so that no timer runs.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fastsocket.h"

static struct sockaddr_in dest;

static int new_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (fd < 0)
		err(1, "socket");
	return fd;
}

/* One more connection; false when no port is left. */
static bool add(int device)
{
	int fd = new_socket(), on = 1;
	struct fastsocket_port arg = {
		.fd = fd,
		.addr = (uintptr_t)&dest,
		.addrlen = sizeof(dest),
	};

	if (device >= 0 && ioctl(device, FASTSOCKET_IOC_PORT, &arg))
		goto failed;
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)))
		err(1, "TCP_REPAIR");
	if (!connect(fd, (struct sockaddr *)&dest, sizeof(dest)))
		return true;
failed:
	if (errno != EADDRNOTAVAIL)
		err(1, "a connection to fill with");
	close(fd);
	return false;
}

static void fill(bool local)
{
	struct rlimit files = { 100000, 100000 };
	int device = -1;
	long want, have = 0;

	if (setrlimit(RLIMIT_NOFILE, &files))
		err(1, "setrlimit");
	if (local) {
		device = open(FASTSOCKET_DEVICE, O_RDWR | O_CLOEXEC);
		if (device < 0)
			err(1, FASTSOCKET_DEVICE);
	}
	while (scanf("%ld", &want) == 1) {
		while (have < want && add(device))
			have++;
		printf("%ld\n", have);
		fflush(stdout);
	}
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

static void sample(long count)
{
	/* The first ones are slower, by what the caches do not have yet. */
	for (long i = -5; i < count; i++) {
		int fd = new_socket();
		uint64_t start = now(), end;
		int ret = connect(fd, (struct sockaddr *)&dest, sizeof(dest));

		end = now();
		if (!ret || errno != EINPROGRESS)
			err(1, "connect");
		close(fd);
		if (i >= 0)
			printf("%llu\n", (unsigned long long)(end - start));
	}
}

int main(int argc, char **argv)
{
	dest.sin_family = AF_INET;
	if (argc < 4 || inet_pton(AF_INET, argv[2], &dest.sin_addr) != 1)
		goto usage;
	dest.sin_port = htons(atoi(argv[3]));
	if (!strcmp(argv[1], "fill"))
		fill(argc > 4 && !strcmp(argv[4], "local"));
	else if (!strcmp(argv[1], "sample") && argc == 5)
		sample(atol(argv[4]));
	else
		goto usage;
	return 0;
usage:
	errx(2, "usage: connect fill ADDR PORT [local] | connect sample ADDR PORT COUNT");
}
