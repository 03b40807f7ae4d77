// SPDX-License-Identifier: GPL-2.0
/*
 * fastsocket: set up network devices, run programs under the library, see what
 * it does, unload the module.
 */
#include <argp.h>
#include <err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastsocket.h"

static const struct command commands[] = {
	{ "nic", "fastsocket nic", cmd_nic },
	{ "run", "fastsocket run", cmd_run },
	{ "status", "fastsocket status", cmd_status },
	{ "unload", "fastsocket unload", cmd_unload },
	{ NULL }
};

const char *argp_program_version = "fastsocket " VERSION;

static const char doc[] =
	"Keep a connection on the core its packets arrive on.\n"
	"\n"
	"Commands:\n"
	"  nic COMMAND DEVICE   set up a network device, show or reset it\n"
	"  run PROGRAM [ARGS]   run PROGRAM with core-local listening\n"
	"  status               show which cores and programs use it, and how well\n"
	"  unload               remove the module from the kernel\n"
	"\v"
	"'fastsocket COMMAND --help' lists the options of a command; "
	"fastsocket(8) describes them.";

void *xrealloc(void *p, size_t n, size_t size)
{
	p = reallocarray(p, n ? n : 1, size);
	if (!p)
		err(EXIT_OWN_ERROR, "cannot allocate memory");
	return p;
}

char *xstrdup(const char *s)
{
	char *p = strdup(s);

	if (!p)
		err(EXIT_OWN_ERROR, "cannot allocate memory");
	return p;
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *p;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&p, fmt, ap);
	va_end(ap);
	if (n < 0)
		err(EXIT_OWN_ERROR, "cannot allocate memory");
	return p;
}

struct choice {
	const struct command *commands, *cmd;
	const char *prefix, *names;
	int argc;
	char **argv;
};

static error_t parse_command(int key, char *arg, struct argp_state *state)
{
	struct choice *c = state->input;

	switch (key) {
	case ARGP_KEY_ARG:
		for (c->cmd = c->commands; c->cmd->name; c->cmd++)
			if (!strcmp(arg, c->cmd->name))
				break;
		if (!c->cmd->name)
			argp_error(state, "there is no command '%s%s'; the commands are %s",
				   c->prefix, arg, c->names);
		c->argc = state->argc - state->next + 1;
		c->argv = state->argv + state->next - 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "a command is missing; the commands are %s", c->names);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int run_command(int argc, char **argv, const struct command *table, const char *prefix,
		const char *names, const char *args, const char *help)
{
	const struct argp argp = {
		.parser = parse_command,
		.args_doc = args,
		.doc = help,
	};
	struct choice c = { .commands = table, .prefix = prefix, .names = names };

	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &c);
	c.argv[0] = (char *)c.cmd->shown;
	return c.cmd->run(c.argc, c.argv);
}

int main(int argc, char **argv)
{
	int status;

	argp_err_exit_status = EXIT_USAGE;
	status = run_command(argc, argv, commands, "", "nic, run, status and unload",
			     "COMMAND [OPTION...] [ARGUMENT...]", doc);
	if (fflush(stdout) || ferror(stdout))
		err(EXIT_FAILURE, "cannot write the output");
	return status;
}
