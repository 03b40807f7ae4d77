/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs that are linked with libFuzzer share.
 */
#ifndef _FUZZ_H
#define _FUZZ_H

#include <argp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(ok) do { \
	if (!(ok)) { \
		fprintf(stderr, "ERROR: %s:%d: not so: %s\n", __FILE__, __LINE__, #ok); \
		abort(); \
	} \
} while (0)

/* libFuzzer calls the first of them once. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The command's main(), and what --wrap calls the function that it replaces. */
int fastsocket_main(int argc, char **argv);
error_t __real_argp_parse(const struct argp *argp, int argc, char **argv, unsigned int flags,
			  int *index, void *input);

#endif /* _FUZZ_H */
