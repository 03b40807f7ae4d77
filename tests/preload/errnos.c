// SPDX-License-Identifier: GPL-2.0
/*
 * Every call that the library stands in front of, with every kind of
 * descriptor and with arguments good and bad: prints result and errno. Two
 * runs, without and with the library, print the same.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Not constants, as the compiler would warn of them. */
static void *volatile bad_ptr = (void *)8;
static volatile nfds_t too_many = UINT_MAX;
#define BAD	bad_ptr
/* The result of a call, as the caller sees it. */
#define SHOW(call)	do {						\
	int ret_;							\
	errno = 0;							\
	ret_ = (call);							\
	printf("%-28s " #call " = %d, %s\n", what, ret_,		\
	       strerrorname_np(errno));					\
} while (0)

static int ep;
static const char *what;

static int listener(void)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 8))
		perror("listener");
	return fd;
}

static void set_calls(int fd)
{
	struct epoll_event in = { EPOLLIN, { .fd = fd } };
	struct epoll_event excl = { EPOLLIN | EPOLLEXCLUSIVE, { .fd = fd } };
	struct epoll_event prio = { EPOLLIN | EPOLLPRI | EPOLLRDHUP, { .fd = fd } };
	struct epoll_event both = { EPOLLIN | EPOLLONESHOT | EPOLLEXCLUSIVE, { .fd = fd } };
	struct epoll_event got;
	volatile int none = -1;

	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &in));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, NULL));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, BAD));
	SHOW(epoll_ctl(ep, 77, fd, &in));
	SHOW(epoll_ctl(-1, EPOLL_CTL_ADD, fd, &in));
	SHOW(epoll_ctl(0, EPOLL_CTL_ADD, fd, &in));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &both));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &in));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &in));
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &excl));
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, BAD));
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &prio));
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &in));
	SHOW(epoll_wait(ep, &got, 0, 0));
	SHOW(epoll_wait(ep, &got, none, 0));
	SHOW(epoll_wait(fd, &got, 1, 0));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, BAD));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &excl));
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &in));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &in));
}

static void accept_calls(int fd)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr), negative = -1;

	SHOW(accept(fd, NULL, NULL));
	SHOW(accept(fd, (struct sockaddr *)&addr, &len));
	SHOW(accept(fd, (struct sockaddr *)&addr, NULL));
	SHOW(accept(fd, (struct sockaddr *)&addr, BAD));
	SHOW(accept(fd, (struct sockaddr *)&addr, &negative));
	SHOW(accept(fd, BAD, &len));
	SHOW(accept4(fd, NULL, NULL, SOCK_NONBLOCK));
	SHOW(accept4(fd, NULL, NULL, 77));
	SHOW(accept4(fd, NULL, NULL, -1));
}

static void wait_calls(int fd)
{
	struct pollfd fds[] = { { fd, POLLIN, 77 }, { -1, POLLIN, 77 }, { 9999, POLLIN, 0 } };
	struct timespec bad = { 0, -1 }, zero = {};
	struct timeval tv = {}, bad_tv = { -1, 0 };
	fd_set set;

	SHOW(poll(fds, 1, 0));
	SHOW(poll(fds, 3, 0));
	printf("%-28s revents %d %d %d\n", what, fds[0].revents, fds[1].revents, fds[2].revents);
	SHOW(poll(BAD, 1, 0));
	SHOW(poll(fds, too_many, 0));
	SHOW(ppoll(fds, 1, &zero, NULL));
	SHOW(ppoll(fds, 1, &bad, NULL));
	if (fd < 0 || fd >= FD_SETSIZE)
		return;
	FD_ZERO(&set);
	FD_SET(fd, &set);
	SHOW(select(fd + 1, &set, NULL, NULL, &tv));
	FD_SET(fd, &set);
	SHOW(select(-1, &set, NULL, NULL, &tv));
	SHOW(select(fd + 1, &set, NULL, NULL, &bad_tv));
	SHOW(pselect(fd + 1, &set, NULL, NULL, &zero, NULL));
}

static void socket_calls(int fd)
{
	int one = 1, get = 0;
	socklen_t len = sizeof(get);

	SHOW(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, 1));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, BAD, sizeof(one)));
	SHOW(setsockopt(fd, SOL_SOCKET, 9999, &one, sizeof(one)));
	SHOW(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &get, &len));
	SHOW(get);
	SHOW(getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &get, &len));
	SHOW(get);
	SHOW(ioctl(fd, FIONBIO, &one));
	SHOW(listen(fd, 4));
	SHOW(listen(fd, -1));
	SHOW(shutdown(fd, 77));
	SHOW(fcntl(fd, F_GETFD));
	SHOW(fcntl(fd, F_GETFL) & O_NONBLOCK);
	SHOW(fcntl(fd, F_SETFD, FD_CLOEXEC));
	SHOW(fcntl(fd, F_DUPFD, -1));
	SHOW(fcntl(fd, F_DUPFD, INT_MAX));
	SHOW(fcntl(fd, 7777, 0));
}

static void close_calls(int fd)
{
	int copy;

	SHOW(dup2(fd, fd));
	SHOW(dup3(fd, fd, 0));
	SHOW(dup2(fd, -1));
	SHOW(dup3(fd, 40, 77));
	SHOW(dup2(fd, 40));
	SHOW(close(40));
	SHOW(close(40));
	SHOW(dup3(fd, 40, O_CLOEXEC));
	SHOW(close_range(40, 40, 0));
	SHOW(close_range(50, 40, 0));
	SHOW(close_range(40, 50, 77));
	SHOW(close(40));
	copy = dup(fd);
	SHOW(copy);
	SHOW(close(copy));
	SHOW(shutdown(fd, SHUT_RD));
	SHOW(accept(fd, NULL, NULL));
	SHOW(shutdown(fd, SHUT_RD));
	SHOW(listen(fd, 4));
	SHOW(accept(fd, NULL, NULL));
	SHOW(close(fd));
	SHOW(accept(fd, NULL, NULL));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	SHOW(close(fd));
}

/* Nothing here gets a connection: what becomes of one is no errno. */
static void client_calls(const char *name, int fd)
{
	struct sockaddr_in own = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct sockaddr_in closed = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(1),
	};
	struct sockaddr_in nowhere = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(0xf0000001),
		.sin_port = htons(1),
	};
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(1) };
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct mmsghdr many = {};
	struct msghdr empty = {};
	struct sockaddr_storage got;
	socklen_t len = sizeof(got), negative = -1;
	volatile socklen_t huge = -1;

	what = name;
	SHOW(connect(fd, NULL, 0));
	SHOW(connect(fd, NULL, sizeof(closed)));
	SHOW(connect(fd, BAD, sizeof(closed)));
	SHOW(connect(fd, (struct sockaddr *)&closed, 2));
	SHOW(connect(fd, (struct sockaddr *)&closed, sizeof(got) + 1));
	SHOW(connect(fd, (struct sockaddr *)&closed, huge));
	SHOW(connect(fd, &none, sizeof(none)));
	SHOW(bind(fd, NULL, sizeof(own)));
	SHOW(bind(fd, BAD, sizeof(own)));
	SHOW(bind(fd, (struct sockaddr *)&own, 2));
	SHOW(bind(fd, (struct sockaddr *)&own, huge));
	SHOW(connect(fd, (struct sockaddr *)&nowhere, sizeof(nowhere)));
	SHOW(connect(fd, (struct sockaddr *)&closed, sizeof(closed)));
	SHOW(connect(fd, &none, sizeof(none)));
	SHOW(bind(fd, (struct sockaddr *)&own, sizeof(own)));
	SHOW(bind(fd, (struct sockaddr *)&own, sizeof(own)));
	SHOW(connect(fd, (struct sockaddr *)&nowhere, sizeof(nowhere)));
	SHOW(connect(fd, (struct sockaddr *)&closed, sizeof(closed)));
	SHOW(connect(fd, (struct sockaddr *)&closed, sizeof(closed)));
	SHOW(connect(fd, (struct sockaddr *)&six, sizeof(six)));
	SHOW(connect(fd, &none, sizeof(none)));
	SHOW(getsockname(fd, NULL, NULL));
	SHOW(getsockname(fd, BAD, &len));
	SHOW(getsockname(fd, (struct sockaddr *)&got, BAD));
	SHOW(getsockname(fd, (struct sockaddr *)&got, &negative));
	SHOW(sendmsg(fd, NULL, MSG_NOSIGNAL));
	SHOW(sendmsg(fd, BAD, MSG_NOSIGNAL));
	SHOW(sendmsg(fd, &empty, MSG_NOSIGNAL));
	SHOW(sendmmsg(fd, NULL, 1, MSG_NOSIGNAL));
	SHOW(sendmmsg(fd, &many, 0, MSG_NOSIGNAL));
	SHOW(sendmmsg(fd, &many, 1, MSG_NOSIGNAL));
	SHOW(listen(fd, 1));
	SHOW(connect(fd, (struct sockaddr *)&closed, sizeof(closed)));
	SHOW(close(fd));
	SHOW(connect(fd, (struct sockaddr *)&closed, sizeof(closed)));
}

static void every_call(const char *name, int fd)
{
	what = name;
	SHOW(fd);
	ep = epoll_create1(0);
	accept_calls(fd);
	set_calls(fd);
	accept_calls(fd);
	wait_calls(fd);
	socket_calls(fd);
	close_calls(fd);
	SHOW(close(ep));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
}

int main(void)
{
	int pipes[2], pair[2];

	every_call("listener", listener());
	every_call("TCP socket", socket(AF_INET, SOCK_STREAM, 0));
	every_call("IPv6 socket", socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0));
	every_call("UDP socket", socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));
	if (!socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		every_call("Unix socket", pair[0]);
	if (!pipe(pipes))
		every_call("pipe", pipes[0]);
	every_call("file", open("/etc/passwd", O_RDONLY));
	every_call("no descriptor", 60);
	every_call("-1", -1);
	every_call("beyond all", 1 << 20);

	client_calls("TCP client", socket(AF_INET, SOCK_STREAM, 0));
	client_calls("non-blocking client", socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	client_calls("IPv6 client", socket(AF_INET6, SOCK_STREAM, 0));
	client_calls("UDP client", socket(AF_INET, SOCK_DGRAM, 0));
	client_calls("Unix client", socket(AF_UNIX, SOCK_STREAM, 0));
	if (!pipe(pipes))
		client_calls("pipe", pipes[0]);
	client_calls("no descriptor", 60);
	client_calls("-1", -1);
	return 0;
}
