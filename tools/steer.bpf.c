// SPDX-License-Identifier: GPL-2.0
/*
 * XDP program for devices that cannot steer by themselves: TCP packets go to
 * the CPU of their destination port's class or, where services listen, of
 * their flow. What it does not know goes on as without it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "steer.h"

#define PORT_CLASSES	0x8000
#define IP_FRAGMENT	0x3fff	/* more fragments, or an offset */

const volatile struct steer_config config = {};

/* As many entries as the machine can have CPUs. */
struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
	__uint(max_entries, 1);
} cpus SEC(".maps");

struct ports {
	__be16 source;
	__be16 dest;
};

static __always_inline __u32 mix(__u32 hash, __u32 word)
{
	hash = (hash ^ word) * 0x9e3779b1;
	return hash ^ hash >> 15;
}

/* Each bit of the result depends on every bit of @hash. */
static __always_inline __u32 finish(__u32 hash)
{
	hash = (hash ^ hash >> 16) * 0x85ebca6b;
	hash = (hash ^ hash >> 13) * 0xc2b2ae35;
	return hash ^ hash >> 16;
}

SEC("xdp")
int fastsocket_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct ports *ports;
	struct ipv6hdr *ip6;
	__u32 hash = 0, nth, cpu;
	struct iphdr *ip;
	__u16 dest;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end || ip->ihl < 5 ||
		    ip->protocol != IPPROTO_TCP ||
		    ip->frag_off & bpf_htons(IP_FRAGMENT))
			return XDP_PASS;
		ports = (void *)ip + ip->ihl * 4;
		hash = mix(mix(hash, ip->saddr), ip->daddr);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		ip6 = (void *)(eth + 1);
		if ((void *)(ip6 + 1) > end || ip6->nexthdr != IPPROTO_TCP)
			return XDP_PASS;
		ports = (void *)(ip6 + 1);
		for (int i = 0; i < 4; i++) {
			hash = mix(hash, ip6->saddr.in6_u.u6_addr32[i]);
			hash = mix(hash, ip6->daddr.in6_u.u6_addr32[i]);
		}
	} else {
		return XDP_PASS;
	}
	if ((void *)(ports + 1) > end || !config.n_cpus)
		return XDP_PASS;

	dest = bpf_ntohs(ports->dest);
	if (dest & PORT_CLASSES)
		nth = dest & config.class_mask;
	else
		nth = finish(mix(hash, (__u32)ports->source << 16 | ports->dest));
	nth %= config.n_cpus;
	cpu = config.cpu[nth & (STEER_CPUS - 1)];
	if (cpu == bpf_get_smp_processor_id())
		return XDP_PASS;
	/* Where the CPU has no entry, as XDP_PASS. */
	return bpf_redirect_map(&cpus, cpu, XDP_PASS);
}

char _license[] SEC("license") = "GPL";
