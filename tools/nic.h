/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of "fastsocket nic" share.
 */
#ifndef _FASTSOCKET_NIC_H
#define _FASTSOCKET_NIC_H

#include <linux/netlink.h>
#include <linux/types.h>
#include <net/if.h>

#include "fastsocket.h"

#define MAX_CPUS	8192	/* what a Debian kernel can have */
#define MAX_CLASSES	4096	/* what the module takes */

/* Sets of CPUs, and the two ways the kernel writes them. */
struct cpus {
	unsigned char bit[MAX_CPUS / 8];
};

bool cpus_has(const struct cpus *c, unsigned int cpu);
void cpus_add(struct cpus *c, unsigned int cpu);
unsigned int cpus_count(const struct cpus *c);
unsigned int *cpus_array(const struct cpus *c, unsigned int *n);
bool cpus_parse_list(struct cpus *c, const char *text);
bool cpus_parse_mask(struct cpus *c, const char *text);
char *cpus_list(const struct cpus *c);
char *cpus_mask(const struct cpus *c);

/*
 * Everything that can be set is a knob with a value in text, so that saving,
 * comparing, printing and restoring are the same for all. They are set in this
 * order: what makes queues before what is said of them.
 */
enum knob_kind {
	KNOB_RX_CHANNELS,
	KNOB_TX_CHANNELS,
	KNOB_COMBINED,
	KNOB_RX_RING,
	KNOB_ADAPTIVE_RX,
	KNOB_RX_USECS,
	KNOB_LRO,		/* which the kernel switches off for XDP */
	KNOB_GRO_HW,		/* likewise */
	KNOB_NTUPLE,
	KNOB_KEY,		/* of RSS */
	KNOB_TABLE,		/* of RSS: "default" or a queue per bucket */
	KNOB_HASH_TCP4,
	KNOB_HASH_TCP6,
	KNOB_BANS,		/* of irqbalance: IRQ numbers, or BANS_OURS */
	KNOB_IRQ,		/* one per IRQ: CPUs */
	KNOB_XPS,		/* one per tx queue: CPUs */
	KNOB_RPS,		/* one per rx queue: CPUs */
	KNOB_RFS,		/* one per rx queue: number of flows */
	KNOB_RULE,		/* one per family and class: the queue */
	KNOB_XDP,		/* CPUs */
	KNOB_MODULE,		/* what the module has been told */
	KNOBS
};

/* Of a knob that is not there, and for taking away what setup has made. */
#define KNOB_NONE	""
#define BANS_OURS	"IRQs of the device"

/**
 * struct knob - a setting and its value
 * @kind: which setting
 * @index: queue; or class, with RULE_TCP6 for rules of IPv6
 * @name: of the IRQ; NULL for one that is not there yet
 * @value: in text
 */
struct knob {
	enum knob_kind kind;
	unsigned int index;
	char *name;
	char *value;
};

#define RULE_TCP6	0x10000

struct knobs {
	struct knob *k;
	size_t n;
};

void knobs_put(struct knobs *ks, enum knob_kind kind, unsigned int index,
	       const char *name, const char *value);
const char *knobs_get(const struct knobs *ks, const struct knob *like);
const char *knobs_first(const struct knobs *ks, enum knob_kind kind);
void knobs_free(struct knobs *ks);
const char *knob_key(enum knob_kind kind);

/* struct rule - an ntuple rule that setup has made */
struct rule {
	unsigned int index;	/* as in &struct knob */
	unsigned int classes;
	unsigned int queue;
	__u32 location;
};

/* struct queue_irq - an interrupt of a queue */
struct queue_irq {
	unsigned int irq;
	unsigned int queue;
	char name[96];
};

/* struct channels - numbers of queues: now, and the most there may be */
struct channels {
	__u32 rx, tx, combined;
	__u32 max_rx, max_tx, max_combined;
};

/* struct rss - hash function (a bit of the kernel's list), table and key */
struct rss {
	__u32 hfunc;
	__u32 xfrm;
	__u32 buckets;
	__u32 *table;
	__u32 key_len;
	unsigned char *key;
};

/**
 * struct nic - a device and what has been learnt of it
 * @error: why the last call failed
 * @failed: what nic_apply() could not set
 * @have_channels: @channels can be read
 * @rx_ring_max: 0 if the ring cannot be read
 * @ntuple_fixed: the feature is there but cannot be switched
 * @tx_queues, @rx_queues: there now, as sysfs has them
 * @slots: room for ntuple rules, 0 if the device has none
 * @slots_used: of them
 * @any_slot: the driver chooses where a rule goes
 * @foreign_xdp: id of an XDP program that is not ours, 0 if none
 * @xdp_id, @xdp_native: our program
 * @irqbalance: its process, 0 if it does not run
 * @irqbalance_silent: why it cannot be talked to, "" if it can
 * @irqbalance_late: it has not answered in time, and is not asked again
 * State that is kept in the file, see nic_state.c:
 * @rules: ntuple rules that setup has made
 * @xdp_cpus: what our XDP program has been given
 * @told: what the module has been told
 * @mode: of the last setup
 */
struct nic {
	char name[IFNAMSIZ];
	unsigned int ifindex;
	char driver[32];
	bool up;
	char *error;
	enum knob_kind failed;

	bool have_channels;
	struct channels channels;
	__u32 rx_ring_max;
	bool ntuple_fixed;
	unsigned int tx_queues;
	unsigned int rx_queues;
	__u32 slots;
	__u32 slots_used;
	bool any_slot;
	struct rss rss;
	unsigned int foreign_xdp;
	unsigned int xdp_id;
	bool xdp_native;
	struct queue_irq *irqs;
	size_t n_irqs;
	pid_t irqbalance;
	char irqbalance_silent[256];
	bool irqbalance_late;

	struct rule *rules;
	size_t n_rules;
	char *xdp_cpus;
	char *told;
	char *mode;
	bool saved;
	struct knobs original;
	char *state_path;
};

/* Keep why a call failed and return -1. */
int nic_fail(struct nic *nic, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* A sentence for the user on stderr, in front of which stdout is written. */
void nic_note(const struct nic *nic, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* nic_link.c: the device itself. */
void nic_open(struct nic *nic, const char *name);
char *nic_peer(const struct nic *nic);

/* nic_netlink.c */
struct nlmsghdr;
int genl_call(const char *family, int cmd, int flags,
	      void (*fill)(struct nlmsghdr *nlh, const void *arg), const void *arg,
	      int (*reply)(const struct nlmsghdr *nlh, void *arg), void *reply_arg,
	      char **why);
int nl_call(int bus, struct nlmsghdr *nlh,
	    int (*reply)(const struct nlmsghdr *nlh, void *arg), void *reply_arg,
	    char **why);

/* nic_ethtool.c: each reads or sets; 0, or -errno with nic->error set. */
void ethtool_driver(struct nic *nic);
int ethtool_channels(struct nic *nic);
int ethtool_ring(struct nic *nic, __u32 *rx);
int ethtool_coalesce(struct nic *nic, int *adaptive, int *usecs);
int ethtool_feature(struct nic *nic, const char *dev, const char *feature,
		    bool *on, bool *fixed);
const char *feature_of(enum knob_kind kind);
int ethtool_rss(struct nic *nic);
bool rss_is_default(const struct rss *rss, unsigned int queues);
int ethtool_hash_fields(struct nic *nic, bool v6, char *fields);
int ethtool_rules(struct nic *nic);
int ethtool_set(struct nic *nic, enum knob_kind kind, const char *value);
int ethtool_rule_add(struct nic *nic, unsigned int index, unsigned int classes,
		     unsigned int queue);
int ethtool_rule_del(struct nic *nic, const struct rule *rule);

/* nic_irq.c */
void irqs_find(struct nic *nic);
int irq_affinity(unsigned int irq, struct cpus *cpus);
bool irq_named(const struct nic *nic, const char *name);
int irq_set(struct nic *nic, const struct knob *k);
char *irqbalance_bans(struct nic *nic);
int irqbalance_ban(struct nic *nic, const char *value);

/* nic_xdp.c */
void xdp_look(struct nic *nic);
int xdp_test(struct nic *nic);
int xdp_set(struct nic *nic, const char *cpus);

/* nic_state.c */
void state_read(struct nic *nic);
int state_write(struct nic *nic);
void state_remove(struct nic *nic);
int state_lock(void);

/* nic_knob.c */
void nic_snapshot(struct nic *nic, struct knobs *ks);
int knob_set(struct nic *nic, const struct knob *k);

enum apply {
	APPLY,
	APPLY_DRY,		/* only say what would be done */
	APPLY_GOING_ON,		/* what fails is told, the rest done */
};

int nic_apply(struct nic *nic, const struct knobs *target, const char *verb,
	      enum apply how, unsigned int *changes);

/* nic_module.c */
bool module_steers(char **why);
char *module_line(unsigned int ifindex);
bool module_forgot(unsigned int ifindex);
int module_tell(struct nic *nic, const char *value);

/* nic_path.c */
char **path_warnings(size_t *n);

/* nic_show.c */
int nic_show(struct nic *nic, bool json);

#endif /* _FASTSOCKET_NIC_H */
