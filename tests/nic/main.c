// SPDX-License-Identifier: GPL-2.0
/* The devices: a pair, made and deleted together, and the way of a packet. */

#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/etherdevice.h>
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include <net/net_namespace.h>
#include <net/rtnetlink.h>

#include "rssnic.h"

static unsigned int queues;
module_param(queues, uint, 0644);
MODULE_PARM_DESC(queues, "channels that a new device can have, at most 64 (0: one per possible CPU)");

static const char * const rssnic_features[] = {
	"ntuple", "rss", "channels", "coalesce", "rings",
};

static bool dma;
module_param(dma, bool, 0644);
MODULE_PARM_DESC(dma, "receive a copy of each packet, and let the sender free its own, as with real DMA");

static unsigned int lacks;

static int rssnic_lacks_set(const char *val, const struct kernel_param *kp)
{
	char *copy = kstrdup(val, GFP_KERNEL), *rest, *word;
	unsigned int mask = 0;
	int i, err = 0;

	if (!copy)
		return -ENOMEM;
	rest = strim(copy);
	while ((word = strsep(&rest, ","))) {
		if (!*word)
			continue;
		i = match_string(rssnic_features, ARRAY_SIZE(rssnic_features), word);
		if (i < 0) {
			err = -EINVAL;
			break;
		}
		mask |= BIT(i);
	}
	kfree(copy);
	if (!err)
		WRITE_ONCE(lacks, mask);
	return err;
}

static int rssnic_lacks_get(char *buf, const struct kernel_param *kp)
{
	int i, len = 0;

	for (i = 0; i < ARRAY_SIZE(rssnic_features); i++)
		if (lacks & BIT(i))
			len += sysfs_emit_at(buf, len, "%s%s", len ? "," : "", rssnic_features[i]);
	return len + sysfs_emit_at(buf, len, "\n");
}

static const struct kernel_param_ops rssnic_lacks_ops = {
	.set = rssnic_lacks_set,
	.get = rssnic_lacks_get,
};

module_param_cb(lacks, &rssnic_lacks_ops, NULL, 0644);
MODULE_PARM_DESC(lacks, "what new devices do without: ntuple,rss,channels,coalesce,rings");

static void rssnic_count(struct rssnic_counter *counter, unsigned int packets,
			 unsigned int bytes)
{
	u64_stats_update_begin(&counter->syncp);
	u64_stats_add(&counter->packets, packets);
	u64_stats_add(&counter->bytes, bytes);
	u64_stats_update_end(&counter->syncp);
}

void rssnic_read_counter(const struct rssnic_counter *counter, u64 *packets, u64 *bytes)
{
	unsigned int start;

	do {
		start = u64_stats_fetch_begin(&counter->syncp);
		*packets = u64_stats_read(&counter->packets);
		*bytes = u64_stats_read(&counter->bytes);
	} while (u64_stats_fetch_retry(&counter->syncp, start));
}

/* On the wire a GSO packet would have been so many. */
static unsigned int rssnic_segments(const struct sk_buff *skb)
{
	return skb_shinfo(skb)->gso_segs ?: 1;
}

/* No interrupt comes before rssnic_unmask(). */
static void rssnic_notify(struct rssnic_queue *queue)
{
	/* A full barrier: the packet is in the ring before this is looked at. */
	if (!test_and_set_bit(RSSNIC_MASKED, &queue->state))
		rssnic_irq_raise(queue);
}

static void rssnic_unmask(struct rssnic_queue *queue)
{
	clear_bit(RSSNIC_MASKED, &queue->state);
	/* Pairs with rssnic_notify(): one of the two sees what the other did. */
	smp_mb__after_atomic();
	if (!__ptr_ring_empty(&queue->ring))
		rssnic_notify(queue);
}

/*
 * As a real card would have done it: what the receiving CPU gets is in memory of
 * its own, and the sender's memory is freed where it sends. A function by
 * itself, so that what it costs can be told from what the stack does.
 */
static noinline struct sk_buff *rssnic_receive(struct rssnic *nic, struct sk_buff *skb)
{
	struct rssnic *peer;
	struct sk_buff *copy = skb_copy(skb, GFP_ATOMIC);

	if (unlikely(!copy))
		return skb;
	rcu_read_lock();
	peer = rcu_dereference(nic->peer);
	if (!peer || ptr_ring_produce_any(&peer->queue[rssnic_cb(skb)->tx].sent, skb))
		consume_skb(skb);
	rcu_read_unlock();
	return copy;
}

static int rssnic_poll(struct napi_struct *napi, int budget)
{
	struct rssnic_queue *queue = container_of(napi, struct rssnic_queue, napi);
	unsigned int packets = 0, bytes = 0;
	struct sk_buff *skb;
	int done = 0;

	while (done < budget && (skb = __ptr_ring_consume(&queue->ring))) {
		done++;
		packets += rssnic_segments(skb);
		bytes += skb->len;
		if (READ_ONCE(dma))
			skb = rssnic_receive(netdev_priv(queue->dev), skb);
		skb->protocol = eth_type_trans(skb, queue->dev);
		/* GRO writes to headers, and the sender may send these again. */
		if (unlikely(skb_unclone(skb, GFP_ATOMIC)))
			netif_receive_skb(skb);
		else
			napi_gro_receive(napi, skb);
	}
	if (done)
		rssnic_count(&queue->rx, packets, bytes);

	if (done < budget) {
		if (napi_complete_done(napi, done))
			rssnic_unmask(queue);
	} else if (budget && unlikely(smp_processor_id() != READ_ONCE(queue->cpu))) {
		/* The affinity has changed under load: let an interrupt take it there. */
		done = budget - 1;
		if (napi_complete_done(napi, done))
			rssnic_unmask(queue);
	}
	return done;
}

/* Onto the wire. Not part of what the stack costs the sender, either. */
static noinline bool rssnic_post(struct rssnic_queue *queue, struct sk_buff *skb)
{
	if (unlikely(ptr_ring_produce_any(&queue->ring, skb))) {
		atomic64_inc(&queue->rx_drops);
		return false;
	}
	rssnic_notify(queue);
	return true;
}

/* Under the tx queue's lock, so there is one consumer. */
static noinline void rssnic_free_sent(struct rssnic_queue *tx)
{
	struct sk_buff *skb;

	while ((skb = __ptr_ring_consume(&tx->sent)))
		consume_skb(skb);
}

/*
 * As in veth, checksums yet to be made and packets yet to be segmented are
 * handed over as they are: this wire breaks nothing. Without TSO the core
 * segments before it comes here. Sending is complete at once.
 */
static netdev_tx_t rssnic_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct rssnic *nic = netdev_priv(dev), *peer;
	struct rssnic_queue *tx = &nic->queue[skb_get_queue_mapping(skb)];
	unsigned int packets = rssnic_segments(skb), bytes = skb->len;
	int index;

	rssnic_free_sent(tx);
	rcu_read_lock();
	peer = rcu_dereference(nic->peer);
	if (unlikely(!peer || !READ_ONCE(peer->up)) || !pskb_may_pull(skb, ETH_HLEN) ||
	    !is_skb_forwardable(peer->dev, skb) || skb_orphan_frags(skb, GFP_ATOMIC)) {
		atomic64_inc(&nic->tx_drops);
		goto drop;
	}
	skb_tx_timestamp(skb);
	rssnic_count(&tx->tx, packets, bytes);

	/* Nothing but the packet goes over a wire. */
	skb_orphan(skb);
	skb_scrub_packet(skb, true);
	skb->priority = 0;
	if (skb->ip_summed != CHECKSUM_PARTIAL)
		skb->ip_summed = CHECKSUM_NONE;
	skb->dev = peer->dev;

	index = rssnic_steer(peer, skb);
	if (index < 0) {
		atomic64_inc(&peer->filter_drops);
		goto drop;
	}
	rssnic_cb(skb)->tx = skb_get_queue_mapping(skb);
	skb_record_rx_queue(skb, index);
	if (!rssnic_post(&peer->queue[index], skb))
		goto drop;
	rcu_read_unlock();
	return NETDEV_TX_OK;

drop:
	rcu_read_unlock();
	dev_kfree_skb_any(skb);
	return NETDEV_TX_OK;
}

/* It was in a ring that goes or shrinks. */
static void rssnic_drop(void *data)
{
	struct sk_buff *skb = data;
	struct rssnic *nic = netdev_priv(skb->dev);

	atomic64_inc(&nic->queue[skb_get_rx_queue(skb)].rx_drops);
	dev_kfree_skb_any(skb);
}

/* NAPI has been off, and may have missed an interrupt. */
static void rssnic_kick(struct rssnic_queue *queue)
{
	set_bit(RSSNIC_MASKED, &queue->state);
	rssnic_irq_raise(queue);
}

static void rssnic_queue_tell_napi(struct rssnic_queue *queue, struct napi_struct *napi)
{
#ifdef RSSNIC_HAVE_QUEUE_SET_NAPI
	netif_queue_set_napi(queue->dev, queue->index, NETDEV_QUEUE_TYPE_RX, napi);
	netif_queue_set_napi(queue->dev, queue->index, NETDEV_QUEUE_TYPE_TX, napi);
#endif
}

static int rssnic_queue_up(struct rssnic_queue *queue)
{
	struct rssnic *nic = netdev_priv(queue->dev);
	int err;

	err = ptr_ring_init(&queue->ring, nic->rx_ring, GFP_KERNEL);
	if (err)
		return err;
	netif_napi_add(queue->dev, &queue->napi, rssnic_poll);
#ifdef RSSNIC_HAVE_NAPI_SET_IRQ
	netif_napi_set_irq(&queue->napi, queue->irq);
#endif
	err = rssnic_irq_request(queue);
	if (err) {
		netif_napi_del(&queue->napi);
		ptr_ring_cleanup(&queue->ring, NULL);
		return err;
	}
	napi_enable(&queue->napi);
	rssnic_queue_tell_napi(queue, &queue->napi);
	rssnic_kick(queue);
	return 0;
}

/* Nobody posts to it any more. */
static void rssnic_queue_down(struct rssnic_queue *queue)
{
	rssnic_queue_tell_napi(queue, NULL);
	napi_disable(&queue->napi);
	rssnic_irq_release(queue);
	netif_napi_del(&queue->napi);
	ptr_ring_cleanup(&queue->ring, rssnic_drop);
}

static void rssnic_queues_down(struct rssnic *nic, unsigned int from, unsigned int to)
{
	while (to > from)
		rssnic_queue_down(&nic->queue[--to]);
}

static int rssnic_queues_up(struct rssnic *nic, unsigned int from, unsigned int to)
{
	unsigned int i;
	int err;

	for (i = from; i < to; i++) {
		err = rssnic_queue_up(&nic->queue[i]);
		if (err) {
			rssnic_queues_down(nic, from, i);
			return err;
		}
	}
	return 0;
}

/* What has been posted is received, if only within a second. */
static void rssnic_queues_drain(struct rssnic *nic, unsigned int from, unsigned int to)
{
	for (; from < to; from++) {
		int tries = 1000;

		while (!__ptr_ring_empty(&nic->queue[from].ring) && tries--)
			usleep_range(1000, 1100);
	}
}

/**
 * rssnic_set_queues - change the number of channels, also under traffic
 * @dev: the device
 * @queues: how many; nothing refers to a queue that goes, but a default table
 *
 * Return: 0 or a negative error.
 */
int rssnic_set_queues(struct net_device *dev, unsigned int queues)
{
	struct rssnic *nic = netdev_priv(dev);
	unsigned int old = nic->queues;
	struct rssnic_rss *rss = NULL;
	int err;

	if (!netif_is_rxfh_configured(dev)) {
		rss = rssnic_rss_copy(nic);
		if (!rss)
			return -ENOMEM;
		rssnic_rss_spread(rss, queues);
	}
	if (queues > old) {
		err = nic->up ? rssnic_queues_up(nic, old, queues) : 0;
		if (err)
			goto err_free;
		err = netif_set_real_num_queues(dev, queues, queues);
		if (err)
			goto err_down;
	}
	nic->queues = queues;
	if (rss)
		rssnic_rss_replace(nic, rss);
	if (queues > old)
		return 0;

	if (nic->up) {
		synchronize_net();
		rssnic_queues_drain(nic, queues, old);
		rssnic_queues_down(nic, queues, old);
	}
	/* After the last packet from them: RPS warns of a queue that is not there. */
	return netif_set_real_num_queues(dev, queues, queues);

err_down:
	if (nic->up)
		rssnic_queues_down(nic, old, queues);
err_free:
	kfree(rss);
	return err;
}

/* Give each ring another capacity; what does not fit a smaller one is dropped. */
int rssnic_set_ring(struct net_device *dev, unsigned int size)
{
	struct rssnic *nic = netdev_priv(dev);
	unsigned int i;
	int err = 0;

	for (i = 0; nic->up && i < nic->queues && !err; i++) {
		struct rssnic_queue *queue = &nic->queue[i];

		napi_disable(&queue->napi);
		err = ptr_ring_resize(&queue->ring, size, GFP_KERNEL, rssnic_drop);
		napi_enable(&queue->napi);
		rssnic_kick(queue);
	}
	/* After a failure the next start makes them all alike. */
	if (!err)
		nic->rx_ring = size;
	return err;
}

static int rssnic_open(struct net_device *dev)
{
	struct rssnic *nic = netdev_priv(dev), *peer = rtnl_dereference(nic->peer);
	int err;

	if (!peer)
		return -ENOTCONN;
	err = rssnic_queues_up(nic, 0, nic->queues);
	if (err)
		return err;
	/* Packets come from now on. */
	smp_store_release(&nic->up, true);
	netif_tx_start_all_queues(dev);
	if (peer->up) {
		netif_carrier_on(dev);
		netif_carrier_on(peer->dev);
	}
	return 0;
}

static int rssnic_stop(struct net_device *dev)
{
	struct rssnic *nic = netdev_priv(dev), *peer = rtnl_dereference(nic->peer);

	netif_carrier_off(dev);
	if (peer)
		netif_carrier_off(peer->dev);
	WRITE_ONCE(nic->up, false);
	synchronize_net();
	rssnic_queues_down(nic, 0, nic->queues);
	return 0;
}

static void rssnic_get_stats64(struct net_device *dev, struct rtnl_link_stats64 *stats)
{
	struct rssnic *nic = netdev_priv(dev);
	u64 packets, bytes;
	unsigned int i;

	for (i = 0; i < nic->max_queues; i++) {
		struct rssnic_queue *queue = &nic->queue[i];

		rssnic_read_counter(&queue->rx, &packets, &bytes);
		stats->rx_packets += packets;
		stats->rx_bytes += bytes;
		stats->rx_missed_errors += atomic64_read(&queue->rx_drops);
		rssnic_read_counter(&queue->tx, &packets, &bytes);
		stats->tx_packets += packets;
		stats->tx_bytes += bytes;
	}
	stats->rx_dropped = atomic64_read(&nic->filter_drops);
	stats->tx_dropped = atomic64_read(&nic->tx_drops);
}

/* There is no address filter: the stack sorts out what is for others. */
static void rssnic_set_rx_mode(struct net_device *dev)
{
}

static int rssnic_set_features(struct net_device *dev, netdev_features_t features)
{
	if ((dev->features ^ features) & NETIF_F_NTUPLE && !(features & NETIF_F_NTUPLE))
		rssnic_rules_flush(netdev_priv(dev));
	return 0;
}

static void rssnic_free_skb(void *data)
{
	kfree_skb(data);
}

static void rssnic_free_queues(struct rssnic *nic)
{
	unsigned int i;

	for (i = 0; i < nic->max_queues; i++)
		if (nic->queue[i].sent.size)	/* memory may have run out */
			ptr_ring_cleanup(&nic->queue[i].sent, rssnic_free_skb);
	kvfree(nic->queue);
}

static int rssnic_init(struct net_device *dev)
{
	struct rssnic *nic = netdev_priv(dev);
	unsigned int i;
	int err = 0;

	nic->dev = dev;
	nic->max_queues = min3(dev->num_rx_queues, dev->num_tx_queues,
			       (unsigned int)RSSNIC_MAX_QUEUES);
	nic->queues = min(nic->max_queues, num_online_cpus());
	nic->rx_ring = RSSNIC_RING_DEFAULT;
	nic->tx_ring = RSSNIC_RING_DEFAULT;
	nic->queue = kvcalloc(nic->max_queues, sizeof(*nic->queue), GFP_KERNEL);
	if (!nic->queue)
		return -ENOMEM;
	for (i = 0; i < nic->max_queues; i++) {
		struct rssnic_queue *queue = &nic->queue[i];

		queue->dev = dev;
		queue->index = i;
		u64_stats_init(&queue->rx.syncp);
		u64_stats_init(&queue->tx.syncp);
		if (!err)
			err = ptr_ring_init(&queue->sent, RSSNIC_SENT_MAX, GFP_KERNEL);
	}
	if (err)
		goto err_queue;
	err = rssnic_steer_init(nic);
	if (err)
		goto err_queue;
	err = rssnic_irqs_alloc(nic);
	if (err)
		goto err_steer;
	err = netif_set_real_num_queues(dev, nic->queues, nic->queues);
	if (err)
		goto err_irqs;
	netif_carrier_off(dev);
	return 0;

err_irqs:
	rssnic_irqs_free(nic);
err_steer:
	rssnic_steer_free(nic);
err_queue:
	rssnic_free_queues(nic);
	return err;
}

/* After the last reference, and after the device has left its parent. */
static void rssnic_destructor(struct net_device *dev)
{
	struct rssnic *nic = netdev_priv(dev);

	rssnic_irqs_free(nic);
	rssnic_steer_free(nic);
	rssnic_free_queues(nic);
}

static const struct net_device_ops rssnic_netdev_ops = {
	.ndo_init		= rssnic_init,
	.ndo_open		= rssnic_open,
	.ndo_stop		= rssnic_stop,
	.ndo_start_xmit		= rssnic_xmit,
	.ndo_get_stats64	= rssnic_get_stats64,
	.ndo_set_rx_mode	= rssnic_set_rx_mode,
	.ndo_set_features	= rssnic_set_features,
	.ndo_set_mac_address	= eth_mac_addr,
	.ndo_validate_addr	= eth_validate_addr,
};

static void rssnic_setup(struct net_device *dev)
{
	struct rssnic *nic = netdev_priv(dev);

	ether_setup(dev);
	nic->lacks = READ_ONCE(lacks);
	rssnic_ethtool_init(dev);
	dev->netdev_ops = &rssnic_netdev_ops;
	dev->needs_free_netdev = true;
	dev->priv_destructor = rssnic_destructor;
	dev->priv_flags &= ~IFF_TX_SKB_SHARING;
	dev->priv_flags |= IFF_LIVE_ADDR_CHANGE;
	dev->max_mtu = ETH_MAX_MTU;
	dev->hw_features = NETIF_F_SG | NETIF_F_HW_CSUM | NETIF_F_TSO | NETIF_F_TSO6;
	dev->features = dev->hw_features | NETIF_F_HIGHDMA;
	if (!(nic->lacks & RSSNIC_LACKS_NTUPLE))
		dev->hw_features |= NETIF_F_NTUPLE;
}

static unsigned int rssnic_num_queues(void)
{
	return min_t(unsigned int, queues ?: num_possible_cpus(), RSSNIC_MAX_QUEUES);
}

/*
 * The peer is named after the device, with "p" appended: ip passes no options
 * to a kind that it does not know. It can be moved and renamed afterwards.
 */
static int rssnic_newlink(struct net *src_net, struct net_device *dev, struct nlattr *tb[],
			  struct nlattr *data[], struct netlink_ext_ack *extack)
{
	struct nlattr *peer_tb[IFLA_MAX + 1] = {
		[IFLA_NUM_TX_QUEUES] = tb[IFLA_NUM_TX_QUEUES],
		[IFLA_NUM_RX_QUEUES] = tb[IFLA_NUM_RX_QUEUES],
		[IFLA_MTU] = tb[IFLA_MTU],
	};
	struct rssnic *nic = netdev_priv(dev);
	struct net *net = dev_net(dev);
	struct net_device *peer;
	char name[IFNAMSIZ];
	int err;

	if (strchr(dev->name, '%')) {
		err = dev_alloc_name(dev, dev->name);
		if (err < 0)
			return err;
	}
	if (snprintf(name, sizeof(name), "%sp", dev->name) >= sizeof(name)) {
		NL_SET_ERR_MSG(extack, "The name leaves no room for the peer's, which ends in p");
		return -EINVAL;
	}
	peer = rtnl_create_link(net, name, NET_NAME_USER, dev->rtnl_link_ops, peer_tb, extack);
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	eth_hw_addr_random(peer);
	err = register_netdevice(peer);
	if (err) {
		free_netdev(peer);
		return err;
	}
	if (!tb[IFLA_ADDRESS])
		eth_hw_addr_random(dev);
	err = register_netdevice(dev);
	if (err) {
		unregister_netdevice(peer);
		return err;
	}
	rcu_assign_pointer(nic->peer, netdev_priv(peer));
	nic = netdev_priv(peer);
	rcu_assign_pointer(nic->peer, netdev_priv(dev));
	return 0;
}

static void rssnic_dellink(struct net_device *dev, struct list_head *head)
{
	struct rssnic *nic = netdev_priv(dev), *peer = rtnl_dereference(nic->peer);

	RCU_INIT_POINTER(nic->peer, NULL);
	unregister_netdevice_queue(dev, head);
	if (!peer)
		return;		/* it is being deleted, and this with it */
	RCU_INIT_POINTER(peer->peer, NULL);
	unregister_netdevice_queue(peer->dev, head);
}

static struct rtnl_link_ops rssnic_link_ops __read_mostly = {
	.kind			= "rssnic",
	.priv_size		= sizeof(struct rssnic),
	.setup			= rssnic_setup,
	.newlink		= rssnic_newlink,
	.dellink		= rssnic_dellink,
	.get_num_tx_queues	= rssnic_num_queues,
	.get_num_rx_queues	= rssnic_num_queues,
};

static int __init rssnic_module_init(void)
{
	return rtnl_link_register(&rssnic_link_ops);
}

static void __exit rssnic_module_exit(void)
{
	rtnl_link_unregister(&rssnic_link_ops);
}

module_init(rssnic_module_init);
module_exit(rssnic_module_exit);

MODULE_DESCRIPTION("Pair of virtual multi-queue network devices with RSS and n-tuple filters");
MODULE_LICENSE("GPL");
MODULE_ALIAS_RTNL_LINK("rssnic");
