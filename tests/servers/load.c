// SPDX-License-Identifier: GPL-2.0
/*
 * A load generator that counts every failed request: a connection per request,
 * a number of them at a time, from one thread. wrk reconnects silently where
 * a connection is reset before the answer, which is what has to be counted
 * here.
 *
 * usage: load ADDRESS PORT CONCURRENCY
 *
 * Prints "started", runs until SIGINT or SIGTERM or the end of who has started it, lets
 * what is under way finish, and prints a line per failure and then "REQUESTS FAILED".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_S	60
#define MAX_CONNS	1024

struct conn {
	int fd;
	bool sent;
	size_t got;
	char head[16];
	time_t since;
};

static const char request[] =
	"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

static struct sockaddr_storage to;
static socklen_t to_len;
static int epfd;
static struct conn conns[MAX_CONNS];
static unsigned long requests, failed;
static volatile sig_atomic_t stopping;
static int active;

static void on_signal(int sig)
{
	(void)sig;
	stopping = 1;
}

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static void start(struct conn *c);

static void finish(struct conn *c, const char *failure)
{
	if (failure) {
		failed++;
		printf("# %s\n", failure);
	} else {
		requests++;
	}
	close(c->fd);
	c->fd = -1;
	active--;
	if (!stopping)
		start(c);
}

static void start(struct conn *c)
{
	struct epoll_event ev = { .events = EPOLLOUT, .data.ptr = c };

	c->fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0) {
		perror("socket");
		exit(1);
	}
	c->sent = false;
	c->got = 0;
	c->since = now();
	active++;
	epoll_ctl(epfd, EPOLL_CTL_ADD, c->fd, &ev);
	/* What fails here shows as an event, too. */
	if (connect(c->fd, (struct sockaddr *)&to, to_len) && errno != EINPROGRESS &&
	    errno != ECONNREFUSED) {
		perror("connect");
		exit(1);
	}
}

static void receive(struct conn *c)
{
	char buf[4096];
	ssize_t n = read(c->fd, buf, sizeof(buf));

	if (n < 0 && errno == EAGAIN)
		return;
	if (n < 0) {
		finish(c, strerror(errno));
		return;
	}
	if (!n) {
		finish(c, c->got >= 12 && !memcmp(c->head + 9, "200", 3) ?
		       NULL : "closed without a whole answer");
		return;
	}
	if (c->got < sizeof(c->head)) {
		size_t room = sizeof(c->head) - c->got;

		memcpy(c->head + c->got, buf, (size_t)n < room ? (size_t)n : room);
	}
	c->got += n;
}

static void event(struct conn *c, unsigned int events)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	int err = 0;
	socklen_t len = sizeof(err);

	if (c->sent) {
		receive(c);
		return;
	}
	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (!err && events & EPOLLOUT &&
	    write(c->fd, request, sizeof(request) - 1) == sizeof(request) - 1) {
		c->sent = true;
		epoll_ctl(epfd, EPOLL_CTL_MOD, c->fd, &ev);
		return;
	}
	finish(c, strerror(err ? err : errno));
}

static void expire(int n)
{
	for (int i = 0; i < n; i++)
		if (conns[i].fd >= 0 && now() - conns[i].since > TIMEOUT_S)
			finish(&conns[i], "timeout");
}

int main(int argc, char **argv)
{
	struct sockaddr_in *in = (void *)&to;
	struct sockaddr_in6 *in6 = (void *)&to;
	struct sigaction sa = { .sa_handler = on_signal };
	struct epoll_event events[64];
	int n, count = argc == 4 ? atoi(argv[3]) : 0;
	time_t checked = now();

	if (count < 1 || count > MAX_CONNS) {
		fprintf(stderr, "usage: load ADDRESS PORT CONCURRENCY\n");
		return 2;
	}
	if (inet_pton(AF_INET, argv[1], &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(atoi(argv[2]));
		to_len = sizeof(*in);
	} else if (inet_pton(AF_INET6, argv[1], &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(atoi(argv[2]));
		to_len = sizeof(*in6);
	} else {
		fprintf(stderr, "load: %s is no address\n", argv[1]);
		return 2;
	}
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	printf("started\n");
	fflush(stdout);

	epfd = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 0; i < count; i++)
		start(&conns[i]);
	while (active) {
		n = epoll_wait(epfd, events, 64, 1000);
		for (int i = 0; i < n; i++)
			event(events[i].data.ptr, events[i].events);
		if (now() != checked) {
			checked = now();
			expire(count);
		}
	}
	printf("%lu %lu\n", requests, failed);
	return 0;
}
