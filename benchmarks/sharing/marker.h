/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Marks that a program in the virtual machine sets for the sharing meter. Each
 * is a long no-operation, "nopl imm32(%rax,%rax,1)", with an immediate that no
 * compiler pads code with: it does nothing on any CPU, and the plugin sees it
 * when it translates the code, whatever the privilege.
 */
#ifndef SHARING_MARKER_H
#define SHARING_MARKER_H

/* The immediate's upper 24 bits; the lower 8 say which mark it is. */
#define SHARING_MAGIC	0x46534d00

/* From here on the meter knows who has which line. */
#define SHARING_WATCH	1
/* The next window's number is one more. */
#define SHARING_COUNT	2
#define SHARING_BEGIN	3
#define SHARING_END	4
/* This CPU's next piece of work begins, such as a connection: see m2. */
#define SHARING_STEP	5

#ifndef SHARING_PLUGIN
#define sharing_mark(what) do {						\
	asm volatile(".byte 0x0f, 0x1f, 0x84, 0x00; .long %c0"		\
		     : : "i" (SHARING_MAGIC + (what)) : "memory");	\
} while (0)

static inline void sharing_watch(void)
{
	sharing_mark(SHARING_WATCH);
}

static inline void sharing_begin(unsigned int number)
{
	while (number--)
		sharing_mark(SHARING_COUNT);
	sharing_mark(SHARING_BEGIN);
}

static inline void sharing_end(void)
{
	sharing_mark(SHARING_END);
}

static inline void sharing_step(void)
{
	sharing_mark(SHARING_STEP);
}
#endif

#endif
