// SPDX-License-Identifier: GPL-2.0
/*
 * Loading, attaching and taking away the XDP program of steer.bpf.c.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nic.h"
#include "steer.h"

/* Packets that may wait for a CPU. */
#define QUEUE_SIZE	2048

/* steer.bpf.o, within the command. */
__asm__(".section .rodata\n"
	".balign 8\n"
	"steer_object:\n"
	".incbin \"steer.bpf.o\"\n"
	"steer_object_end:\n"
	".previous\n");

static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	(void)level;
	(void)fmt;
	(void)ap;
	return 0;
}

static unsigned int attached(const struct nic *nic, bool *native)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, q);

	if (bpf_xdp_query(nic->ifindex, 0, &q))
		return 0;
	*native = q.drv_prog_id;
	return q.drv_prog_id ? q.drv_prog_id : q.skb_prog_id ? q.skb_prog_id :
	       q.hw_prog_id ? q.hw_prog_id : q.prog_id;
}

static bool is_ours(unsigned int id)
{
	struct bpf_prog_info info = { 0 };
	__u32 len = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);
	bool ours;

	if (fd < 0)
		return false;
	ours = !bpf_obj_get_info_by_fd(fd, &info, &len) &&
	       !strcmp(info.name, STEER_PROGRAM);
	close(fd);
	return ours;
}

/* Whose program is attached? Sets foreign_xdp, xdp_id and xdp_native. */
void xdp_look(struct nic *nic)
{
	unsigned int id = attached(nic, &nic->xdp_native);
	bool ours = id && is_ours(id);

	nic->foreign_xdp = ours ? 0 : id;
	nic->xdp_id = ours ? id : 0;
}

static void fill_config(struct steer_config *config, const char *list)
{
	unsigned int *array, i;
	struct cpus cpus;

	memset(config, 0, sizeof(*config));
	cpus_parse_list(&cpus, list);
	array = cpus_array(&cpus, &config->n_cpus);
	if (config->n_cpus > STEER_CPUS)
		config->n_cpus = STEER_CPUS;
	for (i = 0; i < config->n_cpus; i++)
		config->cpu[i] = array[i];
	for (i = 1; i < config->n_cpus;)
		i *= 2;
	config->class_mask = i - 1;
	free(array);
}

/* The program for these CPUs; it is in the kernel until the object is closed. */
static struct bpf_object *load(const char *list, int *prog, int *ret)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "fastsocket");
	struct bpf_cpumap_val entry = { .qsize = QUEUE_SIZE };
	static struct steer_config config;
	struct bpf_map *map, *rodata;
	struct bpf_object *obj;
	unsigned int i;

	libbpf_set_print(quiet);
	fill_config(&config, list);
	obj = bpf_object__open_mem(steer_object, steer_object_end - steer_object, &opts);
	if (!obj) {
		*ret = -errno;
		return NULL;
	}
	map = bpf_object__find_map_by_name(obj, "cpus");
	rodata = bpf_object__find_map_by_name(obj, ".rodata");
	if (!map || !rodata)
		*ret = -ENOENT;
	else
		*ret = bpf_map__set_initial_value(rodata, &config, sizeof(config));
	if (!*ret)
		*ret = bpf_map__set_max_entries(map, libbpf_num_possible_cpus());
	if (!*ret)
		*ret = bpf_object__load(obj);
	for (i = 0; !*ret && i < config.n_cpus; i++)
		if (bpf_map_update_elem(bpf_map__fd(map), &config.cpu[i], &entry, 0))
			*ret = -errno;
	if (*ret) {
		bpf_object__close(obj);
		return NULL;
	}
	*prog = bpf_program__fd(bpf_object__find_program_by_name(obj, STEER_PROGRAM));
	return obj;
}

/* Would the kernel take it? Attaches nothing. */
int xdp_test(struct nic *nic)
{
	int prog, ret = 0;
	struct bpf_object *obj = load("0", &prog, &ret);

	if (!obj) {
		nic_fail(nic, "%s", strerror(-ret));
		return ret;
	}
	bpf_object__close(obj);
	return 0;
}

/*
 * The two ends of a veth exchange packets whose checksum nobody has computed.
 * Generic XDP keeps them so; the frames of native XDP cannot say it, and TCP
 * would drop them.
 */
static bool native_breaks(struct nic *nic)
{
	bool on = true, fixed;
	char *peer;

	if (strcmp(nic->driver, "veth"))
		return false;
	peer = nic_peer(nic);
	if (peer)
		ethtool_feature(nic, peer, "tx-checksum-ip-generic", &on, &fixed);
	free(peer);
	return on;
}

static int detach(struct nic *nic)
{
	LIBBPF_OPTS(bpf_xdp_attach_opts, opts);
	int ret;

	/* Only if it is still this one: nobody's else is taken away. */
	opts.old_prog_fd = bpf_prog_get_fd_by_id(nic->xdp_id);
	if (opts.old_prog_fd < 0)
		return -errno;
	ret = bpf_xdp_detach(nic->ifindex, nic->xdp_native ? XDP_FLAGS_DRV_MODE :
			     XDP_FLAGS_SKB_MODE, &opts);
	close(opts.old_prog_fd);
	return ret;
}

static int attach(struct nic *nic, int prog)
{
	const __u32 only = XDP_FLAGS_UPDATE_IF_NOEXIST;
	int ret;

	if (native_breaks(nic)) {
		nic_note(nic, "the XDP program runs on the generic path: the other end of a veth leaves checksums to be computed, which native XDP loses ('ethtool -K PEER tx off', with both ends here, would allow it)");
		return bpf_xdp_attach(nic->ifindex, prog, only | XDP_FLAGS_SKB_MODE, NULL);
	}
	ret = bpf_xdp_attach(nic->ifindex, prog, only | XDP_FLAGS_DRV_MODE, NULL);
	if (!ret || ret == -EBUSY || ret == -EEXIST)
		return ret;
	nic_note(nic, "the XDP program runs on the generic path, which is slower: the driver does not take it (%s)",
		 strerror(-ret));
	return bpf_xdp_attach(nic->ifindex, prog, only | XDP_FLAGS_SKB_MODE, NULL);
}

/* Have the program steer to the list @cpus, or with "" take it away. */
int xdp_set(struct nic *nic, const char *cpus)
{
	struct bpf_object *obj = NULL;
	int prog = -1, ret = 0;

	xdp_look(nic);
	if (*cpus) {
		obj = load(cpus, &prog, &ret);
		if (ret)
			goto out;
	}
	if (nic->xdp_id)
		ret = detach(nic);
	if (!ret && *cpus)
		ret = attach(nic, prog);
out:
	if (obj)
		bpf_object__close(obj);
	xdp_look(nic);
	free(nic->xdp_cpus);
	nic->xdp_cpus = nic->xdp_id && *cpus ? xstrdup(cpus) : NULL;
	if (ret)
		nic_fail(nic, "%s", ret == -EBUSY || ret == -EEXIST ?
			 "another XDP program is attached" : strerror(-ret));
	return ret;
}
