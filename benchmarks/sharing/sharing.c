// SPDX-License-Identifier: GPL-2.0
/*
 * The sharing meter: a plugin for QEMU's TCG that watches every memory access
 * of a virtual machine and counts, in windows that programs in the machine
 * mark (marker.h), what the caches of a multiprocessor would have to send one
 * another, and whose code made them.
 *
 * After MTRACE (S. Boyd-Wickizer et al.), with which Commuter looks for shared
 * memory accesses in kernels: A. T. Clements et al., "The Scalable Commutativity
 * Rule: Designing Scalable Software for Multicore Processors", SOSP 2013.
 *
 * The model: each vCPU has a cache of its own, of 64-byte lines, without end.
 *
 *  xfer_read	 a vCPU reads a line that another has written and that it does
 *		 not have, or no longer;
 *  xfer_write	 the same for a write; or others have the line, unwritten;
 *  xfer_upgrade a vCPU writes a line that it has and others have too;
 *  m2		 a vCPU touches a line for the first time in a step, such as a
 *		 connection, that several vCPUs write in the window. Steps are
 *		 marked, or begin where a function is entered; without either,
 *		 the window is one step. What order the host runs the vCPUs in
 *		 does not change it.
 *
 * An access is at most one of the first three for each line it touches; xfer is
 * their sum. What cannot be seen: page tables read by the MMU, instruction
 * fetches, devices' DMA, and lines that leave a real cache for want of room.
 *
 * usage: qemu-system-x86_64 -accel tcg,thread=multi -plugin sharing.so,out=FILE[,...]
 *
 *  out=FILE	  one JSON object per window and line
 *  ram=MIB	  guest memory that is watched, from 0 (2048)
 *  vcpus=N	  only the first N are watched, the others stand for other machines
 *		  (as many as the machine has)
 *  lines=N	  how many of the lines with most transfers to list (40)
 *  label=TEXT	  copied into the output
 *  symbols=FILE  the guest's /proc/kallsyms, read when the guest says "watch"
 *  aside=A:B:... functions that are counted apart, with all that they call
 *  step=A:B:...  functions whose call begins a step
 *  callers=A:B:... functions such as locks, whose transfers and first touches are
 *		  counted as those of the code that has called them
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "qemu_plugin_api.h"
#define SHARING_PLUGIN
#include "marker.h"

#define LINE_SHIFT	6
#define LINE_SIZE	(1u << LINE_SHIFT)
#define MAX_VCPUS	32
#define MAX_BLOCKS	(1u << 22)
#define BLOCK_BUCKETS	(1u << 18)
#define MAX_SPECIAL	128

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/**
 * struct block - a piece of translated code
 * @next: of the same hash bucket
 * @pc: address of its first instruction
 * @end: address behind its last one
 * @id: index into the vCPUs' counts
 * @insns: how many instructions an execution counts as
 * @calls: the last one is a call, which returns to @end
 * @aside: what is called from here on is counted apart
 * @step: a step begins here
 * @enters: a function begins here that is counted for its caller
 * @inside: it is part of one
 *
 * The same code translated again is the same block. Never freed.
 */
struct block {
	struct block *next;
	uint64_t pc;
	uint64_t end;
	uint32_t id;
	uint32_t insns;
	bool calls;
	bool aside;
	bool step;
	bool enters;
	bool inside;
};

/**
 * struct entry - what one instruction did to one line, on one vCPU
 * @pc: the instruction; 0 is an empty entry
 * @vaddr: an address it used
 * @line: the line's number in guest-physical memory
 * @aside: it was called from a function that is counted apart
 * @xfer_read: read misses
 * @xfer_write: write misses
 * @xfer_upgrade: writes to a line that others had too
 * @firsts: how often it was a step's first to touch the line
 */
struct entry {
	uint64_t pc;
	uint64_t vaddr;
	uint32_t line;
	uint32_t aside;
	uint32_t xfer_read;
	uint32_t xfer_write;
	uint32_t xfer_upgrade;
	uint32_t firsts;
};

/**
 * struct vcpu - what a vCPU's own thread keeps
 * @inside: it is in a callback; see stop()
 * @window: of which the counters below are
 * @step: number of the current step, over all windows
 * @first_step: the window's first one
 * @steps: begun in the window
 * @prev: the block that ran before
 * @caller: the code that is counted for the function that runs, or ran last, if
 *	    that is counted for its caller
 * @aside_return: where the function that is counted apart returns to, or 0
 * @aside: 1 if in one
 * @counts: executions of each block, 1: of those counted apart
 * @loads: of the window, 1: of those counted apart
 * @stores: likewise, atomic operations included
 * @io: accesses to devices
 * @unseen: accesses to memory that is not watched or not known
 * @touched: for each line, the last step that touched it * 2 + whether it was
 *	     written in that step's window
 * @entries: hash table
 * @mask: its size - 1
 * @used: its used entries
 */
struct vcpu {
	atomic_bool inside;
	uint32_t window;
	uint32_t step;
	uint32_t first_step;
	uint32_t steps;
	struct block *prev;
	uint64_t caller;
	uint64_t aside_return;
	unsigned int aside;
	uint64_t *counts[2];
	uint64_t loads[2];
	uint64_t stores[2];
	uint64_t io;
	uint64_t unseen;
	uint32_t *touched;
	struct entry *entries;
	uint32_t mask;
	uint32_t used;
} __attribute__((aligned(128)));

static struct vcpu vcpus[MAX_VCPUS];
static unsigned int nvcpus;
static uint64_t ram = 2048ull << 20;
static unsigned int top_lines = 40;
static const char *label = "";
static const char *symbols;
static FILE *out;

/* Who has each line: bits 0 to 31 the vCPUs, from 32 the last to write it + 1. */
static _Atomic uint64_t *holders;
/* Who wrote each line in a window: bits 0 to 31 the vCPUs, from 32 the window. */
static _Atomic uint64_t *writers;

static atomic_bool watching;
/* The open window, or 0, and the last one. */
static _Atomic uint32_t current;
static uint32_t last_window;
static uint32_t next_number, number;
static pthread_mutex_t window_lock = PTHREAD_MUTEX_INITIALIZER;

/* Blocks, by address and by number. */
static struct block *buckets[BLOCK_BUCKETS];
static struct block **blocks;
static uint32_t nblocks;
static pthread_mutex_t block_lock = PTHREAD_MUTEX_INITIALIZER;

/* What a function means to the meter. */
enum meaning { ASIDE, STEP, CALLER };

/**
 * struct special - a function with a meaning
 * @name: in the guest's symbol table
 * @pc: its address, once known
 * @end: that of the next symbol
 * @meaning: which
 */
static struct special {
	const char *name;
	uint64_t pc;
	uint64_t end;
	enum meaning meaning;
} special[MAX_SPECIAL];
static unsigned int nspecial;

static void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("sharing: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

/* Memory that costs nothing before it is used. */
static void *reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		say("no memory");
		exit(1);
	}
	return p;
}

static bool is_kernel(uint64_t address)
{
	return address >> 63;
}

static uint32_t hash(uint64_t a, uint64_t b)
{
	uint64_t h = (a ^ (b * 0x9e3779b97f4a7c15ull)) * 0xff51afd7ed558ccdull;

	return h >> 32;
}

/* Lines */

enum transfer { NONE, READ, WRITE, UPGRADE };

/* Let @cpu have @line, and say what had to be sent for it. */
static enum transfer take(unsigned int cpu, uint32_t line, bool store)
{
	_Atomic uint64_t *p = &holders[line];
	uint64_t me = 1ull << cpu, mine = (uint64_t)(cpu + 1) << 32 | me;
	uint64_t was = atomic_load_explicit(p, memory_order_relaxed), is;

	do {
		if (store ? was == mine : (was & me) != 0)
			return NONE;
		is = store ? mine : was | me;
	} while (!atomic_compare_exchange_weak(p, &was, is));

	if (!store)
		return was >> 32 ? READ : NONE;
	if (!((uint32_t)was & ~me))
		return NONE;
	return was & me ? UPGRADE : WRITE;
}

static void note_writer(unsigned int cpu, uint32_t line, uint32_t window)
{
	uint64_t was = atomic_load_explicit(&writers[line], memory_order_relaxed), is;

	do {
		is = (was >> 32 == window ? was : (uint64_t)window << 32) | 1ull << cpu;
	} while (is != was && !atomic_compare_exchange_weak(&writers[line], &was, is));
}

/* How many vCPUs wrote @line in @window. */
static int count_writers(uint32_t line, uint32_t window)
{
	uint64_t w = atomic_load_explicit(&writers[line], memory_order_relaxed);

	return w >> 32 == window ? __builtin_popcount((uint32_t)w) : 0;
}

/* Counters, of the vCPU whose thread calls */

static struct entry *find_slot(struct entry *entries, uint32_t mask, uint64_t pc, uint32_t line,
			       uint32_t aside)
{
	uint32_t i = hash(pc, (uint64_t)line << 1 | aside) & mask;

	while (entries[i].pc &&
	       (entries[i].pc != pc || entries[i].line != line || entries[i].aside != aside))
		i = (i + 1) & mask;
	return &entries[i];
}

static struct entry *get_entry(struct vcpu *v, uint64_t pc, uint32_t line, uint64_t vaddr)
{
	struct entry *e = find_slot(v->entries, v->mask, pc, line, v->aside);

	if (e->pc)
		return e;
	if (v->used >= v->mask / 4 * 3) {
		uint32_t mask = v->mask * 2 + 1;
		struct entry *more = reserve((mask + 1ull) * sizeof(*more));

		for (uint32_t i = 0; i <= v->mask; i++) {
			struct entry *old = &v->entries[i];

			if (old->pc)
				*find_slot(more, mask, old->pc, old->line, old->aside) = *old;
		}
		munmap(v->entries, (v->mask + 1ull) * sizeof(*more));
		v->entries = more;
		v->mask = mask;
		e = find_slot(v->entries, v->mask, pc, line, v->aside);
	}
	v->used++;
	e->pc = pc;
	e->line = line;
	e->aside = v->aside;
	e->vaddr = vaddr;
	return e;
}

static void enter_window(struct vcpu *v, uint32_t window)
{
	memset(v->entries, 0, (v->mask + 1ull) * sizeof(*v->entries));
	v->used = 0;
	memset(v->counts[0], 0, nblocks * sizeof(**v->counts));
	memset(v->counts[1], 0, nblocks * sizeof(**v->counts));
	memset(v->loads, 0, sizeof(v->loads));
	memset(v->stores, 0, sizeof(v->stores));
	v->io = 0;
	v->unseen = 0;
	v->steps = 0;
	v->first_step = ++v->step;
	v->window = window;
}

/* The open window, whose counters are the vCPU's from here on; or 0. */
static uint32_t get_window(struct vcpu *v)
{
	uint32_t window = atomic_load_explicit(&current, memory_order_relaxed);

	if (window && v->window != window)
		enter_window(v, window);
	return window;
}

static void touch(struct vcpu *v, uint32_t window, uint32_t line, bool store, uint64_t pc,
		  uint64_t vaddr)
{
	unsigned int cpu = v - vcpus;
	enum transfer sent = take(cpu, line, store);
	bool first = false;
	struct entry *e;

	if (!window)
		return;
	if (!v->aside) {
		uint32_t old = v->touched[line], wrote = 0;

		if (old >> 1 >= v->first_step)
			wrote = old & 1;
		if (store && !wrote) {
			note_writer(cpu, line, window);
			wrote = 1;
		}
		first = old >> 1 != v->step;
		v->touched[line] = v->step << 1 | wrote;
	}
	if (!first && sent == NONE)
		return;
	e = get_entry(v, pc, line, vaddr);
	e->firsts += first;
	e->xfer_read += sent == READ;
	e->xfer_write += sent == WRITE;
	e->xfer_upgrade += sent == UPGRADE;
}

/* The number of the line with @vaddr in guest-physical memory, or -1. */
static int64_t get_line(struct vcpu *v, qemu_plugin_meminfo_t info, uint64_t vaddr)
{
	struct qemu_plugin_hwaddr *place = qemu_plugin_get_hwaddr(info, vaddr);
	uint64_t address;

	if (place && qemu_plugin_hwaddr_is_io(place)) {
		v->io++;
		return -1;
	}
	if (place) {
		address = qemu_plugin_hwaddr_phys_addr(place);
		if (address < ram)
			return address >> LINE_SHIFT;
	}
	v->unseen++;
	return -1;
}

static bool enter(struct vcpu *v)
{
	if (!atomic_load_explicit(&watching, memory_order_relaxed))
		return false;
	atomic_store_explicit(&v->inside, true, memory_order_relaxed);
	/* The CPU may reorder; stop() makes up for it. */
	atomic_signal_fence(memory_order_seq_cst);
	return true;
}

static void leave(struct vcpu *v)
{
	atomic_store_explicit(&v->inside, false, memory_order_release);
}

/* Callbacks of the running machine */

static void on_access(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data)
{
	struct vcpu *v = &vcpus[cpu];
	uint64_t pc = (uintptr_t)data, last;
	bool store;
	uint32_t window;
	int64_t line;

	if (cpu >= nvcpus || !enter(v))
		return;
	if (v->prev && v->prev->inside && v->caller)
		pc = v->caller;
	store = qemu_plugin_mem_is_store(info);
	window = get_window(v);
	if (window)
		(store ? v->stores : v->loads)[v->aside]++;
	line = get_line(v, info, vaddr);
	if (line >= 0)
		touch(v, window, line, store, pc, vaddr);
	last = vaddr + (1ull << qemu_plugin_mem_size_shift(info)) - 1;
	if ((vaddr ^ last) >> LINE_SHIFT) {
		line = get_line(v, info, last);
		if (line >= 0)
			touch(v, window, line, store, pc, last);
	}
	leave(v);
}

static void on_block(unsigned int cpu, void *data)
{
	struct vcpu *v = &vcpus[cpu];
	struct block *b = data;

	if (cpu >= nvcpus || !enter(v))
		return;
	if (v->aside) {
		if (b->pc == v->aside_return)
			v->aside = 0;
	} else if (b->aside && v->prev && v->prev->calls) {
		v->aside = 1;
		v->aside_return = v->prev->end;
	}
	/* A lock that takes a lock is still its first caller's. */
	if (b->enters && v->prev && !v->prev->inside)
		v->caller = v->prev->end - 1;
	v->prev = b;
	if (get_window(v)) {
		v->counts[v->aside][b->id]++;
		if (b->step && !v->aside) {
			v->step++;
			v->steps++;
		}
	}
	leave(v);
}

/* Output */

/* Wait until no vCPU counts any more. */
static void stop(void)
{
	atomic_store(&current, 0);
	/*
	 * A thread that has said that it is inside before this either sees
	 * that the window is closed or is seen here.
	 */
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	for (unsigned int i = 0; i < nvcpus; i++)
		while (atomic_load_explicit(&vcpus[i].inside, memory_order_acquire))
			sched_yield();
}

/**
 * struct sum - counters added up
 * @key: what they are of
 * @aside: of what is counted apart
 * @writers: how many vCPUs wrote the line
 * @vaddr: an address in the line
 * @pc: the instruction with most transfers of the line
 * @most: how many these are
 */
struct sum {
	uint64_t key;
	uint64_t instructions;
	uint64_t xfer_read;
	uint64_t xfer_write;
	uint64_t xfer_upgrade;
	uint64_t m2;
	uint32_t aside;
	uint32_t writers;
	uint64_t vaddr;
	uint64_t pc;
	uint64_t most;
};

static uint64_t get_xfer(const struct sum *s)
{
	return s->xfer_read + s->xfer_write + s->xfer_upgrade;
}

static void add(struct sum *to, const struct sum *s)
{
	to->instructions += s->instructions;
	to->xfer_read += s->xfer_read;
	to->xfer_write += s->xfer_write;
	to->xfer_upgrade += s->xfer_upgrade;
	to->m2 += s->m2;
}

static int by_key(const void *a, const void *b)
{
	const struct sum *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return (int)x->aside - (int)y->aside;
}

static int by_most(const void *a, const void *b)
{
	const struct sum *x = a, *y = b;
	uint64_t m = get_xfer(x) + x->m2, n = get_xfer(y) + y->m2;

	return m == n ? by_key(a, b) : m > n ? -1 : 1;
}

/* Sort and add up those with the same key; how many are left. */
static size_t merge(struct sum *sums, size_t n)
{
	size_t used = 0;

	qsort(sums, n, sizeof(*sums), by_key);
	for (size_t i = 0; i < n; i++) {
		struct sum *last = used ? &sums[used - 1] : NULL;
		uint64_t most = get_xfer(&sums[i]) + sums[i].m2;

		if (last && !by_key(last, &sums[i])) {
			add(last, &sums[i]);
			if (most > last->most) {
				last->most = most;
				last->pc = sums[i].pc;
			}
		} else {
			sums[used] = sums[i];
			sums[used++].most = most;
		}
	}
	return used;
}

static void print_sum(const struct sum *s)
{
	fprintf(out, "\"xfer_read\":%" PRIu64 ",\"xfer_write\":%" PRIu64
		",\"xfer_upgrade\":%" PRIu64 ",\"m2\":%" PRIu64,
		s->xfer_read, s->xfer_write, s->xfer_upgrade, s->m2);
}

static struct sum sum_of(const struct entry *e, uint32_t window)
{
	struct sum s = {
		.xfer_read = e->xfer_read,
		.xfer_write = e->xfer_write,
		.xfer_upgrade = e->xfer_upgrade,
		.aside = e->aside,
		.writers = count_writers(e->line, window),
		.vaddr = e->vaddr,
		.pc = e->pc,
	};

	if (s.writers > 1)
		s.m2 = e->firsts;
	return s;
}

static void print_vcpu(const struct vcpu *v, uint32_t window)
{
	/* The kernel's, the user programs', and both of what is counted apart. */
	struct sum of[3] = {};
	bool idle = v->window != window;

	for (uint32_t i = 0; !idle && i < nblocks; i++) {
		const struct block *b = blocks[i];

		of[!is_kernel(b->pc)].instructions += v->counts[0][i] * b->insns;
		of[2].instructions += v->counts[1][i] * b->insns;
	}
	for (uint32_t i = 0; !idle && i <= v->mask; i++) {
		const struct entry *e = &v->entries[i];
		struct sum s;

		if (!e->pc)
			continue;
		s = sum_of(e, window);
		add(&of[e->aside ? 2 : !is_kernel(e->pc)], &s);
	}
	fprintf(out, "{\"instructions\":%" PRIu64 ",\"kernel_instructions\":%" PRIu64
		",\"loads\":%" PRIu64 ",\"stores\":%" PRIu64 ",\"steps\":%u,\"io\":%" PRIu64
		",\"unseen\":%" PRIu64 ",",
		of[0].instructions + of[1].instructions, of[0].instructions,
		idle ? 0 : v->loads[0], idle ? 0 : v->stores[0], idle ? 0 : v->steps,
		idle ? 0 : v->io, idle ? 0 : v->unseen);
	add(&of[0], &of[1]);
	print_sum(&of[0]);
	fprintf(out, ",\"user\":{\"instructions\":%" PRIu64 ",", of[1].instructions);
	print_sum(&of[1]);
	fprintf(out, "},\"aside\":{\"instructions\":%" PRIu64 ",", of[2].instructions);
	print_sum(&of[2]);
	fputs("}}", out);
}

static void print_code(struct sum *sums, size_t n)
{
	const char *comma = "";

	n = merge(sums, n);
	for (size_t i = 0; i < n; i++) {
		const struct sum *s = &sums[i];

		fprintf(out, "%s{\"pc\":\"%" PRIx64 "\",", comma, s->key);
		if (s->aside)
			fputs("\"aside\":1,", out);
		if (get_xfer(s) || s->m2)
			fprintf(out, "\"xfer\":%" PRIu64 ",\"xfer_read\":%" PRIu64 ",\"m2\":%" PRIu64 ",",
				get_xfer(s), s->xfer_read, s->m2);
		fprintf(out, "\"instructions\":%" PRIu64 "}", s->instructions);
		comma = ",\n";
	}
}

static void print_lines(struct sum *sums, size_t n)
{
	n = merge(sums, n);
	qsort(sums, n, sizeof(*sums), by_most);
	for (size_t i = 0; i < n && i < top_lines; i++) {
		const struct sum *s = &sums[i];

		fprintf(out, "%s{\"line\":\"%" PRIx64 "\",\"vaddr\":\"%" PRIx64
			"\",\"writers\":%u,\"pc\":\"%" PRIx64 "\",", i ? ",\n" : "",
			s->key << LINE_SHIFT, s->vaddr, s->writers, s->pc);
		print_sum(s);
		fputc('}', out);
	}
}

/* All of user space is address 0, as processes have the same addresses. */
static void print_window(uint32_t window, bool cut)
{
	struct sum *code, *lines;
	size_t ncode = 0, nlines = 0, max = 0;

	fprintf(out, "{\"window\":%u,\"number\":%u,\"label\":\"%s\",\"cut\":%s,\"vcpus\":[",
		window, number, label, cut ? "true" : "false");
	for (unsigned int i = 0; i < nvcpus; i++) {
		fputs(i ? ",\n" : "\n", out);
		print_vcpu(&vcpus[i], window);
		if (vcpus[i].window == window)
			max += vcpus[i].used;
	}
	code = reserve((max + nblocks * 2ull + 1) * sizeof(*code));
	lines = reserve((max + 1) * sizeof(*lines));

	for (uint32_t i = 0; i < nblocks; i++) {
		const struct block *b = blocks[i];

		for (uint32_t aside = 0; aside < 2; aside++) {
			uint64_t n = 0;

			for (unsigned int j = 0; j < nvcpus; j++)
				if (vcpus[j].window == window)
					n += vcpus[j].counts[aside][i];
			if (n)
				code[ncode++] = (struct sum) {
					.key = is_kernel(b->pc) ? b->pc : 0,
					.aside = aside,
					.instructions = n * b->insns,
				};
		}
	}
	for (unsigned int i = 0; i < nvcpus; i++) {
		const struct vcpu *v = &vcpus[i];

		for (uint32_t j = 0; v->window == window && j <= v->mask; j++) {
			const struct entry *e = &v->entries[j];
			struct sum s;

			if (!e->pc)
				continue;
			s = sum_of(e, window);
			if (!get_xfer(&s) && !s.m2)
				continue;
			s.key = is_kernel(e->pc) ? e->pc : 0;
			code[ncode++] = s;
			if (!e->aside) {
				s.key = e->line;
				lines[nlines++] = s;
			}
		}
	}
	fputs("],\n\"code\":[\n", out);
	print_code(code, ncode);
	fputs("],\n\"lines\":[\n", out);
	print_lines(lines, nlines);
	fputs("]}\n", out);
	fflush(out);
	munmap(code, (max + nblocks * 2ull + 1) * sizeof(*code));
	munmap(lines, (max + 1) * sizeof(*lines));
}

static void end_window(bool cut)
{
	uint32_t window;

	pthread_mutex_lock(&window_lock);
	window = atomic_load(&current);
	if (window) {
		stop();
		pthread_mutex_lock(&block_lock);
		print_window(window, cut);
		pthread_mutex_unlock(&block_lock);
	}
	pthread_mutex_unlock(&window_lock);
}

/* Functions with a meaning */

static void apply_special(struct block *b)
{
	for (unsigned int i = 0; i < nspecial; i++) {
		const struct special *s = &special[i];

		if (!s->pc || b->pc < s->pc || b->pc >= s->end)
			continue;
		b->inside |= s->meaning == CALLER;
		if (b->pc != s->pc)
			continue;
		b->enters |= s->meaning == CALLER;
		b->step |= s->meaning == STEP;
		b->aside |= s->meaning == ASIDE;
	}
}

/* The next symbol of @f; false after the last one. */
static bool read_symbol(FILE *f, uint64_t *pc, char name[256])
{
	char row[512];

	while (fgets(row, sizeof(row), f))
		if (sscanf(row, "%" SCNx64 " %*c %255s", pc, name) == 2)
			return true;
	return false;
}

static void read_symbols(void)
{
	char name[256];
	uint64_t pc;
	FILE *f = fopen(symbols, "r");

	if (!f) {
		say("%s: %s", symbols, strerror(errno));
		return;
	}
	while (read_symbol(f, &pc, name))
		for (unsigned int i = 0; i < nspecial; i++)
			if (!special[i].pc && !strcmp(special[i].name, name))
				special[i].pc = pc;
	rewind(f);
	while (read_symbol(f, &pc, name))
		for (unsigned int i = 0; i < nspecial; i++)
			if (pc > special[i].pc && pc < special[i].end)
				special[i].end = pc;
	fclose(f);

	pthread_mutex_lock(&block_lock);
	for (uint32_t i = 0; i < nblocks; i++)
		apply_special(blocks[i]);
	pthread_mutex_unlock(&block_lock);
}

static void on_mark(unsigned int cpu, void *data)
{
	struct vcpu *v = &vcpus[cpu];

	switch ((uintptr_t)data) {
	case SHARING_WATCH:
		pthread_mutex_lock(&window_lock);
		if (!atomic_load(&watching)) {
			if (symbols)
				read_symbols();
			atomic_store(&watching, true);
		}
		next_number = 0;
		pthread_mutex_unlock(&window_lock);
		break;
	case SHARING_COUNT:
		next_number++;
		break;
	case SHARING_BEGIN:
		pthread_mutex_lock(&window_lock);
		if (!atomic_load(&current)) {
			number = next_number;
			atomic_store(&watching, true);
			atomic_store(&current, ++last_window);
		}
		next_number = 0;
		pthread_mutex_unlock(&window_lock);
		break;
	case SHARING_END:
		end_window(false);
		break;
	case SHARING_STEP:
		if (cpu < nvcpus && enter(v)) {
			if (get_window(v)) {
				v->step++;
				v->steps++;
			}
			leave(v);
		}
		break;
	}
}

static void on_exit_of_qemu(qemu_plugin_id_t id, void *data)
{
	(void)id;
	(void)data;
	end_window(true);
}

/* Translation */

/* An instruction's opcode, without prefixes; *repeats is set by a REP prefix. */
static const uint8_t *get_opcode(const struct qemu_plugin_insn *insn, const uint8_t **end,
				 bool *repeats)
{
	const uint8_t *p = qemu_plugin_insn_data(insn);

	*end = p + qemu_plugin_insn_size(insn);
	*repeats = false;
	for (; p < *end; p++) {
		if (*p == 0xf2 || *p == 0xf3)
			*repeats = true;
		else if (*p != 0x66 && *p != 0x67 && *p != 0x2e && *p != 0x36 && *p != 0x3e &&
			 *p != 0x26 && *p != 0x64 && *p != 0x65 && *p != 0xf0 && *p >> 4 != 4)
			break;
	}
	return p;
}

static bool is_call(const struct qemu_plugin_insn *insn)
{
	const uint8_t *end;
	bool repeats;
	const uint8_t *p = get_opcode(insn, &end, &repeats);

	return p < end && (*p == 0xe8 || (*p == 0xff && p + 1 < end && (p[1] >> 3 & 7) == 2));
}

/* MOVS, STOS, CMPS, SCAS, LODS with REP: one block for each repetition. */
static bool is_repeated(const struct qemu_plugin_insn *insn)
{
	const uint8_t *end;
	bool repeats;
	const uint8_t *p = get_opcode(insn, &end, &repeats);

	return repeats && p < end &&
	       ((*p >= 0xa4 && *p <= 0xa7) || (*p >= 0xaa && *p <= 0xaf));
}

/* Which mark it is, or 0. */
static unsigned int get_mark(const struct qemu_plugin_insn *insn)
{
	static const uint8_t nop[] = { 0x0f, 0x1f, 0x84, 0x00 };
	const uint8_t *p = qemu_plugin_insn_data(insn);
	uint32_t value;

	if (qemu_plugin_insn_size(insn) != sizeof(nop) + sizeof(value) ||
	    memcmp(p, nop, sizeof(nop)))
		return 0;
	memcpy(&value, p + sizeof(nop), sizeof(value));
	return (value & ~0xffu) == SHARING_MAGIC ? value & 0xff : 0;
}

static struct block *get_block(uint64_t pc, uint64_t end, uint32_t insns, bool calls)
{
	struct block **bucket = &buckets[hash(pc, end) % BLOCK_BUCKETS], *b;

	pthread_mutex_lock(&block_lock);
	for (b = *bucket; b; b = b->next)
		if (b->pc == pc && b->end == end && b->insns == insns && b->calls == calls)
			break;
	if (!b && nblocks < MAX_BLOCKS) {
		b = calloc(1, sizeof(*b));
		if (b) {
			b->pc = pc;
			b->end = end;
			b->insns = insns;
			b->calls = calls;
			b->id = nblocks;
			b->next = *bucket;
			apply_special(b);
			*bucket = b;
			blocks[nblocks++] = b;
		}
	}
	pthread_mutex_unlock(&block_lock);
	return b;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);
	struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, 0);
	/* A repetition after the first is no instruction. */
	uint32_t insns = n - is_repeated(insn);
	uint64_t pc = qemu_plugin_insn_vaddr(insn);
	struct block *b;

	(void)id;
	insn = qemu_plugin_tb_get_insn(tb, n - 1);
	b = get_block(pc, qemu_plugin_insn_vaddr(insn) + qemu_plugin_insn_size(insn), insns,
		      is_call(insn));
	if (b)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, b);

	for (size_t i = 0; i < n; i++) {
		unsigned int mark;

		insn = qemu_plugin_tb_get_insn(tb, i);
		mark = get_mark(insn);
		if (mark)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark,
							       QEMU_PLUGIN_CB_NO_REGS,
							       (void *)(uintptr_t)mark);
		pc = qemu_plugin_insn_vaddr(insn);
		qemu_plugin_register_vcpu_mem_cb(insn, on_access, QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_RW, (void *)(uintptr_t)pc);
	}
}

/* Start */

static int add_special(char *names, enum meaning meaning)
{
	for (char *name = strtok(names, ":"); name; name = strtok(NULL, ":")) {
		if (nspecial == MAX_SPECIAL) {
			say("more than %d functions with a meaning", MAX_SPECIAL);
			return -1;
		}
		special[nspecial++] = (struct special) {
			.name = name,
			.end = UINT64_MAX,
			.meaning = meaning,
		};
	}
	return 0;
}

static int parse(const char *arg)
{
	char *value = strchr(arg, '=');

	if (!value)
		return -1;
	value++;
	if (!strncmp(arg, "out=", 4))
		out = fopen(value, "w");
	else if (!strncmp(arg, "ram=", 4))
		ram = strtoull(value, NULL, 10) << 20;
	else if (!strncmp(arg, "vcpus=", 6))
		nvcpus = strtoul(value, NULL, 10);
	else if (!strncmp(arg, "lines=", 6))
		top_lines = strtoul(value, NULL, 10);
	else if (!strncmp(arg, "label=", 6))
		label = strdup(value);
	else if (!strncmp(arg, "symbols=", 8))
		symbols = strdup(value);
	else if (!strncmp(arg, "aside=", 6))
		return add_special(strdup(value), ASIDE);
	else if (!strncmp(arg, "step=", 5))
		return add_special(strdup(value), STEP);
	else if (!strncmp(arg, "callers=", 8))
		return add_special(strdup(value), CALLER);
	else
		return -1;
	return 0;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
					   int argc, char **argv)
{
	if (!info->system_emulation || strcmp(info->target_name, "x86_64")) {
		say("only for whole x86-64 machines");
		return -1;
	}
	nvcpus = info->system.smp_vcpus;
	for (int i = 0; i < argc; i++) {
		if (parse(argv[i])) {
			say("what is %s?", argv[i]);
			return -1;
		}
	}
	if (!out) {
		say("no file to write to: out=FILE");
		return -1;
	}
	if (!nvcpus || nvcpus > MAX_VCPUS || !ram || ram >> LINE_SHIFT > UINT32_MAX) {
		say("1 to %d vCPUs, and some memory", MAX_VCPUS);
		return -1;
	}
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)) {
		say("membarrier: %s", strerror(errno));
		return -1;
	}
	holders = reserve((ram >> LINE_SHIFT) * sizeof(*holders));
	writers = reserve((ram >> LINE_SHIFT) * sizeof(*writers));
	blocks = reserve(MAX_BLOCKS * sizeof(*blocks));
	for (unsigned int i = 0; i < nvcpus; i++) {
		struct vcpu *v = &vcpus[i];

		v->touched = reserve((ram >> LINE_SHIFT) * sizeof(*v->touched));
		v->counts[0] = reserve(MAX_BLOCKS * sizeof(**v->counts));
		v->counts[1] = reserve(MAX_BLOCKS * sizeof(**v->counts));
		v->mask = (1u << 16) - 1;
		v->entries = reserve((v->mask + 1ull) * sizeof(*v->entries));
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
	return 0;
}
