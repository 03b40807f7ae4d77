// SPDX-License-Identifier: GPL-2.0
/* What ethtool shows and sets. */

#include <linux/ethtool.h>
#include <linux/rtnetlink.h>

#include "rssnic.h"

#define RSSNIC_PORTS	(RXH_L4_B_0_1 | RXH_L4_B_2_3)

static const char * const rssnic_queue_stats[] = {
	"rx_queue_%u_packets", "rx_queue_%u_bytes", "rx_queue_%u_drops",
	"tx_queue_%u_packets", "tx_queue_%u_bytes",
};

static const char rssnic_stats[][ETH_GSTRING_LEN] = { "rx_filter_drops", "tx_no_peer_drops" };

/* As one whose registers can be read between these two only. */
static int rssnic_begin(struct net_device *dev)
{
	struct rssnic *nic = netdev_priv(dev);

	nic->awake = true;
	return 0;
}

static void rssnic_complete(struct net_device *dev)
{
	struct rssnic *nic = netdev_priv(dev);

	nic->awake = false;
}

static void rssnic_get_drvinfo(struct net_device *dev, struct ethtool_drvinfo *info)
{
	strscpy(info->driver, "rssnic", sizeof(info->driver));
	strscpy(info->fw_version, "none", sizeof(info->fw_version));
	strscpy(info->bus_info, dev_name(dev->dev.parent), sizeof(info->bus_info));
}

static int rssnic_get_link_ksettings(struct net_device *dev,
				     struct ethtool_link_ksettings *settings)
{
	settings->base.speed = SPEED_10000;
	settings->base.duplex = DUPLEX_FULL;
	settings->base.port = PORT_FIBRE;
	settings->base.autoneg = AUTONEG_DISABLE;
	return 0;
}

static int rssnic_get_sset_count(struct net_device *dev, int sset)
{
	struct rssnic *nic = netdev_priv(dev);

	if (sset != ETH_SS_STATS)
		return -EOPNOTSUPP;
	return ARRAY_SIZE(rssnic_stats) + nic->max_queues * ARRAY_SIZE(rssnic_queue_stats);
}

/* All that there can be, as their number must not change between two calls. */
static void rssnic_get_strings(struct net_device *dev, u32 sset, u8 *data)
{
	struct rssnic *nic = netdev_priv(dev);
	unsigned int i, n;

	if (sset != ETH_SS_STATS)
		return;
	memcpy(data, rssnic_stats, sizeof(rssnic_stats));
	data += sizeof(rssnic_stats);
	for (i = 0; i < nic->max_queues; i++)
		for (n = 0; n < ARRAY_SIZE(rssnic_queue_stats); n++)
			ethtool_sprintf(&data, rssnic_queue_stats[n], i);
}

static void rssnic_get_ethtool_stats(struct net_device *dev, struct ethtool_stats *stats,
				     u64 *data)
{
	struct rssnic *nic = netdev_priv(dev);
	unsigned int i;

	*data++ = atomic64_read(&nic->filter_drops);
	*data++ = atomic64_read(&nic->tx_drops);
	for (i = 0; i < nic->max_queues; i++, data += ARRAY_SIZE(rssnic_queue_stats)) {
		struct rssnic_queue *queue = &nic->queue[i];

		rssnic_read_counter(&queue->rx, &data[0], &data[1]);
		data[2] = atomic64_read(&queue->rx_drops);
		rssnic_read_counter(&queue->tx, &data[3], &data[4]);
	}
}

static void rssnic_get_channels(struct net_device *dev, struct ethtool_channels *channels)
{
	struct rssnic *nic = netdev_priv(dev);

	channels->max_combined = nic->max_queues;
	channels->combined_count = nic->queues;
}

static int rssnic_set_channels(struct net_device *dev, struct ethtool_channels *channels)
{
	struct rssnic *nic = netdev_priv(dev);
	unsigned int queues = channels->combined_count;

	if (!queues || channels->rx_count || channels->tx_count || channels->other_count)
		return -EINVAL;
	if (queues == nic->queues)
		return 0;
	/* The core has looked whether a table that has been set needs more. */
	if (rssnic_rules_use(nic, queues))
		return -EINVAL;
	return rssnic_set_queues(dev, queues);
}

static void rssnic_get_ringparam(struct net_device *dev, struct ethtool_ringparam *ring,
				 struct kernel_ethtool_ringparam *kernel_ring,
				 struct netlink_ext_ack *extack)
{
	struct rssnic *nic = netdev_priv(dev);

	ring->rx_max_pending = RSSNIC_RING_MAX;
	ring->tx_max_pending = RSSNIC_RING_MAX;
	ring->rx_pending = nic->rx_ring;
	ring->tx_pending = nic->tx_ring;
}

static int rssnic_set_ringparam(struct net_device *dev, struct ethtool_ringparam *ring,
				struct kernel_ethtool_ringparam *kernel_ring,
				struct netlink_ext_ack *extack)
{
	struct rssnic *nic = netdev_priv(dev);
	int err = 0;

	if (ring->rx_mini_pending || ring->rx_jumbo_pending ||
	    ring->rx_pending < RSSNIC_RING_MIN || ring->tx_pending < RSSNIC_RING_MIN)
		return -EINVAL;
	if (ring->rx_pending != nic->rx_ring)
		err = rssnic_set_ring(dev, ring->rx_pending);
	if (!err)
		nic->tx_ring = ring->tx_pending;
	return err;
}

static int rssnic_get_coalesce(struct net_device *dev, struct ethtool_coalesce *coalesce,
			       struct kernel_ethtool_coalesce *kernel_coalesce,
			       struct netlink_ext_ack *extack)
{
	struct rssnic *nic = netdev_priv(dev);

	*coalesce = nic->coalesce;
	return 0;
}

static int rssnic_set_coalesce(struct net_device *dev, struct ethtool_coalesce *coalesce,
			       struct kernel_ethtool_coalesce *kernel_coalesce,
			       struct netlink_ext_ack *extack)
{
	struct rssnic *nic = netdev_priv(dev);

	nic->coalesce = *coalesce;
	return 0;
}

static u32 rssnic_get_rxfh_key_size(struct net_device *dev)
{
	return RSSNIC_KEY_SIZE;
}

static u32 rssnic_get_rxfh_indir_size(struct net_device *dev)
{
	return RSSNIC_INDIR_SIZE;
}

static int rssnic_read_rxfh(struct net_device *dev, u32 *indir, u8 *key, u8 *hfunc)
{
	struct rssnic *nic = netdev_priv(dev);
	const struct rssnic_rss *rss = rtnl_dereference(nic->rss);
	unsigned int i;

	if (!nic->awake)
		return -EIO;
	for (i = 0; indir && i < RSSNIC_INDIR_SIZE; i++)
		indir[i] = rss->indir[i];
	if (key)
		memcpy(key, rss->key, sizeof(rss->key));
	if (hfunc)
		*hfunc = ETH_RSS_HASH_TOP;
	return 0;
}

static int rssnic_write_rxfh(struct net_device *dev, const u32 *indir, const u8 *key, u8 hfunc)
{
	struct rssnic *nic = netdev_priv(dev);
	struct rssnic_rss *rss;
	unsigned int i;

	if (hfunc != ETH_RSS_HASH_NO_CHANGE && hfunc != ETH_RSS_HASH_TOP)
		return -EOPNOTSUPP;
	rss = rssnic_rss_copy(nic);
	if (!rss)
		return -ENOMEM;
	for (i = 0; indir && i < RSSNIC_INDIR_SIZE; i++)
		rss->indir[i] = indir[i];
	if (key)
		memcpy(rss->key, key, sizeof(rss->key));
	rssnic_rss_replace(nic, rss);
	return 0;
}

#ifdef RSSNIC_HAVE_RXFH_PARAM
static int rssnic_get_rxfh(struct net_device *dev, struct ethtool_rxfh_param *rxfh)
{
	return rssnic_read_rxfh(dev, rxfh->indir, rxfh->key, &rxfh->hfunc);
}

static int rssnic_set_rxfh(struct net_device *dev, struct ethtool_rxfh_param *rxfh,
			   struct netlink_ext_ack *extack)
{
	return rssnic_write_rxfh(dev, rxfh->indir, rxfh->key, rxfh->hfunc);
}
#else
#define rssnic_get_rxfh		rssnic_read_rxfh
#define rssnic_set_rxfh		rssnic_write_rxfh
#endif

/* The fields that the packets of a flow type are hashed by. */
static int rssnic_flow_type(u32 flow_type, enum rssnic_type *type)
{
	switch (flow_type) {
	case TCP_V4_FLOW:
		*type = RSSNIC_TCP4;
		return 0;
	case UDP_V4_FLOW:
		*type = RSSNIC_UDP4;
		return 0;
	case TCP_V6_FLOW:
		*type = RSSNIC_TCP6;
		return 0;
	case UDP_V6_FLOW:
		*type = RSSNIC_UDP6;
		return 0;
	case IPV4_FLOW:
	case SCTP_V4_FLOW:
	case AH_V4_FLOW:
	case ESP_V4_FLOW:
	case AH_ESP_V4_FLOW:
		*type = RSSNIC_OTHER4;
		return 0;
	case IPV6_FLOW:
	case SCTP_V6_FLOW:
	case AH_V6_FLOW:
	case ESP_V6_FLOW:
	case AH_ESP_V6_FLOW:
		*type = RSSNIC_OTHER6;
		return 0;
	}
	return -EINVAL;
}

static int rssnic_get_fields(struct rssnic *nic, struct ethtool_rxnfc *info)
{
	enum rssnic_type type;
	int err;

	err = rssnic_flow_type(info->flow_type, &type);
	if (err)
		return err;
	info->data = RXH_IP_SRC | RXH_IP_DST;
	if (type < RSSNIC_L4_TYPES && rtnl_dereference(nic->rss)->ports[type])
		info->data |= RSSNIC_PORTS;
	return 0;
}

static int rssnic_set_fields(struct rssnic *nic, const struct ethtool_rxnfc *info)
{
	u64 ports = info->data & ~(u64)(RXH_IP_SRC | RXH_IP_DST);
	enum rssnic_type type;
	struct rssnic_rss *rss;
	int err;

	err = rssnic_flow_type(info->flow_type, &type);
	if (err)
		return err;
	if ((info->data ^ ports) != (RXH_IP_SRC | RXH_IP_DST) ||
	    (ports && (ports != RSSNIC_PORTS || type >= RSSNIC_L4_TYPES)))
		return -EINVAL;
	if (type >= RSSNIC_L4_TYPES)
		return 0;
	rss = rssnic_rss_copy(nic);
	if (!rss)
		return -ENOMEM;
	rss->ports[type] = ports;
	rssnic_rss_replace(nic, rss);
	return 0;
}

static int rssnic_get_rules(struct rssnic *nic, struct ethtool_rxnfc *info, u32 *locations)
{
	const struct rssnic_rules *rules = rtnl_dereference(nic->rules);
	unsigned int i, count = rules ? rules->count : 0;

	switch (info->cmd) {
	case ETHTOOL_GRXCLSRLCNT:
		info->rule_cnt = count;
		info->data = RSSNIC_MAX_RULES | RX_CLS_LOC_SPECIAL;
		return 0;
	case ETHTOOL_GRXCLSRULE:
		for (i = 0; i < count; i++) {
			if (rules->rule[i]->spec.location == info->fs.location) {
				info->fs = rules->rule[i]->spec;
				return 0;
			}
		}
		return -ENOENT;
	default:	/* ETHTOOL_GRXCLSRLALL */
		if (info->rule_cnt < count)
			return -EMSGSIZE;
		for (i = 0; i < count; i++)
			locations[i] = rules->rule[i]->spec.location;
		info->rule_cnt = count;
		info->data = RSSNIC_MAX_RULES;
		return 0;
	}
}

static int rssnic_get_rxnfc(struct net_device *dev, struct ethtool_rxnfc *info, u32 *locations)
{
	struct rssnic *nic = netdev_priv(dev);

	switch (info->cmd) {
	case ETHTOOL_GRXRINGS:
		info->data = nic->queues;
		return 0;
	case ETHTOOL_GRXFH:
		if (nic->lacks & RSSNIC_LACKS_RSS)
			return -EOPNOTSUPP;
		return rssnic_get_fields(nic, info);
	case ETHTOOL_GRXCLSRLCNT:
	case ETHTOOL_GRXCLSRULE:
	case ETHTOOL_GRXCLSRLALL:
		if (nic->lacks & RSSNIC_LACKS_NTUPLE)
			return -EOPNOTSUPP;
		return rssnic_get_rules(nic, info, locations);
	}
	return -EOPNOTSUPP;
}

static int rssnic_set_rxnfc(struct net_device *dev, struct ethtool_rxnfc *info)
{
	struct rssnic *nic = netdev_priv(dev);

	switch (info->cmd) {
	case ETHTOOL_SRXFH:
		if (nic->lacks & RSSNIC_LACKS_RSS)
			return -EOPNOTSUPP;
		return rssnic_set_fields(nic, info);
	case ETHTOOL_SRXCLSRLINS:
		if (!(dev->features & NETIF_F_NTUPLE))
			return -EOPNOTSUPP;
		return rssnic_rule_add(nic, &info->fs);
	case ETHTOOL_SRXCLSRLDEL:
		if (nic->lacks & RSSNIC_LACKS_NTUPLE)
			return -EOPNOTSUPP;
		return rssnic_rule_delete(nic, info->fs.location);
	}
	return -EOPNOTSUPP;
}

static const struct ethtool_ops rssnic_ethtool_ops = {
	.supported_coalesce_params = ETHTOOL_COALESCE_RX_USECS |
				     ETHTOOL_COALESCE_RX_MAX_FRAMES |
				     ETHTOOL_COALESCE_TX_USECS |
				     ETHTOOL_COALESCE_USE_ADAPTIVE_RX,
	.begin			= rssnic_begin,
	.complete		= rssnic_complete,
	.get_drvinfo		= rssnic_get_drvinfo,
	.get_link		= ethtool_op_get_link,
	.get_link_ksettings	= rssnic_get_link_ksettings,
	.get_ts_info		= ethtool_op_get_ts_info,
	.get_sset_count		= rssnic_get_sset_count,
	.get_strings		= rssnic_get_strings,
	.get_ethtool_stats	= rssnic_get_ethtool_stats,
	.get_channels		= rssnic_get_channels,
	.set_channels		= rssnic_set_channels,
	.get_ringparam		= rssnic_get_ringparam,
	.set_ringparam		= rssnic_set_ringparam,
	.get_coalesce		= rssnic_get_coalesce,
	.set_coalesce		= rssnic_set_coalesce,
	.get_rxfh_key_size	= rssnic_get_rxfh_key_size,
	.get_rxfh_indir_size	= rssnic_get_rxfh_indir_size,
	.get_rxfh		= rssnic_get_rxfh,
	.set_rxfh		= rssnic_set_rxfh,
	.get_rxnfc		= rssnic_get_rxnfc,
	.set_rxnfc		= rssnic_set_rxnfc,
};

/* A driver of a device that lacks something has no operation for it. */
void rssnic_ethtool_init(struct net_device *dev)
{
	struct rssnic *nic = netdev_priv(dev);
	struct ethtool_ops *ops = &nic->ethtool_ops;

	*ops = rssnic_ethtool_ops;
	if (nic->lacks & RSSNIC_LACKS_RSS) {
		ops->get_rxfh_key_size = NULL;
		ops->get_rxfh_indir_size = NULL;
		ops->get_rxfh = NULL;
		ops->set_rxfh = NULL;
	}
	if (nic->lacks & RSSNIC_LACKS_CHANNELS) {
		ops->get_channels = NULL;
		ops->set_channels = NULL;
	}
	if (nic->lacks & RSSNIC_LACKS_COALESCE) {
		ops->get_coalesce = NULL;
		ops->set_coalesce = NULL;
		ops->supported_coalesce_params = 0;
	}
	if (nic->lacks & RSSNIC_LACKS_RINGS) {
		ops->get_ringparam = NULL;
		ops->set_ringparam = NULL;
	}
	nic->coalesce.rx_coalesce_usecs = 3;
	nic->coalesce.tx_coalesce_usecs = 3;
	dev->ethtool_ops = ops;
}
