// SPDX-License-Identifier: GPL-2.0
/*
 * fastsocket run: become PROGRAM with libfsocket.so preloaded.
 */
#include <argp.h>
#include <elf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fastsocket.h"

#define LIBRARY		"libfsocket.so"

struct run_args {
	const char *library;
	const char *busy_poll;
	bool verbose;
	char **argv;
};

static const struct argp_option options[] = {
	{ "busy-poll", 'b', "USECS", OPTION_ARG_OPTIONAL,
	  "Before a thread sleeps in an epoll set, let it poll the device for so long (50); see libfsocket(7)", 0 },
	{ "library", 'l', "PATH", 0, "Use this " LIBRARY, 0 },
	{ "verbose", 'v', NULL, 0, "Let the library tell what it does (FASTSOCKET_LOG=info)", 0 },
	{ 0 }
};

static error_t parse_opt(int key, char *arg, struct argp_state *state)
{
	struct run_args *args = state->input;
	unsigned long number;
	char *end;

	switch (key) {
	case 'l':
		args->library = arg;
		return 0;
	case 'b':
		args->busy_poll = arg ? arg : "50";
		number = strtoul(args->busy_poll, &end, 10);
		if (*end || !number || number > 1000000)
			argp_error(state, "--busy-poll takes 1 to 1000000 microseconds, not '%s'",
				   args->busy_poll);
		return 0;
	case 'v':
		args->verbose = true;
		return 0;
	case ARGP_KEY_ARG:
		args->argv = state->argv + state->next - 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "the program to run is missing");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* PROGRAM may change its directory before it executes others. */
static char *absolute(const char *path)
{
	char *cwd, *abs;

	if (*path == '/')
		return xstrdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd)
		err(EXIT_OWN_ERROR, "cannot tell the current directory");
	abs = xasprintf("%s/%s", cwd, path);
	free(cwd);
	return abs;
}

/* A library that was named and cannot be read is an error, not a reason to look elsewhere. */
static char *named_library(const char *path, const char *where)
{
	if (access(path, R_OK))
		err(EXIT_OWN_ERROR, "cannot use the library %s, given by %s",
		    path, where);
	return absolute(path);
}

static char *source_tree_library(void)
{
	char exe[PATH_MAX], *slash, *path, *real;
	ssize_t n;

	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n < 0)
		return NULL;
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (!slash)
		return NULL;
	*slash = '\0';
	path = xasprintf("%s/../preload/" LIBRARY, exe);
	real = realpath(path, NULL);
	free(path);
	return real;
}

static char *find_library(const char *option)
{
	const char *env = getenv("FASTSOCKET_LIBRARY");
	char *path;

	if (option)
		return named_library(option, "--library");
	if (env && *env)
		return named_library(env, "FASTSOCKET_LIBRARY");
	if (!access(LIBDIR "/" LIBRARY, R_OK))
		return xstrdup(LIBDIR "/" LIBRARY);
	path = source_tree_library();
	if (!path)
		errx(EXIT_OWN_ERROR, "cannot find " LIBRARY ": it is not in " LIBDIR
		     "; install it (make install), or name it with --library or FASTSOCKET_LIBRARY");
	return path;
}

/*
 * First in the list, before what is there already; another copy of the library
 * goes, two would both act on every call.
 */
static void preload(const char *library)
{
	const char *old = getenv("LD_PRELOAD");
	char *list, *entry, *next, *name;

	/* ld.so has no way to quote them. */
	if (strpbrk(library, ": \t\n"))
		errx(EXIT_OWN_ERROR, "cannot preload '%s': LD_PRELOAD takes no path with blanks or colons; move the library",
		     library);

	list = xstrdup(library);
	next = xstrdup(old ? old : "");
	while ((entry = strsep(&next, ": "))) {
		name = strrchr(entry, '/');
		name = name ? name + 1 : entry;
		if (*entry && strcmp(name, LIBRARY))
			list = xasprintf("%s:%s", list, entry);
	}
	if (setenv("LD_PRELOAD", list, 1))
		err(EXIT_OWN_ERROR, "cannot set LD_PRELOAD");
}

/* The file that execvp() will take, NULL if none. */
static char *find_program(const char *name)
{
	const char *env = getenv("PATH");
	char *path, *dir, *dirs;
	struct stat st;

	if (strchr(name, '/'))
		return xstrdup(name);
	dirs = xstrdup(env ? env : "/bin:/usr/bin");
	while ((dir = strsep(&dirs, ":"))) {
		path = xasprintf("%s/%s", *dir ? dir : ".", name);
		if (!access(path, X_OK) && !stat(path, &st) && S_ISREG(st.st_mode))
			return path;
		free(path);
	}
	return NULL;
}

/* Will the kernel set AT_SECURE, so that ld.so ignores LD_PRELOAD? */
static const char *privileged(const char *path, const struct stat *st)
{
	if ((st->st_mode & S_ISUID) && st->st_uid != getuid())
		return "set-user-ID";
	if ((st->st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
	    st->st_gid != getgid())
		return "set-group-ID";
	if (getuid() && getxattr(path, "security.capability", NULL, 0) > 0)
		return "given capabilities by setcap";
	return NULL;
}

static bool has_interp(int fd, const ElfW(Ehdr) *eh)
{
	ElfW(Phdr) ph;
	int i;

	for (i = 0; i < eh->e_phnum; i++) {
		off_t off = eh->e_phoff + (off_t)i * eh->e_phentsize;

		/* A file that cannot be understood is not called static. */
		if (pread(fd, &ph, sizeof(ph), off) != sizeof(ph) ||
		    ph.p_type == PT_INTERP)
			return true;
	}
	return false;
}

/* The interpreter that a "#!" line names. */
static char *script_interp(char *line)
{
	line[strcspn(line, "\n")] = '\0';
	line += 2;
	line += strspn(line, " \t");
	line[strcspn(line, " \t")] = '\0';
	return *line ? xstrdup(line) : NULL;
}

/* Say why the preload cannot reach @path, if it cannot. It is run anyway. */
static void check_program(const char *path, int depth)
{
	unsigned char class = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
	union {
		ElfW(Ehdr) eh;
		char line[256];
	} u;
	const char *why;
	struct stat st;
	ssize_t n;
	char *interp;
	int fd;

	/* May be executable without being readable. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return;
	memset(&u, 0, sizeof(u));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		goto out;
	n = pread(fd, &u, sizeof(u) - 1, 0);
	if (n > 2 && !memcmp(u.line, "#!", 2)) {
		interp = script_interp(u.line);
		if (interp && depth < 4)
			check_program(interp, depth + 1);
		goto out;
	}
	if (n < (ssize_t)sizeof(u.eh) || memcmp(u.eh.e_ident, ELFMAG, SELFMAG))
		goto out;

	why = privileged(path, &st);
	if (why)
		warnx("warning: %s is %s, for which the dynamic linker ignores LD_PRELOAD: it runs without fastsocket",
		      path, why);
	else if (u.eh.e_ident[EI_CLASS] != class)
		warnx("warning: %s is a %d-bit program and the library is not: it runs without fastsocket",
		      path, u.eh.e_ident[EI_CLASS] == ELFCLASS64 ? 64 : 32);
	else if (!has_interp(fd, &u.eh))
		warnx("warning: %s is statically linked, a preloaded library cannot reach it: it runs without fastsocket",
		      path);
out:
	close(fd);
}

int cmd_run(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_opt,
		.args_doc = "[--] PROGRAM [ARGUMENT...]",
		.doc = "Run PROGRAM with core-local listening: " LIBRARY
		       " goes in front of LD_PRELOAD, the rest of the environment stays.",
	};
	struct run_args args = { 0 };
	const char *log;
	char *path;
	int status;

	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &args);

	/* The library first: without it there is nothing to run for. */
	path = find_library(args.library);
	preload(path);
	log = getenv("FASTSOCKET_LOG");
	if (args.verbose && (!log || strcmp(log, "debug")) &&
	    setenv("FASTSOCKET_LOG", "info", 1))
		err(EXIT_OWN_ERROR, "cannot set FASTSOCKET_LOG");
	if (args.busy_poll && setenv("FASTSOCKET_BUSY_POLL", args.busy_poll, 1))
		err(EXIT_OWN_ERROR, "cannot set FASTSOCKET_BUSY_POLL");

	path = find_program(args.argv[0]);
	if (path)
		check_program(path, 0);
	execvp(args.argv[0], args.argv);

	status = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
	if (errno == ENOENT && path && !access(path, F_OK))
		errx(status, "cannot run %s: the interpreter it asks for does not exist",
		     path);
	if (errno == ENOENT && !strchr(args.argv[0], '/'))
		errx(status, "cannot run %s: no such program in PATH; give its full path",
		     args.argv[0]);
	err(status, "cannot run %s", args.argv[0]);
}
