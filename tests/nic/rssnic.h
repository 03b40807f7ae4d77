/* SPDX-License-Identifier: GPL-2.0 */
/*
 * rssnic: a pair of virtual network devices that, seen from the kernel and
 * from ethtool, have what a multi-queue network card has: rx queues with an
 * interrupt each, receive-side scaling and n-tuple filters. For tests.
 */
#ifndef RSSNIC_H
#define RSSNIC_H

#include <linux/device.h>
#include <linux/ethtool.h>
#include <linux/irq_work.h>
#include <linux/netdevice.h>
#include <linux/ptr_ring.h>
#include <linux/smp.h>
#include <linux/u64_stats_sync.h>

#define RSSNIC_MAX_QUEUES	64
#define RSSNIC_KEY_SIZE		40
#define RSSNIC_INDIR_SIZE	128
#define RSSNIC_MAX_RULES	1024
#define RSSNIC_RING_MIN		16
#define RSSNIC_RING_DEFAULT	1024
#define RSSNIC_RING_MAX		8192
#define RSSNIC_SENT_MAX		512

/* What a device can be made without. */
enum {
	RSSNIC_LACKS_NTUPLE	= BIT(0),
	RSSNIC_LACKS_RSS	= BIT(1),
	RSSNIC_LACKS_CHANNELS	= BIT(2),
	RSSNIC_LACKS_COALESCE	= BIT(3),
	RSSNIC_LACKS_RINGS	= BIT(4),
};

enum rssnic_type {
	RSSNIC_TCP4,
	RSSNIC_UDP4,
	RSSNIC_TCP6,
	RSSNIC_UDP6,
	RSSNIC_L4_TYPES,
	RSSNIC_OTHER4 = RSSNIC_L4_TYPES,
	RSSNIC_OTHER6,
	RSSNIC_NOT_IP,
};

#define RSSNIC_WORDS		9	/* of an IPv6 4-tuple */

/**
 * struct rssnic_flow - what steering knows of a packet
 * @type: enum rssnic_type
 * @addr_words: words of @word that are addresses; one with the ports follows
 * @word: source address, destination address, ports, as the hash takes them
 */
struct rssnic_flow {
	enum rssnic_type type;
	unsigned int addr_words;
	__be32 word[RSSNIC_WORDS];
};

/* Replaced as a whole, under RTNL; so are the rules. */
struct rssnic_rss {
	struct rcu_head rcu;
	u8 key[RSSNIC_KEY_SIZE];
	u8 indir[RSSNIC_INDIR_SIZE];
	bool ports[RSSNIC_L4_TYPES];	/* hashed, beside the addresses */
};

struct rssnic_rule {
	struct rcu_head rcu;
	enum rssnic_type type;
	bool drop;
	unsigned int queue;
	__be32 value[RSSNIC_WORDS];	/* masked */
	__be32 mask[RSSNIC_WORDS];	/* of what has to be equal */
	struct ethtool_rx_flow_spec spec;
};

/* In order of location, which is that of precedence. */
struct rssnic_rules {
	struct rcu_head rcu;
	unsigned int count;
	struct rssnic_rule *rule[];
};

struct rssnic_counter {
	u64_stats_t packets;
	u64_stats_t bytes;
	struct u64_stats_sync syncp;
};

/* rssnic_queue.state */
enum {
	RSSNIC_MASKED,		/* no interrupt: NAPI runs or is about to */
};

/**
 * struct rssnic_queue - an rx queue, its tx queue and their interrupt
 * @napi: polls @ring
 * @ring: what the peer has sent to this queue
 * @state: RSSNIC_MASKED
 * @rx: written by NAPI only
 * @rx_drops: what found the ring full
 * @dev: whose queue it is
 * @index: which one it is
 * @irq: Linux interrupt number, for the life of the device
 * @cpu: where the interrupt goes, as its affinity says
 * @csd: takes it to another CPU
 * @work: raises it on this CPU, in interrupt context
 * @in_flight: interrupts sent and not yet handled
 * @irq_name: as /proc/interrupts shows it
 * @irq_attr: as the device's msi_irqs directory shows it
 * @irq_file: name of @irq_attr
 * @tx: written under the tx queue's lock
 * @sent: packets of its own that have been received by a copy; see the
 *	parameter "dma". For the life of the device
 */
struct rssnic_queue {
	struct napi_struct napi;
	struct ptr_ring ring;
	unsigned long state;
	struct rssnic_counter rx;
	atomic64_t rx_drops;
	struct net_device *dev;
	unsigned int index;
	unsigned int irq;
	int cpu;
	call_single_data_t csd;
	struct irq_work work;
	atomic_t in_flight;
	char irq_name[IFNAMSIZ + 16];
	struct device_attribute irq_attr;
	char irq_file[12];
	struct rssnic_counter tx ____cacheline_aligned_in_smp;
	struct ptr_ring sent;
};

/* In a packet, while it is in a ring. */
struct rssnic_cb {
	unsigned int tx;	/* the queue that has sent it */
};

static inline struct rssnic_cb *rssnic_cb(struct sk_buff *skb)
{
	return (struct rssnic_cb *)skb->cb;
}

/**
 * struct rssnic - private data of a device
 * @peer: the other end; none once either is being deleted
 * @rss: hash key, indirection table and fields
 * @rules: n-tuple filters; NULL where there are none
 * @up: the queues may be posted to
 * @filter_drops: what a rule said to drop
 * @queue: @max_queues of them
 * @max_queues: how many channels there can be
 * @queues: how many there are
 * @lacks: RSSNIC_LACKS_*
 * @rx_ring: capacity of each queue's ring
 * @tx_ring: told and stored; sending has no ring, as it completes at once
 * @coalesce: told and stored; no interrupt is delayed
 * @ethtool_ops: without what the device lacks
 * @parent: where tools find the interrupts: its msi_irqs
 * @irq_base: first of @max_queues interrupt numbers
 * @irq_attrs: the files of msi_irqs
 * @irq_group: msi_irqs
 * @irq_groups: for @parent
 */
struct rssnic {
	struct rssnic __rcu *peer;
	struct net_device *dev;
	struct rssnic_rss __rcu *rss;
	struct rssnic_rules __rcu *rules;
	bool up;
	bool awake;
	atomic64_t filter_drops;
	atomic64_t tx_drops;
	struct rssnic_queue *queue;
	unsigned int max_queues;
	unsigned int queues;
	unsigned int lacks;
	unsigned int rx_ring;
	unsigned int tx_ring;
	struct ethtool_coalesce coalesce;
	struct ethtool_ops ethtool_ops;
	struct platform_device *parent;
	int irq_base;
	struct attribute **irq_attrs;
	struct attribute_group irq_group;
	const struct attribute_group *irq_groups[2];
};

/* main.c */
int rssnic_set_queues(struct net_device *dev, unsigned int queues);
int rssnic_set_ring(struct net_device *dev, unsigned int size);
void rssnic_read_counter(const struct rssnic_counter *counter, u64 *packets, u64 *bytes);

/* irq.c */
int rssnic_irqs_alloc(struct rssnic *nic);
void rssnic_irqs_free(struct rssnic *nic);
int rssnic_irq_request(struct rssnic_queue *queue);
void rssnic_irq_release(struct rssnic_queue *queue);
void rssnic_irq_raise(struct rssnic_queue *queue);

/* steer.c */
int rssnic_steer(struct rssnic *nic, struct sk_buff *skb);
int rssnic_steer_init(struct rssnic *nic);
void rssnic_steer_free(struct rssnic *nic);
struct rssnic_rss *rssnic_rss_copy(struct rssnic *nic);
void rssnic_rss_replace(struct rssnic *nic, struct rssnic_rss *rss);
void rssnic_rss_spread(struct rssnic_rss *rss, unsigned int queues);
int rssnic_rule_add(struct rssnic *nic, struct ethtool_rx_flow_spec *spec);
int rssnic_rule_delete(struct rssnic *nic, u32 location);
void rssnic_rules_flush(struct rssnic *nic);
bool rssnic_rules_use(struct rssnic *nic, unsigned int queue);

/* ethtool.c */
void rssnic_ethtool_init(struct net_device *dev);

#endif
