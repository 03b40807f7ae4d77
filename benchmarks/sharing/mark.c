// SPDX-License-Identifier: GPL-2.0
/*
 * Mark a window for the sharing meter, from a script in the virtual machine.
 *
 * usage: mark watch | begin NUMBER | end
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "marker.h"

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "watch"))
		sharing_watch();
	else if (argc == 3 && !strcmp(argv[1], "begin"))
		sharing_begin(atoi(argv[2]));
	else if (argc == 2 && !strcmp(argv[1], "end"))
		sharing_end();
	else
		return fputs("usage: mark watch | begin NUMBER | end\n", stderr), 2;
	return 0;
}
