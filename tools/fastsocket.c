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

static const struct command {
	const char *name;
	const char *shown;	/* name in messages of the subcommand */
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "nic", "fastsocket nic", cmd_nic },
	{ "run", "fastsocket run", cmd_run },
	{ "status", "fastsocket status", cmd_status },
	{ "unload", "fastsocket unload", cmd_unload },
};

struct choice {
	const struct command *cmd;
	int argc;
	char **argv;
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

static error_t parse_opt(int key, char *arg, struct argp_state *state)
{
	struct choice *c = state->input;
	size_t i;

	switch (key) {
	case ARGP_KEY_ARG:
		for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
			if (!strcmp(arg, commands[i].name))
				c->cmd = &commands[i];
		if (!c->cmd)
			argp_error(state, "there is no command '%s'; the commands are nic, run, status and unload",
				   arg);
		c->argc = state->argc - state->next + 1;
		c->argv = state->argv + state->next - 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "a command is missing: nic, run, status or unload");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse_opt,
		.args_doc = "COMMAND [OPTION...] [ARGUMENT...]",
		.doc = doc,
	};
	struct choice c = { 0 };
	int status;

	argp_err_exit_status = EXIT_USAGE;
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &c);

	c.argv[0] = (char *)c.cmd->shown;
	status = c.cmd->run(c.argc, c.argv);
	if (fflush(stdout) || ferror(stdout))
		err(EXIT_FAILURE, "cannot write the output");
	return status;
}
