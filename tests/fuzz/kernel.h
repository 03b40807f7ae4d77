/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What kmod/ports.c needs of the kernel's headers, for user space.
 */
#ifndef _FUZZ_KERNEL_H
#define _FUZZ_KERNEL_H

#include <linux/types.h>
#include <stdbool.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s32 s32;

#define BIT(n)			(1UL << (n))
#define max(a, b)		((a) > (b) ? (a) : (b))
#define round_down(x, y)	((x) & ~((__typeof__(x))(y) - 1))

#endif /* _FUZZ_KERNEL_H */
