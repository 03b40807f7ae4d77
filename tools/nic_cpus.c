// SPDX-License-Identifier: GPL-2.0
/*
 * Sets of CPUs: lists ("0-3,8") and masks ("f,00000000") as the kernel reads
 * and writes them.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nic.h"

bool cpus_has(const struct cpus *c, unsigned int cpu)
{
	return cpu < MAX_CPUS && c->bit[cpu / 8] & 1 << cpu % 8;
}

void cpus_add(struct cpus *c, unsigned int cpu)
{
	c->bit[cpu / 8] |= 1 << cpu % 8;
}

unsigned int cpus_count(const struct cpus *c)
{
	unsigned int i, n = 0;

	for (i = 0; i < sizeof(c->bit); i++)
		n += __builtin_popcount(c->bit[i]);
	return n;
}

/* In ascending order. */
unsigned int *cpus_array(const struct cpus *c, unsigned int *n)
{
	unsigned int *array = xrealloc(NULL, cpus_count(c), sizeof(*array));
	unsigned int cpu;

	*n = 0;
	for (cpu = 0; cpu < MAX_CPUS; cpu++)
		if (cpus_has(c, cpu))
			array[(*n)++] = cpu;
	return array;
}

/* An empty list is none. */
bool cpus_parse_list(struct cpus *c, const char *text)
{
	unsigned long from, to;
	char *end;

	memset(c, 0, sizeof(*c));
	while (*text) {
		if (*text < '0' || *text > '9')
			return false;
		from = strtoul(text, &end, 10);
		to = from;
		if (*end == '-') {
			text = end + 1;
			if (*text < '0' || *text > '9')
				return false;
			to = strtoul(text, &end, 10);
		}
		if (from > to || to >= MAX_CPUS)
			return false;
		while (from <= to)
			cpus_add(c, from++);
		if (*end && (*end != ',' || !end[1]))
			return false;
		text = *end ? end + 1 : end;
	}
	return true;
}

bool cpus_parse_mask(struct cpus *c, const char *text)
{
	unsigned int cpu = 0, digit, i;
	size_t len = strlen(text);
	char one[2] = "";
	char *end;

	memset(c, 0, sizeof(*c));
	while (len--) {
		if (text[len] == ',')
			continue;
		one[0] = text[len];
		digit = strtoul(one, &end, 16);
		if (end == one)
			return false;
		for (i = 0; i < 4; i++, cpu++) {
			if (!(digit & 1 << i))
				continue;
			if (cpu >= MAX_CPUS)
				return false;
			cpus_add(c, cpu);
		}
	}
	return true;
}

char *cpus_list(const struct cpus *c)
{
	unsigned int cpu, last;
	const char *comma = "";
	size_t size;
	char *text;
	FILE *f;

	f = open_memstream(&text, &size);
	if (!f)
		err(EXIT_FAILURE, "cannot allocate memory");
	for (cpu = 0; cpu < MAX_CPUS; cpu = last + 1) {
		last = cpu;
		if (!cpus_has(c, cpu))
			continue;
		while (cpus_has(c, last + 1))
			last++;
		fprintf(f, "%s%u", comma, cpu);
		if (last > cpu)
			fprintf(f, "-%u", last);
		comma = ",";
	}
	fclose(f);
	return text;
}

char *cpus_mask(const struct cpus *c)
{
	unsigned int word, top = 0, i;
	size_t size;
	char *text;
	FILE *f;

	for (i = 0; i < MAX_CPUS; i++)
		if (cpus_has(c, i))
			top = i / 32;
	f = open_memstream(&text, &size);
	if (!f)
		err(EXIT_FAILURE, "cannot allocate memory");
	for (word = top + 1; word-- > 0;) {
		const unsigned char *b = &c->bit[word * 4];

		fprintf(f, "%02x%02x%02x%02x%s", b[3], b[2], b[1], b[0],
			word ? "," : "");
	}
	fclose(f);
	return text;
}
