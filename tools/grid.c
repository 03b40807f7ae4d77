// SPDX-License-Identifier: GPL-2.0
/*
 * Columns of text as wide as their widest cell.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastsocket.h"

/**
 * struct grid - text in columns
 * @align: a letter per column, 'l' or 'r'
 * @cols: columns
 * @cell: the cells, row after row
 * @n: how many
 */
struct grid {
	const char *align;
	size_t cols;
	char **cell;
	size_t n;
};

struct grid *grid_new(const char *align)
{
	struct grid *g = xrealloc(NULL, 1, sizeof(*g));

	*g = (struct grid){ .align = align, .cols = strlen(align) };
	return g;
}

/* The grid owns @cell from now on. */
void grid_add(struct grid *g, char *cell)
{
	g->cell = xrealloc(g->cell, g->n + 1, sizeof(*g->cell));
	g->cell[g->n++] = cell;
}

void grid_print(struct grid *g)
{
	int width[g->cols];
	size_t i, col;

	memset(width, 0, sizeof(width));
	for (i = 0; i < g->n; i++) {
		int len = strlen(g->cell[i]);

		if (width[i % g->cols] < len)
			width[i % g->cols] = len;
	}
	for (i = 0; i < g->n; i++) {
		col = i % g->cols;
		if (g->align[col] == 'r')
			printf("%*s", width[col], g->cell[i]);
		else if (col == g->cols - 1)
			printf("%s", g->cell[i]);
		else
			printf("%-*s", width[col], g->cell[i]);
		fputs(col == g->cols - 1 ? "\n" : "  ", stdout);
		free(g->cell[i]);
	}
	free(g->cell);
	free(g);
}
