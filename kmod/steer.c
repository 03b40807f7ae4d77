// SPDX-License-Identifier: GPL-2.0
/*
 * How devices decide which CPU a packet comes to, as "fastsocket nic setup"
 * has told, and as their keys and tables say; ports.c computes with that.
 */
#include <linux/ethtool.h>
#include <linux/netdevice.h>
#include <linux/pm_runtime.h>
#include <linux/rculist.h>
#include <linux/rtnetlink.h>
#include <linux/sort.h>
#include <linux/workqueue.h>

#include "local.h"

/* Between looks at keys and tables, of which no event tells. */
#define FS_STEER_REFRESH	HZ
#define FS_RSS_KEY_MAX		256
#define FS_RSS_INDIR_MAX	65536

/**
 * struct fs_steer - how a device steers
 * @list: in fs_steers; under the RTNL
 * @of_net: in its namespace's list; RCU
 * @dev: the device. Not held: the notifier removes it
 * @ifindex: its number
 * @mode: FASTSOCKET_STEER_PORT or FASTSOCKET_STEER_RSS
 * @count: entries of @cpus
 * @rss: in STEER_RSS; RCU
 * @cpus: by class or queue
 * @classes: in STEER_PORT: the classes, sorted by their CPU
 * @rcu: for freeing
 */
struct fs_steer {
	struct list_head list;
	struct list_head of_net;
	struct net_device *dev;
	int ifindex;
	u32 mode;
	u32 count;
	struct fs_rss __rcu *rss;
	s32 *cpus;
	u16 *classes;
	struct rcu_head rcu;
};

/* Of all namespaces; under the RTNL. */
static LIST_HEAD(fs_steers);

static void fs_steer_refresh(struct work_struct *work);
static DECLARE_DELAYED_WORK(fs_steer_work, fs_steer_refresh);

static bool fs_rss_hashes_ports(struct net_device *dev, u32 flow_type)
{
	u64 want = RXH_IP_SRC | RXH_IP_DST | RXH_L4_B_0_1 | RXH_L4_B_2_3;
	u64 fields;
	int err = fs_get_rxfh_fields(dev, flow_type, &fields);

	/* A device that cannot tell does what is usual. */
	return err == -EOPNOTSUPP || (!err && fields == want);
}

static struct fs_rss *fs_rss_ask(struct net_device *dev, const s32 *cpus, u32 count)
{
	const struct ethtool_ops *ops = dev->ethtool_ops;
	u32 nkey, nindir, i, *indir;
	struct fs_rss *rss;
	u8 *key, hfunc = 0;
	int err;

	if (!ops->get_rxfh || !ops->get_rxfh_key_size ||
	    !ops->get_rxfh_indir_size)
		return ERR_PTR(-EOPNOTSUPP);
	nkey = ops->get_rxfh_key_size(dev);
	nindir = ops->get_rxfh_indir_size(dev);
	if (nkey < FS_RSS_KEY || nkey > FS_RSS_KEY_MAX || !nindir ||
	    nindir > FS_RSS_INDIR_MAX)
		return ERR_PTR(-EOPNOTSUPP);
	if (!fs_rss_hashes_ports(dev, TCP_V4_FLOW) ||
	    !fs_rss_hashes_ports(dev, TCP_V6_FLOW))
		return ERR_PTR(-EOPNOTSUPP);

	key = kzalloc(nkey, GFP_KERNEL);
	indir = kvcalloc(nindir, sizeof(*indir), GFP_KERNEL);
	rss = kvzalloc(struct_size(rss, cpus, nindir), GFP_KERNEL);
	err = -ENOMEM;
	if (!key || !indir || !rss)
		goto fail;
	err = fs_get_rxfh(dev, indir, nindir, key, nkey, &hfunc);
	if (!err && hfunc != ETH_RSS_HASH_TOP)
		err = -EOPNOTSUPP;
	if (err)
		goto fail;

	memcpy(rss->key, key, sizeof(rss->key));
	fs_rss_prepare(rss);
	rss->size = nindir;
	for (i = 0; i < nindir; i++)
		rss->cpus[i] = indir[i] < count ? cpus[indir[i]] : -1;
	kvfree(indir);
	kfree(key);
	return rss;

fail:
	kvfree(rss);
	kvfree(indir);
	kfree(key);
	return ERR_PTR(err);
}

/* Read the device's key and table, with the care of ethnl_ops_begin(); the RTNL is held. */
static struct fs_rss *fs_rss_read(struct net_device *dev, const s32 *cpus, u32 count)
{
	const struct ethtool_ops *ops = dev->ethtool_ops;
	struct device *parent = dev->dev.parent;
	struct fs_rss *rss;
	int err = 0;

	if (!ops)
		return ERR_PTR(-EOPNOTSUPP);
	if (parent)
		pm_runtime_get_sync(parent);
	/* Its driver is not to be called now. */
	if (!netif_device_present(dev))
		err = -ENODEV;
	else if (ops->begin)
		err = ops->begin(dev);
	if (err) {
		rss = ERR_PTR(err);
	} else {
		rss = fs_rss_ask(dev, cpus, count);
		if (ops->complete)
			ops->complete(dev);
	}
	if (parent)
		pm_runtime_put(parent);
	return rss;
}

/* A device that sleeps receives nothing, and is not woken to be asked. */
static bool fs_steer_sleeps(const struct fs_steer *st)
{
	return st->dev->dev.parent && pm_runtime_suspended(st->dev->dev.parent);
}

static bool fs_rss_equal(const struct fs_rss *a, const struct fs_rss *b)
{
	if (!a || !b)
		return a == b;
	return a->size == b->size && !memcmp(a->key, b->key, sizeof(a->key)) &&
	       !memcmp(a->cpus, b->cpus, array_size(a->size, sizeof(*a->cpus)));
}

/* What cannot be read any more is not known: the ports are any. Unless it comes back. */
static void fs_steer_refresh(struct work_struct *work)
{
	struct fs_rss *old, *new;
	struct fs_steer *st;
	bool again = false;

	rtnl_lock();
	list_for_each_entry(st, &fs_steers, list) {
		if (st->mode != FASTSOCKET_STEER_RSS)
			continue;
		again = true;
		if (fs_steer_sleeps(st))
			continue;
		old = rtnl_dereference(st->rss);
		new = fs_rss_read(st->dev, st->cpus, st->count);
		if (PTR_ERR_OR_ZERO(new) == -ENODEV)
			continue;
		if (IS_ERR(new))
			new = NULL;
		if (fs_rss_equal(old, new)) {
			kvfree(new);
			continue;
		}
		rcu_assign_pointer(st->rss, new);
		if (old) {
			synchronize_rcu();
			kvfree(old);
		}
	}
	rtnl_unlock();
	if (again)
		queue_delayed_work(system_unbound_wq, &fs_steer_work, FS_STEER_REFRESH);
}

static void fs_steer_free(struct fs_steer *st)
{
	kvfree(rcu_dereference_protected(st->rss, true));
	kvfree(st->classes);
	kvfree(st->cpus);
	kfree(st);
}

static void fs_steer_free_rcu(struct rcu_head *rcu)
{
	fs_steer_free(container_of(rcu, struct fs_steer, rcu));
}

/* Of one device, or of all. */
static void fs_steer_remove(const struct net_device *dev)
{
	struct fs_steer *st, *tmp;

	ASSERT_RTNL();
	list_for_each_entry_safe(st, tmp, &fs_steers, list) {
		if (dev && st->dev != dev)
			continue;
		list_del(&st->list);
		list_del_rcu(&st->of_net);
		call_rcu(&st->rcu, fs_steer_free_rcu);
	}
}

static struct fs_steer *fs_steer_alloc(const struct fastsocket_steer *arg,
				       const s32 *cpus)
{
	struct fs_steer *st = kzalloc(sizeof(*st), GFP_KERNEL_ACCOUNT);
	u32 i;

	if (!st)
		return NULL;
	st->mode = arg->mode;
	st->count = arg->count;
	st->cpus = kvmalloc_array(arg->count, sizeof(*cpus), GFP_KERNEL_ACCOUNT);
	st->classes = kvmalloc_array(arg->count, sizeof(*st->classes), GFP_KERNEL_ACCOUNT);
	if (!st->cpus || !st->classes) {
		fs_steer_free(st);
		return NULL;
	}
	memcpy(st->cpus, cpus, array_size(arg->count, sizeof(*cpus)));
	for (i = 0; i < arg->count; i++)
		st->classes[i] = i;
	sort_r(st->classes, arg->count, sizeof(*st->classes), fs_class_cmp, NULL,
	       st->cpus);
	return st;
}

static int fs_steer_check(const struct fastsocket_steer *arg, const s32 *cpus)
{
	u32 i;

	if (arg->flags || arg->count > FS_STEER_MAX)
		return -EINVAL;
	switch (arg->mode) {
	case FASTSOCKET_STEER_OFF:
		return arg->count ? -EINVAL : 0;
	case FASTSOCKET_STEER_PORT:
		if (!is_power_of_2(arg->count))
			return -EINVAL;
		break;
	case FASTSOCKET_STEER_RSS:
		if (!arg->count)
			return -EINVAL;
		break;
	default:
		return -EINVAL;
	}
	for (i = 0; i < arg->count; i++)
		if (cpus[i] != -1 &&
		    (cpus[i] < 0 || cpus[i] >= nr_cpu_ids || !cpu_possible(cpus[i])))
			return -EINVAL;
	return 0;
}

/**
 * fs_steer_set() - take note of how a device has been set up
 * @net: the caller's namespace, in which it has CAP_NET_ADMIN
 * @arg: see &struct fastsocket_steer
 * @cpus: @arg->count CPUs
 *
 * Context: process; takes the RTNL.
 * Return: 0 or an errno of &struct fastsocket_steer.
 */
int fs_steer_set(struct net *net, const struct fastsocket_steer *arg,
		 const s32 *cpus)
{
	struct fs_steer *st = NULL;
	struct net_device *dev;
	struct fs_rss *rss;
	int err;

	err = fs_steer_check(arg, cpus);
	if (err)
		return err;
	if (arg->mode != FASTSOCKET_STEER_OFF) {
		st = fs_steer_alloc(arg, cpus);
		if (!st)
			return -ENOMEM;
	}

	rtnl_lock();
	err = -ENODEV;
	dev = __dev_get_by_index(net, arg->ifindex);
	if (!dev)
		goto fail;
	if (arg->mode == FASTSOCKET_STEER_RSS) {
		rss = fs_rss_read(dev, st->cpus, st->count);
		if (IS_ERR(rss)) {
			err = PTR_ERR(rss);
			goto fail;
		}
		RCU_INIT_POINTER(st->rss, rss);
	}
	fs_steer_remove(dev);
	if (st) {
		st->dev = dev;
		st->ifindex = dev->ifindex;
		list_add_tail(&st->list, &fs_steers);
		list_add_tail_rcu(&st->of_net, &fs_net(net)->steers);
	}
	rtnl_unlock();
	if (arg->mode == FASTSOCKET_STEER_RSS)
		mod_delayed_work(system_unbound_wq, &fs_steer_work, FS_STEER_REFRESH);
	return 0;

fail:
	rtnl_unlock();
	if (st)
		fs_steer_free(st);
	return err;
}

static const struct fs_steer *fs_steer_find(const struct net *net, int ifindex)
{
	const struct fs_steer *st;

	list_for_each_entry_rcu(st, &fs_net(net)->steers, of_net)
		if (st->ifindex == ifindex)
			return st;
	return NULL;
}

/**
 * fs_ports_init() - the ports of a range whose replies come to one CPU
 * @ports: to be filled
 * @flow: the connection's addresses and the peer's port
 * @ifindex: the device of its route
 * @cpu: the CPU
 * @low: first port of the range
 * @high: last one
 *
 * Context: RCU read side.
 * Return: false where no port is.
 */
bool fs_ports_init(struct fs_ports *ports, const struct fs_flow *flow, int ifindex, int cpu,
		   int low, int high)
{
	const struct fs_steer *st = fs_steer_find(flow->net, ifindex);
	const struct fs_rss *rss;

	*ports = (struct fs_ports){ .cpu = cpu, .low = low, .high = high };
	/* Nobody knows; but CPUs with ports of their own seldom meet. */
	if (!st)
		return fs_ports_by_number(ports, roundup_pow_of_two(nr_cpu_ids));
	if (st->mode == FASTSOCKET_STEER_PORT)
		return fs_ports_by_class(ports, st->classes, st->cpus, st->count);
	rss = rcu_dereference(st->rss);
	return rss && fs_ports_by_rss(ports, rss, flow);
}

/**
 * fs_steer_show() - the devices of a namespace that have been set up
 * @seq: where to
 * @net: the namespace
 */
void fs_steer_show(struct seq_file *seq, const struct net *net)
{
	const struct fs_steer *st;
	u32 i;

	seq_puts(seq, "ifindex name mode count cpus\n");
	rtnl_lock();
	list_for_each_entry(st, &fs_net(net)->steers, of_net) {
		seq_printf(seq, "%d %s %s %u ", st->ifindex, st->dev->name,
			   st->mode == FASTSOCKET_STEER_PORT ? "port" : "rss",
			   st->count);
		for (i = 0; i < st->count; i++)
			seq_printf(seq, "%s%d", i ? "," : "", st->cpus[i]);
		seq_putc(seq, '\n');
	}
	rtnl_unlock();
}

static int fs_steer_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	if (event == NETDEV_UNREGISTER)
		fs_steer_remove(netdev_notifier_info_to_dev(ptr));
	return NOTIFY_DONE;
}

static struct notifier_block fs_steer_notifier = {
	.notifier_call = fs_steer_event,
};

int fs_steer_init(void)
{
	return register_netdevice_notifier(&fs_steer_notifier);
}

/* At module exit: no ioctl leads here any more. */
void fs_steer_exit(void)
{
	unregister_netdevice_notifier(&fs_steer_notifier);
	rtnl_lock();
	fs_steer_remove(NULL);
	rtnl_unlock();
	cancel_delayed_work_sync(&fs_steer_work);
	rcu_barrier();
}
