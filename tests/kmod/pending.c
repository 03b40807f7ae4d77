// SPDX-License-Identifier: GPL-2.0
/*
 * Many connections at little cost: sockets with a core-local port, and in
 * SYN_SENT by connect(), whose SYN TCP_FASTOPEN_CONNECT defers for ever. No
 * packet and no timer; filed all the same.
 *
 *	pending CPU COUNT ADDRESS	to ADDRESS and those after it, 1000 each;
 *					then waits for the end of its input
 *	pending CPU COUNT ADDRESS x	closes each before connect()
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../kmod/uapi/fastsocket.h"

#ifndef TCP_FASTOPEN_NO_COOKIE
#define TCP_FASTOPEN_NO_COOKIE	34
#endif

#define PER_ADDRESS	1000

static void on(int fd, int name)
{
	int one = 1;

	if (setsockopt(fd, IPPROTO_TCP, name, &one, sizeof(one)))
		err(1, "setsockopt");
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80) };
	struct fastsocket_port port = {
		.addr = (unsigned long)&to, .addrlen = sizeof(to),
	};
	int dev = open(FASTSOCKET_DEVICE, O_RDWR | O_CLOEXEC);
	long n, count, first;
	struct rlimit limit;
	cpu_set_t cpus;
	char end;

	if (argc < 4)
		errx(2, "usage: pending CPU COUNT ADDRESS [x]");
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1]), &cpus);
	count = atol(argv[2]);
	first = ntohl(inet_addr(argv[3]));
	limit.rlim_cur = count + 100;
	limit.rlim_max = limit.rlim_cur;
	if (dev < 0 || sched_setaffinity(0, sizeof(cpus), &cpus) ||
	    setrlimit(RLIMIT_NOFILE, &limit))
		err(1, "start");

	for (n = 0; n < count; n++) {
		port.fd = socket(AF_INET, SOCK_STREAM, 0);
		if (port.fd < 0)
			err(1, "socket %ld", n);
		to.sin_addr.s_addr = htonl(first + n / PER_ADDRESS);
		if (ioctl(dev, FASTSOCKET_IOC_PORT, &port))
			err(1, "port %ld", n);
		if (argc > 4) {
			close(port.fd);
			continue;
		}
		on(port.fd, TCP_FASTOPEN_CONNECT);
		on(port.fd, TCP_FASTOPEN_NO_COOKIE);
		if (connect(port.fd, (struct sockaddr *)&to, sizeof(to)))
			err(1, "connect %ld", n);
	}
	puts("ready");
	fflush(stdout);
	if (argc == 4 && read(0, &end, 1) < 0)
		err(1, "read");
	return 0;
}
