/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the library share.
 */
#ifndef FSOCKET_H
#define FSOCKET_H

#include <poll.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>

#include "fastsocket.h"

enum level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* log.c */
void log_init(void);
void log_stderr(void);
void logf_at(enum level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static inline bool within(int fd, unsigned int first, unsigned int last)
{
	return fd >= 0 && (unsigned int)fd >= first && (unsigned int)fd <= last;
}

/* lock.c */
void lock_acquire(void);
void lock_release(void);
void lock_fork(void);
void lock_parent(void);
bool lock_child(void);

/* control.c: the module */
time_t seconds(void);
int control_info(struct fastsocket_info *info);
void control_check(void);
int control_spawn(int listen_fd, int *cpu);
void control_sync(int listen_fd);
bool control_owns(int fd);
void control_closed(unsigned int first, unsigned int last);
bool control_ports(void);
int control_port(int fd, unsigned int flags, const struct sockaddr *addr,
		 socklen_t len);

/* affinity.c: the CPU of a worker */
int affinity_cpu(void);
void affinity_bind(int cpu);
bool affinity_lift(void);
void affinity_return(void);
void affinity_child(void);
bool affinity_bound(void);
void *affinity_inherit(void *(*func)(void *), void *arg);
void *affinity_start(void *ctx);

/* listener.c: the application's listeners and who waits for them */
enum kind {
	KIND_UNKNOWN,
	KIND_OTHER,	/* no listener when last looked at; see listener.c */
	KIND_LISTENER,	/* of the application */
	KIND_EPOLL,	/* an epoll set with a listener in it */
	KIND_LOCAL,	/* a descriptor of ours */
};

void listener_init(void);
enum kind listener_kind(int fd);
bool listener_ours(void);
void listener_other(int fd);
bool listener_any_local(void);
bool listener_detect(int fd);
void listener_listen(int fd);
int listener_local(int fd, int epfd);
int listener_next_local(int fd, int epfd, int after);
bool listener_twice(void);
int listener_add(int epfd, int fd, const struct epoll_event *ev);
int listener_mod(int epfd, int fd, const struct epoll_event *ev);
int listener_del(int epfd, int fd, bool waits);
void listener_settle(void);
bool listener_vacate(void);
void listener_closing(unsigned int first, unsigned int last);
void listener_closed(unsigned int first, unsigned int last);
void listener_drop_local(int local);
void listener_gone(int local);
void listener_drop(int fd);
void listener_duped(int from, int to);
int fd_raise(int fd);

/* port.c: the port that connect() gets */
void port_init(void);
void port_bound(int fd, const struct sockaddr *addr, socklen_t len);
void port_seen(int fd);
void port_all_seen(void);
int port_connect(int fd, const struct sockaddr *addr, socklen_t len);

/* busy.c: busy polling */
void busy_init(void);
void busy_epoll(int epfd);

/* intercept.c: libc's own functions */
struct real {
	int (*listen)(int, int);
	int (*bind)(int, const struct sockaddr *, socklen_t);
	int (*connect)(int, const struct sockaddr *, socklen_t);
	int (*getsockname)(int, struct sockaddr *, socklen_t *);
	ssize_t (*sendmsg)(int, const struct msghdr *, int);
	int (*sendmmsg)(int, struct mmsghdr *, unsigned int, int);
	int (*epoll_create)(int);
	int (*epoll_create1)(int);
	int (*epoll_ctl)(int, int, int, struct epoll_event *);
	int (*epoll_wait)(int, struct epoll_event *, int, int);
	int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
	int (*epoll_pwait2)(int, struct epoll_event *, int,
			    const struct timespec *, const sigset_t *);
	int (*accept)(int, struct sockaddr *, socklen_t *);
	int (*accept4)(int, struct sockaddr *, socklen_t *, int);
	int (*close)(int);
	int (*close_range)(unsigned int, unsigned int, int);
	void (*closefrom)(int);
	int (*dup)(int);
	int (*dup2)(int, int);
	int (*dup3)(int, int, int);
	int (*fcntl)(int, int, ...);
	int (*shutdown)(int, int);
	int (*setsockopt)(int, int, int, const void *, socklen_t);
	int (*poll)(struct pollfd *, nfds_t, int);
	int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *,
		     const sigset_t *);
	int (*select)(int, fd_set *, fd_set *, fd_set *, struct timeval *);
	int (*pselect)(int, fd_set *, fd_set *, fd_set *, const struct timespec *,
		       const sigset_t *);
	int (*system)(const char *);
	FILE *(*popen)(const char *, const char *);
	int (*posix_spawn)(pid_t *, const char *, const posix_spawn_file_actions_t *,
			   const posix_spawnattr_t *, char *const [], char *const []);
	int (*posix_spawnp)(pid_t *, const char *, const posix_spawn_file_actions_t *,
			    const posix_spawnattr_t *, char *const [], char *const []);
	int (*execv)(const char *, char *const []);
	int (*execvp)(const char *, char *const []);
	int (*execve)(const char *, char *const [], char *const []);
	int (*execvpe)(const char *, char *const [], char *const []);
	int (*fexecve)(int, char *const [], char *const []);
	int (*pthread_create)(pthread_t *, const pthread_attr_t *,
			      void *(*)(void *), void *);
};

const struct real *real(void);

#endif /* FSOCKET_H */
