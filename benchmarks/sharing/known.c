// SPDX-License-Identifier: GPL-2.0
/*
 * A program whose cache-line transfers are known, to check the sharing meter
 * with. Threads, each bound to a CPU, wait in read() for an order from the first
 * thread, carry it out and answer in write(), so that in user space they touch
 * nothing common but the lines they are told to, one after the other. What the
 * kernel does meanwhile has other addresses.
 *
 * For each window it prints a line: its number, its name, and what the meter has
 * to find in user space, exactly or in a range.
 *
 * usage: known THREADS
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "marker.h"

#define MAX_THREADS	32
#define LINE		64
#define LINES		64	/* of each region */
#define HANDOVERS	50
#define STEPS		2000

enum op { QUIT = 1, LOAD, STORE, ATOMIC, LOAD_STORE, PLAIN_ADD, SPLIT, SPIN, COPY };

/*
 * An order in 64 bits, as it goes through an eventfd: what to do, with how many
 * lines, which word of them, in which region, how often, a step each time or not.
 */
#define ORDER(op, lines, word, region, times, steps)				\
	((uint64_t)(op) | (uint64_t)(lines) << 8 | (uint64_t)(word) << 16 |	\
	 (uint64_t)(region) << 24 | (uint64_t)(times) << 32 | (uint64_t)(steps) << 60)

static char *memory;
static int go[MAX_THREADS], answer[MAX_THREADS];
static int threads;

/* As the C library's functions touch variables of their own. */
static inline long raw(long number, long a, long b, long c)
{
	long result;

	asm volatile("syscall" : "=a" (result) : "a" (number), "D" (a), "S" (b), "d" (c)
		     : "rcx", "r11", "memory");
	return result;
}

static void put(int fd, uint64_t value)
{
	raw(SYS_write, fd, (long)&value, sizeof(value));
}

static uint64_t get(int fd)
{
	uint64_t value = 0;

	raw(SYS_read, fd, (long)&value, sizeof(value));
	return value;
}

static inline void access_line(enum op op, char *p, unsigned int word)
{
	uint64_t *at = (uint64_t *)p + word, value;

	switch (op) {
	case LOAD:
		asm volatile("mov %1, %0" : "=r" (value) : "m" (*at));
		break;
	case STORE:
		asm volatile("movq $1, %0" : "=m" (*at));
		break;
	case ATOMIC:
		asm volatile("lock incq %0" : "+m" (*at));
		break;
	case LOAD_STORE:
		asm volatile("mov %1, %0\n\tmovq $1, %1" : "=r" (value), "+m" (*at));
		break;
	case PLAIN_ADD:
		asm volatile("incq %0" : "+m" (*at));
		break;
	case SPLIT:
		/* Its second half is in the next line. */
		asm volatile("movq $1, %0" : "=m" (*(uint64_t *)(p + LINE - 4)));
		break;
	default:
		break;
	}
}

static void carry_out(uint64_t order)
{
	enum op op = order & 0xff;
	unsigned int lines = order >> 8 & 0xff, word = order >> 16 & 0xff;
	char *p = memory + (order >> 24 & 0xff) * LINES * LINE;
	unsigned long times = order >> 32 & 0xfffffff, i;

	if (op == SPIN) {
		asm volatile("1: dec %0\n\tjnz 1b" : "+r" (times));
		return;
	}
	if (op == COPY) {
		/* 4 instructions each time, however many bytes. */
		while (times) {
			char *from = p, *to = p + LINES * LINE / 2;
			unsigned long n = LINES * LINE / 2;

			asm volatile("rep movsb" : "+S" (from), "+D" (to), "+c" (n) : : "memory");
			times--;
		}
		return;
	}
	while (times--) {
		if (order >> 60)
			sharing_step();
		for (i = 0; i < lines; i++)
			access_line(op, p + i * LINE, word);
	}
}

static void bind_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set)) {
		perror("known: sched_setaffinity");
		exit(1);
	}
}

static void *work(void *arg)
{
	int self = (intptr_t)arg, in = go[self], back = answer[self];
	uint64_t order;

	bind_to(self);
	while ((order = get(in)) != QUIT) {
		carry_out(order);
		put(back, 1);
	}
	return NULL;
}

/* One thread carries out an order. */
static void tell(int thread, uint64_t order)
{
	put(go[thread], order);
	get(answer[thread]);
}

/* All do, at the same time. @own: each in the region of its number and the next. */
static void tell_all(uint64_t order, int own)
{
	int i;

	for (i = 0; i < threads; i++)
		put(go[i], order + (own ? (uint64_t)i << 24 : 0));
	for (i = 0; i < threads; i++)
		get(answer[i]);
}

static void begin(int number)
{
	usleep(20000);
	sharing_begin(number);
}

static void print_case(int number, const char *name)
{
	printf("{\"number\": %d, \"name\": \"%s\", ", number, name);
}

static void end(int number, const char *name, int reads, int writes, int upgrades, int m2)
{
	sharing_end();
	print_case(number, name);
	printf("\"xfer_read\": %d, \"xfer_write\": %d, \"xfer_upgrade\": %d, \"m2\": %d}\n",
	       reads, writes, upgrades, m2);
}

/* One value is in a range, the others are not compared. */
static void end_range(int number, const char *name, const char *key, int low, int high)
{
	sharing_end();
	print_case(number, name);
	printf("\"%s\": [%d, %d]}\n", key, low, high);
}

/* Lines go round all threads, which do @op with word @word, or that of their number. */
static void hand_over(enum op op, int lines, int own_word, int own_region, int steps)
{
	for (int i = 0; i < HANDOVERS; i++) {
		int thread = i % threads;

		tell(thread, ORDER(op, lines, own_word ? thread % 8 : 0,
				   own_region ? thread : 0, 1, steps));
	}
}

/*
 * So that each thread has its region's lines alone; but @lines of the first region
 * has the thread that is the last when they are handed over.
 */
static void settle(int lines)
{
	for (int i = 0; i < threads; i++)
		tell(i, ORDER(STORE, LINES, 0, i, 1, 0));
	tell((HANDOVERS - 1) % threads, ORDER(STORE, lines, 0, 0, 1, 0));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		enum op op;
		int read, write, upgrade;
	} handovers[] = {
		{ "handover, stores", STORE, 0, 1, 0 },
		{ "handover, atomic", ATOMIC, 0, 1, 0 },
		{ "handover, load then store", LOAD_STORE, 1, 0, 1 },
		{ "handover, plain increment", PLAIN_ADD, 1, 0, 1 },
	};
	pthread_t thread[MAX_THREADS];
	size_t size = (MAX_THREADS + 2) * LINES * LINE;
	/* What a handover moves, and all of them. */
	const int lines = 16, moved = HANDOVERS * lines;
	int n = 0, i;

	threads = argc == 2 ? atoi(argv[1]) : 0;
	if (threads < 2 || threads > MAX_THREADS) {
		fprintf(stderr, "usage: known THREADS, 2 to %d\n", MAX_THREADS);
		return 2;
	}
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED || mlock(memory, size)) {
		perror("known: memory");
		return 1;
	}
	madvise(memory, size, MADV_NOHUGEPAGE);
	bind_to(0);
	for (i = 0; i < threads; i++) {
		go[i] = eventfd(0, 0);
		answer[i] = eventfd(0, 0);
		if (pthread_create(&thread[i], NULL, work, (void *)(intptr_t)i)) {
			fputs("known: no thread\n", stderr);
			return 1;
		}
	}
	sharing_watch();
	/* Everybody has run everything once. */
	for (i = 0; i < 2; i++) {
		settle(lines);
		tell_all(ORDER(SPIN, 0, 0, 0, 10, 0), 0);
		tell_all(ORDER(PLAIN_ADD, lines, 0, 0, 2, 1), 1);
	}

	settle(0);
	begin(++n);
	tell_all(ORDER(PLAIN_ADD, LINES, 0, 0, 100, 1), 1);
	end(n, "private lines", 0, 0, 0, 0);

	settle(lines);
	begin(++n);
	tell_all(ORDER(LOAD, lines, 0, 0, 100, 1), 0);
	end(n, "read by all after one write", (threads - 1) * lines, 0, 0, 0);

	begin(++n);
	tell_all(ORDER(LOAD, lines, 0, 0, 100, 1), 0);
	end(n, "read by all, unchanged", 0, 0, 0, 0);

	begin(++n);
	for (i = 0; i < HANDOVERS; i++) {
		tell(1, ORDER(STORE, lines, 0, 0, 1, 1));
		tell_all(ORDER(LOAD, lines, 0, 0, 3, 1), 0);
	}
	end(n, "written by one, read by all", moved * (threads - 1), 0, moved, 0);

	for (size_t j = 0; j < sizeof(handovers) / sizeof(*handovers); j++) {
		settle(lines);
		begin(++n);
		hand_over(handovers[j].op, lines, 0, 0, 1);
		end(n, handovers[j].name, moved * handovers[j].read, moved * handovers[j].write,
		    moved * handovers[j].upgrade, moved);
	}

	settle(lines);
	begin(++n);
	hand_over(STORE, lines, 1, 0, 1);
	end(n, "false sharing", 0, moved, 0, moved);

	settle(0);
	begin(++n);
	hand_over(STORE, lines, 1, 1, 1);
	end(n, "false sharing, padded away", 0, 0, 0, 0);

	/* They touch one line more. */
	settle(lines + 1);
	begin(++n);
	hand_over(SPLIT, lines, 0, 0, 1);
	end(n, "stores across two lines", 0, moved + HANDOVERS, 0, moved + HANDOVERS);

	settle(lines);
	begin(++n);
	hand_over(STORE, lines, 0, 0, 0);
	end(n, "handover without steps", 0, moved, 0, threads * lines);

	/* All at once: how often lines move is up to chance, m2 is not. */
	settle(lines);
	begin(++n);
	tell_all(ORDER(ATOMIC, lines, 0, 0, STEPS, 1), 0);
	end_range(n, "atomic, all at once: first touches", "m2", threads * STEPS * lines,
		  threads * STEPS * lines);

	settle(lines);
	begin(++n);
	tell_all(ORDER(ATOMIC, lines, 0, 0, STEPS, 1), 0);
	end_range(n, "atomic, all at once: transfers", "xfer_write", (threads - 1) * lines,
		  threads * STEPS * lines);

	begin(++n);
	tell(1, ORDER(SPIN, 0, 0, 0, 1000000, 0));
	end_range(n, "a loop of two instructions", "instructions", 2000000, 2010000);

	begin(++n);
	tell(1, ORDER(COPY, 0, 0, 1, 1000, 0));
	end_range(n, "copies of 2 KiB by REP MOVS", "instructions", 4000, 12000);

	for (i = 0; i < threads; i++) {
		put(go[i], QUIT);
		pthread_join(thread[i], NULL);
	}
	return 0;
}
