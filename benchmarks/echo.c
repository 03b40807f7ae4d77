// SPDX-License-Identifier: GPL-2.0
/*
 * The least that a server and a client can do: accept, echo, close; connect,
 * close. One process for each CPU, bound to it.
 *
 * usage: echo serve shared|own PORT FIRST-CPU CPUS [keep]
 *		one listener for all; one for each, in a SO_REUSEPORT group. With
 *		"keep", as many echoes as the client likes
 *	  echo connect ADDRESS PORT FIRST-CPU CPUS
 *
 * Until a signal ends them. The echo is the body of a HTTP answer, so that a
 * client that checks for one is content.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKLOG		4096

static const char answer[] = "HTTP/1.1 200 OK\r\n\r\n";
static struct sockaddr_in address = { .sin_family = AF_INET };
static bool keep;

static void bind_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "sched_setaffinity to CPU %d", cpu);
}

static int start_listener(bool reuseport)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;

	if (fd < 0)
		err(1, "socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)))
		err(1, "SO_REUSEPORT");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, BACKLOG))
		err(1, "listen");
	return fd;
}

static void echo(int fd)
{
	char buffer[512];
	size_t head = keep ? 0 : sizeof(answer) - 1;
	ssize_t length = read(fd, buffer + head, sizeof(buffer) - head);

	if (length < 0 && errno == EAGAIN)
		return;
	if (length > 0) {
		memcpy(buffer, answer, head);
		if (write(fd, buffer, head + length) < 0 && errno != EPIPE && errno != ECONNRESET)
			warn("write");
	}
	if (length <= 0 || !keep)
		close(fd);
}

static void serve(int listener)
{
	/* Of those that wait for a shared one, wake one. */
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = listener };
	struct epoll_event ready[16];
	int set = epoll_create1(0);

	if (epoll_ctl(set, EPOLL_CTL_ADD, listener, &event))
		err(1, "epoll_ctl");
	for (;;) {
		int n = epoll_wait(set, ready, 16, -1);

		for (int i = 0; i < n; i++) {
			int fd = ready[i].data.fd;

			if (fd != listener) {
				echo(fd);
				continue;
			}
			fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
			event = (struct epoll_event){ .events = EPOLLIN, .data.fd = fd };
			if (fd >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &event))
				err(1, "epoll_ctl");
		}
	}
}

static void connect_and_close(void)
{
	for (;;) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (fd < 0)
			err(1, "socket");
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
			err(1, "connect");
		close(fd);
	}
}

int main(int argc, char **argv)
{
	bool serves = argc >= 6 && !strcmp(argv[1], "serve");
	bool shared = serves && !strcmp(argv[2], "shared");
	struct rlimit files = { 1 << 20, 1 << 20 };
	int first, cpus, listener[CPU_SETSIZE];

	keep = serves && argc == 7 && !strcmp(argv[6], "keep");
	if (argc != 6 + keep || (!serves && strcmp(argv[1], "connect")) ||
	    (!serves && inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) ||
	    (serves && !shared && strcmp(argv[2], "own")))
		errx(2, "usage: echo serve shared|own PORT FIRST-CPU CPUS [keep] | echo connect ADDRESS PORT FIRST-CPU CPUS");
	address.sin_port = htons(atoi(argv[3]));
	first = atoi(argv[4]);
	cpus = atoi(argv[5]);
	if (first < 0 || cpus < 1 || first + cpus > CPU_SETSIZE)
		errx(2, "no CPUs: %s %s", argv[4], argv[5]);
	signal(SIGPIPE, SIG_IGN);
	if (keep && setrlimit(RLIMIT_NOFILE, &files))
		warn("setrlimit");
	for (int i = 0; serves && i < cpus; i++)
		listener[i] = i && shared ? listener[0] : start_listener(!shared);
	for (int i = 0; i < cpus; i++) {
		pid_t pid = fork();

		if (pid < 0)
			err(1, "fork");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		bind_to(first + i);
		if (serves)
			serve(listener[i]);
		else
			connect_and_close();
	}
	while (wait(NULL) > 0)
		;
	return 1;
}
