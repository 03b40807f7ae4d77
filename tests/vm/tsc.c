// SPDX-License-Identifier: GPL-2.0
/*
 * Print how fast this CPU's time stamp counter runs, in kHz. An emulated machine
 * reads the same counter, but may be too slow to find out for itself.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static double get_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(void)
{
	double ns = get_ns();
	uint64_t cycles = __rdtsc();

	usleep(500000);
	printf("%.0f\n", (__rdtsc() - cycles) * 1e6 / (get_ns() - ns));
	return 0;
}
