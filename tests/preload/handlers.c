// SPDX-License-Identifier: GPL-2.0
/*
 * A handler that interrupts malloc() at any moment makes calls that it may make, with
 * listeners; while another thread forks, or not.
 *
 * usage: handlers listen|fork
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANDLED	500
#define FORKED	150

static bool forks;
static int listener;
static volatile int handled, forked;
static void *blocks[64];

static int listens(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	return fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 1) ? -1 : fd;
}

/* Armed anew each time: a slow machine is in the handler for longer. */
static void arm(void)
{
	struct itimerval soon = { .it_value = { 0, 50 + 37 * handled % 450 } };

	setitimer(ITIMER_REAL, &soon, NULL);
}

static void handler(int sig)
{
	int saved = errno;

	(void)sig;
	if (forks ? close(dup(listener)) : listens() < 0)
		abort();
	handled++;
	if (handled < HANDLED || (forks && forked < FORKED))
		arm();
	errno = saved;
}

static void *forker(void *arg)
{
	int status;
	pid_t pid;

	while (forked < FORKED) {
		pid = fork();
		if (!pid)
			_exit(close(dup(listener)) != 0);
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			errx(1, "fork");
		forked++;
	}
	return arg;
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = handler, .sa_flags = SA_RESTART };
	pthread_t thread;
	sigset_t alarms;

	forks = argc == 2 && !strcmp(argv[1], "fork");
	listener = listens();
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarms, NULL);
	if (listener < 0 || (forks && pthread_create(&thread, NULL, forker, NULL)))
		err(1, "start");
	sigaction(SIGALRM, &act, NULL);
	pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
	arm();
	while (handled < HANDLED || (forks && forked < FORKED)) {
		for (int i = 0; i < 64; i++)
			blocks[i] = malloc(i % 4 ? 3000 + 40 * i : 24 + 16 * (i % 5));
		for (int i = 0; i < 64; i++)
			free(blocks[i]);
	}
	return forks ? pthread_join(thread, NULL) : 0;
}
