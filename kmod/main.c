// SPDX-License-Identifier: GPL-2.0
/*
 * Load and unload, network namespaces and their sysctls.
 */
#include <linux/module.h>
#include <linux/rcupdate.h>

#include "local.h"

/* Longer than a busy worker's rounds, no longer than a lost SYN takes. */
#define FS_ACCEPT_PATIENCE	500

unsigned int fs_net_id;

static const struct ctl_table fs_sysctls[] = {
	{
		.procname = "listen_spawn",
		.maxlen = sizeof(int),
		.mode = 0644,
		.proc_handler = proc_dointvec_minmax,
		.extra1 = SYSCTL_ZERO,
		.extra2 = SYSCTL_TWO,
	},
	{
		.procname = "established",
		.maxlen = sizeof(int),
		.mode = 0644,
		.proc_handler = proc_dointvec_minmax,
		.extra1 = SYSCTL_ZERO,
		.extra2 = SYSCTL_ONE,
	},
	{
		.procname = "receive_flow_deliver",
		.maxlen = sizeof(int),
		.mode = 0644,
		.proc_handler = proc_dointvec_minmax,
		.extra1 = SYSCTL_ZERO,
		.extra2 = SYSCTL_ONE,
	},
	{
		.procname = "accept_patience",
		.maxlen = sizeof(int),
		.mode = 0644,
		.proc_handler = proc_dointvec_minmax,
		.extra1 = SYSCTL_ZERO,
		.extra2 = SYSCTL_INT_MAX,
	},
};

static int fs_sysctl_init(struct net *net)
{
	struct fs_net *fn = fs_net(net);

	/* An empty entry ends the table where the kernel wants one. */
	fn->table = kcalloc(ARRAY_SIZE(fs_sysctls) + FS_SYSCTL_SENTINEL,
			    sizeof(*fn->table), GFP_KERNEL);
	if (!fn->table)
		return -ENOMEM;
	memcpy(fn->table, fs_sysctls, sizeof(fs_sysctls));
	fn->table[0].data = &fn->listen_spawn;
	fn->table[1].data = &fn->established;
	fn->table[2].data = &fn->receive_flow_deliver;
	fn->table[3].data = &fn->accept_patience;

	fn->sysctl = fs_register_net_sysctl(net, "net/fastsocket", fn->table,
					    ARRAY_SIZE(fs_sysctls));
	if (fn->sysctl)
		return 0;
	kfree(fn->table);
	return -ENOMEM;
}

static void fs_sysctl_exit(struct net *net)
{
	struct fs_net *fn = fs_net(net);

	unregister_net_sysctl_table(fn->sysctl);
	kfree(fn->table);
}

static int __net_init fs_net_init(struct net *net)
{
	struct fs_net *fn = fs_net(net);
	int err;

	fn->listen_spawn = FASTSOCKET_SPAWN_BIND;
	fn->accept_patience = FS_ACCEPT_PATIENCE;
	fn->established = 1;
	fn->receive_flow_deliver = 1;
	fn->flood_until = jiffies;
	INIT_LIST_HEAD(&fn->locals);
	INIT_LIST_HEAD(&fn->steers);
	err = fs_sysctl_init(net);
	if (err)
		return err;
	err = fs_stats_init(net);
	if (err)
		fs_sysctl_exit(net);
	return err;
}

static void __net_exit fs_net_pre_exit(struct net *net)
{
	/* An RCU grace period follows before fs_net_exit(). */
	fs_unhook(net);
}

static void __net_exit fs_net_exit(struct net *net)
{
	fs_sysctl_exit(net);
	fs_stats_exit(net);
}

static struct pernet_operations fs_net_ops = {
	.init = fs_net_init,
	.pre_exit = fs_net_pre_exit,
	.exit = fs_net_exit,
	.id = &fs_net_id,
	.size = sizeof(struct fs_net),
};

/* Nobody can ask for anything any more. */
static void fs_teardown(void)
{
	fs_listen_detach_all();

	/*
	 * No socket leads here any more. A task may still be about to enter a
	 * wrapped operation (preempted between load and call), be in it, or
	 * be in its tail: the first and last wait ends where it next sleeps.
	 */
	synchronize_rcu_tasks();
	synchronize_srcu(&fs_srcu);
	synchronize_rcu_tasks();

	fs_drain_flush();
	/* Its entries are in lists of the namespaces. */
	fs_steer_exit();
	unregister_pernet_subsys(&fs_net_ops);
	fs_established_exit();
	fs_listen_exit();
	rcu_barrier();
}

static int __init fs_init(void)
{
	int err;

	err = fs_listen_init();
	if (err)
		return err;
	err = fs_established_init();
	if (err)
		goto out_listen;
	err = fs_steer_init();
	if (err)
		goto out_established;
	err = register_pernet_subsys(&fs_net_ops);
	if (err)
		goto out_steer;
	err = fs_control_init();
	/* Somebody may have found /proc/fastsocket meanwhile. */
	if (err)
		fs_teardown();
	return err;

out_steer:
	fs_steer_exit();
out_established:
	fs_established_exit();
out_listen:
	fs_listen_exit();
	return err;
}

static void __exit fs_exit(void)
{
	fs_control_exit();
	fs_teardown();
}

module_init(fs_init);
module_exit(fs_exit);

MODULE_DESCRIPTION("Core-local connections for unmodified TCP servers");
MODULE_LICENSE("GPL");
MODULE_VERSION(FASTSOCKET_RELEASE);
