// SPDX-License-Identifier: GPL-2.0
/*
 * A thread that is to be cancelled calls what is no cancellation point:
 * epoll_create() and epoll_ctl() of a listener. It ends afterwards, at a point of its own, and
 * nothing that others need is left locked.
 *
 * usage: cancel	(bound to one CPU)
 */
#define _GNU_SOURCE
#include <err.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int listener, set;
static volatile bool cancelled, added;

static void *worker(void *arg)
{
	struct epoll_event event = { .events = EPOLLIN };

	while (!cancelled)
		;
	if (epoll_create1(0) < 0)
		err(1, "epoll_create1");
	for (int i = 0; i < 2; i++) {
		if (epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) ||
		    epoll_ctl(set, EPOLL_CTL_MOD, listener, &event) ||
		    epoll_ctl(set, EPOLL_CTL_DEL, listener, NULL))
			err(1, "epoll_ctl");
	}
	added = true;
	pthread_testcancel();
	return arg;
}

int main(void)
{
	pthread_t thread;
	void *result;
	pid_t child;
	int status;

	alarm(60);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	set = epoll_create1(0);
	if (listener < 0 || set < 0 || listen(listener, 16))
		err(1, "listen");
	if (pthread_create(&thread, NULL, worker, NULL))
		errx(1, "pthread_create");
	pthread_cancel(thread);
	cancelled = true;
	pthread_join(thread, &result);
	if (!added || result != PTHREAD_CANCELED)
		errx(1, "the thread has ended too early");
	child = fork();
	if (!child)
		_exit(0);
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		errx(1, "fork");
	return close(listener);
}
