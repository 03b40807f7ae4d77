/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the XDP program and the command that loads it agree on.
 */
#ifndef _FASTSOCKET_STEER_H
#define _FASTSOCKET_STEER_H

#define STEER_PROGRAM	"fastsocket_xdp"	/* at most 15 characters */
#define STEER_CPUS	4096			/* a power of 2 */

/**
 * struct steer_config - fixed when the program is loaded
 * @class_mask: number of port classes, a power of 2, less 1
 * @n_cpus: entries of @cpu, not 0
 * @cpu: class c is for cpu[c % n_cpus]
 */
struct steer_config {
	unsigned int class_mask;
	unsigned int n_cpus;
	unsigned int cpu[STEER_CPUS];
};

/* The compiled program, within the command. */
extern const char steer_object[], steer_object_end[];

#endif /* _FASTSOCKET_STEER_H */
