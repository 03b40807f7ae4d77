// SPDX-License-Identifier: GPL-2.0
/*
 * The options of the command and of each subcommand, one argument per line of
 * the input: main() runs until the options of a subcommand have been parsed and
 * its CPUs chosen, where it would begin to act. To be linked with libFuzzer and
 * the command's objects, whose main() is called fastsocket_main() there, with
 * --wrap for the functions below that have __wrap_ in their names.
 */
#include <setjmp.h>

#include "fuzz.h"
/* For choose_cpus() and what it is called with. */
#include "nic.c"

#define MAX_ARGS	32

static jmp_buf out;
static bool refused;
static struct plan plan;

void __attribute__((noreturn)) __wrap_err(int status, const char *fmt, ...)
{
	(void)status;
	(void)fmt;
	longjmp(out, 1);
}

void __attribute__((noreturn)) __wrap_errx(int status, const char *fmt, ...)
{
	(void)status;
	(void)fmt;
	longjmp(out, 1);
}

/* A jump from within argp_parse() would leak what that has allocated. */
void __wrap_argp_error(const struct argp_state *state, const char *fmt, ...)
{
	va_list ap;
	char *text;

	(void)state;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) >= 0)
		free(text);
	va_end(ap);
	refused = true;
}

error_t __wrap_argp_parse(const struct argp *argp, int argc, char **argv, unsigned int flags,
			  int *index, void *input)
{
	error_t ret = __real_argp_parse(argp, argc, argv, flags | ARGP_NO_EXIT, index, input);

	if (ret || refused)
		longjmp(out, 1);
	/* Of run_command(), which goes on to the subcommand's. */
	if (argp->args_doc && !strncmp(argp->args_doc, "COMMAND", 7))
		return 0;
	if (argp->parser == parse_opt) {
		const struct nic_args *args = input;

		CHECK(args->device);
		if (argp->options == setup_options)
			choose_cpus(args->cpus, &plan);
	}
	longjmp(out, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char *argv[MAX_ARGS + 2], *words[MAX_ARGS];
	char *text = strndup((const char *)data, size), *next = text, *word;
	char *name = program_invocation_name, *short_name = program_invocation_short_name;
	int n = 0, i;

	CHECK(text);
	/* argp's own option to wait for a debugger. */
	if (!strstr(text, "--H"))
		while (n < MAX_ARGS && (word = strsep(&next, "\n")))
			words[n++] = xstrdup(word);
	free(text);
	argv[0] = "fastsocket";
	/* It puts the options first. */
	memcpy(argv + 1, words, n * sizeof(*words));
	argv[n + 1] = NULL;
	refused = false;
	if (!setjmp(out))
		fastsocket_main(n + 1, argv);

	/* argp has an option that sets them. */
	program_invocation_name = name;
	program_invocation_short_name = short_name;
	for (i = 0; i < n; i++)
		free(words[i]);
	free(plan.cpu);
	plan.cpu = NULL;
	return 0;
}
