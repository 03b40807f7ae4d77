// SPDX-License-Identifier: GPL-2.0
/*
 * The command's parsers of text that files hold; the first byte of the input
 * chooses one. To be linked with libFuzzer and the command's objects, with --wrap
 * for the functions below that have __wrap_ in their names.
 */
#include <json-c/json.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

static char input_path[64];
static struct json_object *parsed;

/* The file with a device's state is the input, whatever its path. */
static struct json_object *read_input(void)
{
	parsed = json_object_from_file(input_path);
	return parsed;
}

#define access(path, mode)		((void)(path), (void)(mode), 0)
#define json_object_from_file(path)	((void)(path), read_input())
#include "nic_state.c"
#undef access
#undef json_object_from_file
/* For check_program() and read_tcp(). */
#include "run.c"
#include "snapshot.c"

static jmp_buf out;
static int input_fd;

void __attribute__((noreturn)) __wrap_errx(int status, const char *fmt, ...)
{
	(void)status;
	(void)fmt;
	longjmp(out, 1);
}

void __wrap_warnx(const char *fmt, ...)
{
	(void)fmt;
}

/* What has been understood is written, both ways, as what is understood the same. */
static void check_cpus(const struct cpus *c)
{
	char *list = cpus_list(c), *mask = cpus_mask(c);
	struct cpus again;
	unsigned int n, i, *array = cpus_array(c, &n);

	CHECK(cpus_parse_list(&again, list) && !memcmp(c, &again, sizeof(again)));
	CHECK(cpus_parse_mask(&again, mask) && !memcmp(c, &again, sizeof(again)));
	CHECK(n == cpus_count(c));
	for (i = 0; i < n; i++)
		CHECK(array[i] < MAX_CPUS && cpus_has(c, array[i]));
	free(array);
	free(mask);
	free(list);
}

static void fuzz_list(const char *text)
{
	struct cpus c;

	if (cpus_parse_list(&c, text))
		check_cpus(&c);
}

static void fuzz_mask(const char *text)
{
	struct cpus c;

	if (cpus_parse_mask(&c, text))
		check_cpus(&c);
}

/* Every cell is where its column's name says. */
static void fuzz_table(const char *text)
{
	size_t row, col, i;
	struct table t;

	(void)text;
	CHECK(!table_read(&t, input_path));
	for (col = 0; col < t.cols; col++) {
		CHECK(*t.head[col] && table_has(&t, t.head[col]));
		for (i = 0; strcmp(t.head[i], t.head[col]); i++)
			;
		for (row = 0; row < t.rows; row++) {
			CHECK(strlen(t.cell[row * t.cols + col]) <= strlen(text));
			CHECK(table_str(&t, row, t.head[col]) == t.cell[row * t.cols + i]);
			table_num(&t, row, t.head[col]);
		}
	}
	table_free(&t);
}

static void free_state(struct nic *nic)
{
	free(nic->rules);
	free(nic->xdp_cpus);
	free(nic->told);
	free(nic->mode);
	free(nic->state_path);
	knobs_free(&nic->original);
	memset(nic, 0, sizeof(*nic));
}

static char *state_text(const struct nic *nic)
{
	struct json_object *obj = state_json(nic);
	char *text = xstrdup(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN));

	json_object_put(obj);
	return text;
}

static void set_input(const void *data, size_t size)
{
	CHECK(!ftruncate(input_fd, 0) && pwrite(input_fd, data, size, 0) == (ssize_t)size);
}

/* What has been understood is written as what is understood the same. */
static void fuzz_state(const char *text)
{
	static char *first;
	static struct nic nic;
	char *second;

	(void)text;
	if (setjmp(out)) {
		CHECK(!first);
		json_object_put(parsed);
		free_state(&nic);
		return;
	}
	state_read(&nic);
	first = state_text(&nic);
	free_state(&nic);
	set_input(first, strlen(first));
	state_read(&nic);
	second = state_text(&nic);
	free_state(&nic);
	CHECK(!strcmp(first, second));
	free(second);
	free(first);
	first = NULL;
}

/* The file that a "#!" line names would be opened next. */
static void fuzz_program(const char *text)
{
	char line[256];

	if (strncmp(text, "#!", 2)) {
		check_program(input_path, 0);
		return;
	}
	snprintf(line, sizeof(line), "%s", text);
	free(script_interp(line));
}

static void fuzz_tcp(const char *text)
{
	struct snapshot s = { 0 };

	(void)text;
	read_tcp(&s, input_path, AF_INET);
	read_tcp(&s, input_path, AF_INET6);
	snapshot_free(&s);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	input_fd = memfd_create("input", MFD_CLOEXEC);
	CHECK(input_fd >= 0);
	snprintf(input_path, sizeof(input_path), "/proc/self/fd/%d", input_fd);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (* const parsers[])(const char *text) = {
		fuzz_list, fuzz_mask, fuzz_table, fuzz_state, fuzz_program, fuzz_tcp,
	};
	char *text;

	if (!size)
		return 0;
	set_input(data + 1, size - 1);
	text = strndup((const char *)data + 1, size - 1);
	CHECK(text);
	parsers[*data % (sizeof(parsers) / sizeof(parsers[0]))](text);
	free(text);
	return 0;
}
