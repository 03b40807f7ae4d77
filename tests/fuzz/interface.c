// SPDX-License-Identifier: GPL-2.0
/*
 * Calls every ioctl, and reads and writes every sysctl and file below
 * /proc/net/fastsocket, with arguments that are random, or nearly right, on
 * sockets of all kinds that other threads use at the same time.
 *
 * usage: interface user|root CALLS SEED THREADS
 *
 * As "user" it has no privilege at all, as "root" those of the first user of a
 * user and network namespace of its own. A thread's calls follow from the seed
 * and its number alone; how threads interleave, and what else the kernel does
 * meanwhile, is not repeatable. Prints how often each call gave which errno, and
 * fails if one did what its caller may not do. CALLS are those to the module; as
 * many go to the sockets. A quarter of the ioctls are those of a 32-bit program,
 * where the kernel has them.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fastsocket.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define NOBODY		65534
#define POOL		96	/* descriptors that the threads share */
#define FIRST_FD	100	/* the pool's are above all others */
#define AROUND		(1 << _IOC_SIZEBITS)	/* what is written may be so far from a page */
#define ERRNOS		134
#define GETPID_32	20	/* numbers of i386 */
#define IOCTL_32	54

static int pool[POOL];
static int control[2];		/* the device and the file in /proc */
static char *files[32];		/* sysctls first */
static unsigned int nr_files, nr_sysctls;
static bool privileged;
static unsigned int ifindexes[4] = { 1, 2, 3, 4 };	/* lo is 1 */
static uint64_t seed;
static long calls_each;

/* Those of RSS and GIVEN are among STEER and PORT, and have succeeded. */
enum { INFO, SPAWN, SYNC, STEER, PORT, OTHER, RSS, GIVEN, SYSCTL_WRITE, FILE_READ, WHATS };

static const char * const what_names[] = {
	"info", "spawn", "sync", "steer", "port", "other ioctls", "steer by RSS", "ports given",
	"sysctl writes", "reads",
};

/* The second ones are of the 32-bit entry. */
static unsigned long results[2][WHATS][ERRNOS];
static bool ia32;		/* the kernel has that entry */

static __thread uint64_t state;
static __thread char *pages[2];	/* can be written, nothing else near them; [1] is below 4 GiB */
static __thread char *page;	/* one of them */
static __thread char *constant;	/* one that cannot be written */

static uint64_t rnd(void)
{
	/* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators) */
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static unsigned int below(unsigned int n)
{
	return rnd() % n;
}

static bool percent(unsigned int n)
{
	return below(100) < n;
}

static uint32_t number(void)
{
	static const uint32_t interesting[] = {
		0, 1, 2, 3, 4, 7, 8, 63, 64, 255, 1024, 4095, 4096, 4097, 8191, 8192, 0x7fff,
		0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
	};

	return percent(80) ? interesting[below(ARRAY_SIZE(interesting))] : rnd();
}

static int any_fd(void)
{
	unsigned int kind = below(100);

	if (kind < 88)
		return pool[below(POOL)];
	return kind < 94 ? control[below(2)] : kind < 97 ? (int)number() : (int)below(400) - 8;
}

/* A place for @size bytes that may end early, be read-only or not be there. */
static void *place(size_t size)
{
	static char * const nowhere[] = {
		NULL, (char *)1, (char *)-1L, (char *)0xffff888000000000, (char *)0x7ffffffff000,
	};
	unsigned int kind = below(100);

	if (kind < 85)
		return size <= 4096 ? page + 4096 - size : page;
	if (kind < 90)
		return page + 4096 - below(size + 1);
	if (kind < 95)
		return constant;
	return nowhere[below(ARRAY_SIZE(nowhere))];
}

static bool writable(const void *p, size_t size)
{
	size_t at = (const char *)p - page;

	return at <= 4096 && size <= 4096 - at;
}

/* Mostly of a listener in the pool. */
static socklen_t address(struct sockaddr_storage *to)
{
	static const uint32_t v4[] = {
		INADDR_LOOPBACK, INADDR_LOOPBACK + 1, INADDR_ANY, INADDR_BROADCAST, 0xe0000001,
		0x0a010101, 0xc0000201,
	};
	struct sockaddr_in *in = (void *)to;
	struct sockaddr_in6 *in6 = (void *)to;
	struct sockaddr_storage name;
	socklen_t len = sizeof(name);
	in_port_t port = htons(number());

	memset(to, 0, sizeof(*to));
	if (percent(90) && !getsockname(any_fd(), (struct sockaddr *)&name, &len))
		port = ((struct sockaddr_in *)&name)->sin_port;
	switch (below(10)) {
	case 0:
		to->ss_family = number();
		break;
	case 1:
		in6->sin6_family = AF_INET6;
		in6->sin6_port = port;
		in6->sin6_scope_id = percent(50) ? 0 : number();
		for (int i = 0; i < 16; i++)
			in6->sin6_addr.s6_addr[i] = percent(50) ? 0 : rnd();
		break;
	case 2:
	case 3:
		in6->sin6_family = AF_INET6;
		in6->sin6_port = port;
		in6->sin6_addr = in6addr_loopback;
		break;
	case 4:
		in6->sin6_family = AF_INET6;
		in6->sin6_port = port;
		in6->sin6_addr.s6_addr[10] = 0xff;
		in6->sin6_addr.s6_addr[11] = 0xff;
		in6->sin6_addr.s6_addr[12] = 127;
		in6->sin6_addr.s6_addr[15] = 1;
		break;
	default:
		in->sin_family = AF_INET;
		in->sin_port = port;
		in->sin_addr.s_addr = htonl(percent(80) ? INADDR_LOOPBACK : v4[below(ARRAY_SIZE(v4))]);
	}
	if (percent(10))
		return number();
	return to->ss_family == AF_INET ? sizeof(*in) : sizeof(*in6);
}

static void count(bool compat, int what, int ret)
{
	int e = ret < 0 ? errno : 0;

	__atomic_add_fetch(&results[compat][what][e < ERRNOS ? e : ERRNOS - 1], 1,
			   __ATOMIC_RELAXED);
}

/* A system call of i386. */
static int call32(int number, long a, long b, long c)
{
	int ret;

	asm volatile("int $0x80" : "=a" (ret) : "a" (number), "b" (a), "c" (b), "d" (c) :
		     "memory", "cc", "r8", "r9", "r10", "r11");
	if (ret >= 0)
		return ret;
	errno = -ret;
	return -1;
}

/* Where the kernel has no such calls, they give ENOSYS or kill. */
static bool has_ia32(void)
{
	int status;
	pid_t child = fork();

	if (child < 0)
		err(2, "fork");
	if (!child)
		_exit(call32(GETPID_32, 0, 0, 0) != getpid());
	return waitpid(child, &status, 0) == child && !status;
}

/* Into the pool; what was there is closed, whoever uses it. */
static void keep(int fd)
{
	int high, old;

	if (fd < 0)
		return;
	high = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD);
	close(fd);
	old = __atomic_exchange_n(&pool[below(POOL)], high, __ATOMIC_RELAXED);
	if (old >= FIRST_FD)
		close(old);
}

static void do_ioctl(void)
{
	static const unsigned long cmds[] = {
		FASTSOCKET_IOC_INFO, FASTSOCKET_IOC_SPAWN, FASTSOCKET_IOC_SYNC,
		FASTSOCKET_IOC_STEER, FASTSOCKET_IOC_PORT,
	};
	unsigned int what = below(20) ? below(OTHER) : OTHER;
	unsigned long cmd = what < OTHER ? cmds[what] : (unsigned long)rnd();
	size_t size = _IOC_SIZE(cmd);
	char buffer[4096] = {}, *arg;
	bool compat = percent(25) && ia32;
	int ret;

	page = pages[compat];
	if (what == OTHER && percent(80))
		cmd = _IOC(below(4), FASTSOCKET_IOC_MAGIC, below(percent(80) ? 8 : 256), below(64));
	if (what < OTHER && percent(10)) {
		size = percent(80) ? below(64) : below(1 << _IOC_SIZEBITS);
		cmd = (cmd & ~(unsigned long)IOCSIZE_MASK) | size << _IOC_SIZESHIFT;
	}
	if (what < OTHER && percent(5)) {
		for (unsigned int i = 0; i < size && i < sizeof(buffer); i++)
			buffer[i] = rnd();
	} else if (what == SPAWN) {
		struct fastsocket_spawn spawn = {
			.listen_fd = any_fd(),
			.cpu = percent(70) ? (int)below(5) - 1 : (int)number(),
			.fd = number(),
			.flags = percent(95) ? 0 : number(),
		};
		memcpy(buffer, &spawn, sizeof(spawn));
	} else if (what == SYNC) {
		struct fastsocket_sync sync = {
			.listen_fd = any_fd(),
			.flags = percent(95) ? 0 : number(),
		};
		memcpy(buffer, &sync, sizeof(sync));
	} else if (what == STEER) {
		unsigned int mode = percent(95) ? below(3) : number();
		bool off = mode == FASTSOCKET_STEER_OFF;
		struct fastsocket_steer steer = {
			.ifindex = percent(80) ? ifindexes[below(4)] : number(),
			.mode = mode,
			.count = percent(70) ? (off ? 0 : 1U << below(5)) : number(),
			.flags = percent(95) ? 0 : number(),
		};
		int *cpus = place(4 * (steer.count & 0xfff));

		if (writable(cpus, 4 * (size_t)steer.count))
			for (unsigned int i = 0; i < steer.count; i++)
				cpus[i] = percent(98) ? (int)below(5) - 1 : (int)number();
		steer.cpus = (uintptr_t)cpus;
		memcpy(buffer, &steer, sizeof(steer));
	} else if (what == PORT) {
		struct sockaddr_storage addr;
		struct fastsocket_port port = {
			.fd = any_fd(),
			.flags = percent(90) ? below(3) : number(),
			.addrlen = address(&addr),
			.pad = percent(98) ? 0 : number(),
		};
		void *at = place(port.addrlen <= 4096 ? port.addrlen : 4096);

		if (port.addrlen <= sizeof(addr) && writable(at, port.addrlen))
			memcpy(at, &addr, port.addrlen);
		port.addr = (uintptr_t)at;
		memcpy(buffer, &port, sizeof(port));
	}
	arg = place(size);
	/* Mostly below what the structure points at, which is at the page's end. */
	if ((what == STEER || what == PORT) && writable(arg, size) && percent(90))
		arg = page + 8 * below(64);
	if (writable(arg, size))
		memcpy(arg, buffer, size < sizeof(buffer) ? size : sizeof(buffer));

	if (compat)
		ret = call32(IOCTL_32, control[below(2)], cmd, (long)arg);
	else
		ret = ioctl(control[below(2)], cmd, arg);
	count(compat, what, ret);
	if (ret < 0)
		return;
	if (what == SPAWN && size >= sizeof(struct fastsocket_spawn))
		keep(((struct fastsocket_spawn *)arg)->fd);
	if (what == STEER && !privileged)
		errx(2, "STEER succeeded for a user without privilege");
	if (what == STEER && ((struct fastsocket_steer *)arg)->mode == FASTSOCKET_STEER_RSS)
		count(compat, RSS, ret);
	if (what == PORT && !(((struct fastsocket_port *)arg)->flags & FASTSOCKET_PORT_RELEASE))
		count(compat, GIVEN, ret);
}

static void do_file(void)
{
	char buffer[5000];
	int what = percent(40) && nr_sysctls ? SYSCTL_WRITE : FILE_READ;
	const char *name = files[below(what == SYSCTL_WRITE ? nr_sysctls : nr_files)];
	int fd = open(name, (what == SYSCTL_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	int ret = fd;

	if (fd >= 0 && what == SYSCTL_WRITE) {
		if (!privileged)
			errx(2, "%s can be written by a user without privilege", name);
		switch (below(4)) {
		case 0:
			snprintf(buffer, sizeof(buffer), "%d", (int)number());
			break;
		case 1:
			for (unsigned int i = 0; i < 64; i++)
				buffer[i] = rnd();
			buffer[64] = 0;
			break;
		default:
			snprintf(buffer, sizeof(buffer), "%d\n", (int)below(4) - 1);
		}
		ret = write(fd, percent(95) ? buffer : place(64), percent(90) ? strlen(buffer) : below(5000));
	} else if (fd >= 0) {
		if (percent(30))
			lseek(fd, percent(50) ? below(4096) : (off_t)rnd(), SEEK_SET);
		ret = read(fd, percent(90) ? buffer : place(4096), below(sizeof(buffer)));
		if (percent(50))
			ret = pread(fd, buffer, below(sizeof(buffer)), below(8192));
	}
	count(false, what, ret);
	if (fd >= 0)
		close(fd);
}

static void do_socket_option(int fd)
{
	static const struct { int level, name; } options[] = {
		{ SOL_SOCKET, SO_REUSEADDR }, { SOL_SOCKET, SO_REUSEPORT }, { SOL_SOCKET, SO_MARK },
		{ SOL_SOCKET, SO_RCVTIMEO }, { SOL_SOCKET, SO_LINGER }, { SOL_SOCKET, SO_TIMESTAMP },
		{ SOL_SOCKET, SO_BINDTOIFINDEX }, { SOL_SOCKET, SO_RCVBUF },
		{ IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT }, { IPPROTO_IP, IP_TRANSPARENT },
		{ IPPROTO_IP, IP_FREEBIND }, { IPPROTO_IP, 51 /* IP_LOCAL_PORT_RANGE */ },
		{ IPPROTO_IPV6, IPV6_V6ONLY }, { IPPROTO_IPV6, IPV6_ADDRFORM },
		{ IPPROTO_TCP, TCP_REPAIR }, { IPPROTO_TCP, TCP_DEFER_ACCEPT },
		{ IPPROTO_TCP, TCP_FASTOPEN }, { IPPROTO_TCP, TCP_FASTOPEN_CONNECT },
		{ IPPROTO_TCP, TCP_SAVE_SYN }, { IPPROTO_TCP, TCP_USER_TIMEOUT },
	};
	unsigned int i = below(ARRAY_SIZE(options) + 1);
	uint64_t value[2] = { percent(80) ? below(2) : number(), 0 };

	if (i < ARRAY_SIZE(options))
		setsockopt(fd, options[i].level, options[i].name, value, percent(90) ? 4 : below(17));
	else
		setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 3);
}

/* What programs do with sockets, so that all states are there to be met. */
static void do_socket(void)
{
	static const struct { int family, type, protocol; } kinds[] = {
		{ AF_INET, SOCK_STREAM, 0 }, { AF_INET6, SOCK_STREAM, 0 },
		{ AF_INET, SOCK_STREAM, IPPROTO_MPTCP }, { AF_INET6, SOCK_DGRAM, 0 },
		{ AF_UNIX, SOCK_STREAM, 0 }, { AF_INET, SOCK_DGRAM, 0 },
	};
	struct sockaddr_storage addr;
	struct linger now = { 1, 0 };
	char data[64] = {};
	int kind, fd, pair[2];
	socklen_t len;

	switch (below(16)) {
	case 0:
	case 1:
		kind = percent(85) ? below(2) : below(ARRAY_SIZE(kinds));
		keep(socket(kinds[kind].family, kinds[kind].type | SOCK_NONBLOCK | SOCK_CLOEXEC,
			    kinds[kind].protocol));
		break;
	case 2:
		len = address(&addr);
		if (percent(70))
			((struct sockaddr_in *)&addr)->sin_port = 0;
		bind(any_fd(), (struct sockaddr *)&addr, len);
		break;
	case 3:
	case 4:
		listen(any_fd(), percent(90) ? below(16) : number());
		break;
	case 5:
	case 6:
	case 7:
		len = address(&addr);
		connect(any_fd(), (struct sockaddr *)&addr, len);
		break;
	case 8:
	case 9:
		keep(accept4(any_fd(), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
		break;
	case 10:
		shutdown(any_fd(), below(3));
		break;
	case 11:
		do_socket_option(any_fd());
		break;
	case 12:
		fd = any_fd();
		if (percent(20))
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		if (fd >= FIRST_FD)
			close(fd);
		break;
	case 13:
		fd = any_fd();
		send(fd, data, below(sizeof(data)), MSG_DONTWAIT | MSG_NOSIGNAL);
		recv(fd, data, below(sizeof(data)), MSG_DONTWAIT);
		break;
	case 14:
		if (percent(10)) {
			keep(epoll_create1(EPOLL_CLOEXEC));
		} else if (percent(20) && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair)) {
			keep(pair[0]);
			keep(pair[1]);
		} else {
			struct epoll_event event = { .events = rnd() };

			epoll_ctl(any_fd(), 1 + below(3), any_fd(), &event);
		}
		break;
	default:
		keep(dup(any_fd()));
	}
}

static void do_cpu(void)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(below(sysconf(_SC_NPROCESSORS_ONLN)), &cpus);
	if (percent(30))
		CPU_SET(below(sysconf(_SC_NPROCESSORS_ONLN)), &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
}

static void *fuzz(void *number_of_thread)
{
	uint64_t first = seed + ((uint64_t)(uintptr_t)number_of_thread << 56);
	long calls = 0;

	for (int low = 0; low < 2; low++) {
		char *area = mmap(NULL, AROUND + 4096 + AROUND, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | (low ? MAP_32BIT : 0), -1, 0);

		pages[low] = area + AROUND;
		if (area == MAP_FAILED || mprotect(pages[low], 4096, PROT_READ | PROT_WRITE))
			err(2, "mmap");
	}
	constant = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (constant == MAP_FAILED)
		err(2, "mmap");
	page = pages[0];
	for (uint64_t n = 0; calls < calls_each; n++) {
		unsigned int kind;

		/* Whatever the calls before have given. */
		state = first + (n << 24);
		kind = below(100);
		calls += kind < 53;
		if (kind < 50)
			do_ioctl();
		else if (kind < 53)
			do_file();
		else if (kind < 99)
			do_socket();
		else
			do_cpu();
	}
	return NULL;
}

static void list_files(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *entry;

	if (!d)
		err(2, "%s", dir);
	while ((entry = readdir(d)))
		if (entry->d_name[0] != '.' && nr_files < ARRAY_SIZE(files) &&
		    asprintf(&files[nr_files], "%s/%s", dir, entry->d_name) > 0)
			nr_files++;
	closedir(d);
}

static void write_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		err(2, "%s", name);
	close(fd);
}

/* Beside lo the tests' cards, which have RSS; a route leads to them. */
static void devices(void)
{
	if (system("ip link set lo up && ip link add nic0 type rssnic && ip link set nic0p up &&"
		   "ip link set nic0 up && ip addr add 10.1.1.2/24 dev nic0"))
		errx(2, "the cards cannot be made");
	ifindexes[2] = if_nametoindex("nic0");
	ifindexes[3] = if_nametoindex("nic0p");
}

static void print_results(const char *kind, const unsigned long (*of)[ERRNOS], int whats)
{
	for (int what = 0; what < whats; what++) {
		printf("%s%s:", kind, what_names[what]);
		for (int e = 0; e < ERRNOS; e++)
			if (of[what][e])
				printf(" %s=%lu", e ? strerrorname_np(e) : "ok", of[what][e]);
		printf("\n");
	}
}

int main(int argc, char **argv)
{
	pthread_t threads[64];
	unsigned int nr_threads;
	int stamped, one = 1;

	if (argc != 5 || (strcmp(argv[1], "user") && strcmp(argv[1], "root")) ||
	    atoi(argv[4]) < 1 || (size_t)atoi(argv[4]) > ARRAY_SIZE(threads))
		errx(2, "usage: interface user|root CALLS SEED THREADS");
	privileged = !strcmp(argv[1], "root");
	ia32 = has_ia32();
	seed = strtoull(argv[3], NULL, 0);
	nr_threads = atoi(argv[4]);
	calls_each = atol(argv[2]) / nr_threads;

	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY))
		err(2, "cannot become nobody");
	/* Or its files in /proc are root's. */
	prctl(PR_SET_DUMPABLE, 1);
	if (privileged) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
			err(2, "unshare");
		write_file("/proc/self/setgroups", "deny");
		write_file("/proc/self/uid_map", "0 65534 1");
		write_file("/proc/self/gid_map", "0 65534 1");
		devices();
	}
	control[0] = open(FASTSOCKET_DEVICE, O_RDWR | O_CLOEXEC);
	control[1] = open(FASTSOCKET_PROC, O_RDONLY | O_CLOEXEC);
	if (control[0] < 0 || control[1] < 0)
		err(2, FASTSOCKET_DEVICE);
	list_files("/proc/sys/net/fastsocket");
	nr_sysctls = nr_files;
	list_files("/proc/self/net/fastsocket");
	signal(SIGPIPE, SIG_IGN);
	signal(SIGIO, SIG_IGN);
	signal(SIGURG, SIG_IGN);
	/* Or the kernel patches its code each time that the first socket is to have time
	 * stamps, and the last one has gone; emulated CPUs run into the breakpoints of that.
	 */
	stamped = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (stamped < 0 || setsockopt(stamped, SOL_SOCKET, SO_TIMESTAMP, &one, sizeof(one)))
		err(2, "SO_TIMESTAMP");
	memset(pool, -1, sizeof(pool));

	for (unsigned int i = 0; i < nr_threads; i++)
		if (pthread_create(&threads[i], NULL, fuzz, (void *)(uintptr_t)i))
			errx(2, "pthread_create");
	for (unsigned int i = 0; i < nr_threads; i++)
		pthread_join(threads[i], NULL);

	print_results("", results[0], WHATS);
	if (ia32)
		print_results("32-bit ", results[1], SYSCTL_WRITE);
	else
		printf("the kernel has no 32-bit calls\n");
	return 0;
}
