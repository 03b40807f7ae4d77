// SPDX-License-Identifier: GPL-2.0
/* Interrupts: descriptors of their own, and IPIs that make them happen. */

#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdesc.h>
#include <linux/platform_device.h>

#include "rssnic.h"

static void rssnic_irq_happen(struct rssnic_queue *queue)
{
	generic_handle_irq(queue->irq);
	atomic_dec(&queue->in_flight);
}

static void rssnic_irq_work(struct irq_work *work)
{
	rssnic_irq_happen(container_of(work, struct rssnic_queue, work));
}

static void rssnic_irq_here(struct rssnic_queue *queue)
{
	if (!irq_work_queue(&queue->work))
		atomic_dec(&queue->in_flight);
}

static void rssnic_irq_ipi(void *data)
{
	struct rssnic_queue *queue = data;

	/* An idle CPU that polls runs this outside interrupt context. */
	if (in_hardirq())
		rssnic_irq_happen(queue);
	else
		rssnic_irq_here(queue);
}

/* Make the queue's interrupt happen on the CPU that its affinity names. */
void rssnic_irq_raise(struct rssnic_queue *queue)
{
	int cpu;

	atomic_inc(&queue->in_flight);
	cpu = READ_ONCE(queue->cpu);
	if (cpu == get_cpu() || smp_call_function_single_async(cpu, &queue->csd))
		rssnic_irq_here(queue);		/* also where that CPU just went offline */
	put_cpu();
}

static void rssnic_irq_ack(struct irq_data *data)
{
}

static int rssnic_irq_retrigger(struct irq_data *data)
{
	rssnic_irq_raise(irq_data_get_irq_chip_data(data));
	return 1;
}

/* As with real vectors one CPU of the mask gets them all; queues are spread. */
static int rssnic_irq_set_affinity(struct irq_data *data, const struct cpumask *mask,
				   bool force)
{
	struct rssnic_queue *queue = irq_data_get_irq_chip_data(data);
	int cpu = READ_ONCE(queue->cpu), nth = 0;

	if (!cpu_online(cpu) || !cpumask_test_cpu(cpu, mask)) {
		for_each_cpu_and(cpu, mask, cpu_online_mask)
			nth++;
		if (!nth)
			return -EINVAL;
		nth = queue->index % nth;
		for_each_cpu_and(cpu, mask, cpu_online_mask)
			if (!nth--)
				break;
		WRITE_ONCE(queue->cpu, cpu);
	}
	irq_data_update_effective_affinity(data, cpumask_of(cpu));
	return IRQ_SET_MASK_OK;
}

static struct irq_chip rssnic_irq_chip = {
	.name			= "rssnic-MSI",
	.irq_ack		= rssnic_irq_ack,
	.irq_retrigger		= rssnic_irq_retrigger,
	.irq_set_affinity	= rssnic_irq_set_affinity,
};

static irqreturn_t rssnic_interrupt(int irq, void *data)
{
	struct rssnic_queue *queue = data;

	napi_schedule(&queue->napi);
	return IRQ_HANDLED;
}

int rssnic_irq_request(struct rssnic_queue *queue)
{
	snprintf(queue->irq_name, sizeof(queue->irq_name), "%s-TxRx-%u",
		 queue->dev->name, queue->index);
	return request_irq(queue->irq, rssnic_interrupt, 0, queue->irq_name, queue);
}

/* Nothing raises the interrupt any more; wait for what is on its way. */
void rssnic_irq_release(struct rssnic_queue *queue)
{
	free_irq(queue->irq, queue);
	while (atomic_read(&queue->in_flight))
		usleep_range(100, 200);
	irq_work_sync(&queue->work);
}

static ssize_t rssnic_msi_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "msix\n");
}

/*
 * Real devices have DEVICE/msi_irqs, with a file per interrupt, made by the
 * PCI core. Here is its likeness.
 */
static int rssnic_parent_add(struct rssnic *nic)
{
	struct platform_device *parent;
	unsigned int i;
	int err;

	nic->irq_attrs = kcalloc(nic->max_queues + 1, sizeof(*nic->irq_attrs), GFP_KERNEL);
	parent = platform_device_alloc("rssnic", PLATFORM_DEVID_AUTO);
	if (!nic->irq_attrs || !parent) {
		err = -ENOMEM;
		goto err_put;
	}
	for (i = 0; i < nic->max_queues; i++) {
		struct rssnic_queue *queue = &nic->queue[i];

		snprintf(queue->irq_file, sizeof(queue->irq_file), "%u", queue->irq);
		sysfs_attr_init(&queue->irq_attr.attr);
		queue->irq_attr.attr.name = queue->irq_file;
		queue->irq_attr.attr.mode = 0444;
		queue->irq_attr.show = rssnic_msi_show;
		nic->irq_attrs[i] = &queue->irq_attr.attr;
	}
	nic->irq_group.name = "msi_irqs";
	nic->irq_group.attrs = nic->irq_attrs;
	nic->irq_groups[0] = &nic->irq_group;
	parent->dev.groups = nic->irq_groups;
	err = platform_device_add(parent);
	if (err)
		goto err_put;
	nic->parent = parent;
	SET_NETDEV_DEV(nic->dev, &parent->dev);
	return 0;

err_put:
	platform_device_put(parent);
	kfree(nic->irq_attrs);
	return err;
}

int rssnic_irqs_alloc(struct rssnic *nic)
{
	int err, cpu = -1;
	unsigned int i;

	/* No owner: an interrupt in use is not to keep the module from being removed. */
	nic->irq_base = __irq_alloc_descs(-1, 1, nic->max_queues, NUMA_NO_NODE, NULL, NULL);
	if (nic->irq_base < 0)
		return nic->irq_base;
	for (i = 0; i < nic->max_queues; i++) {
		struct rssnic_queue *queue = &nic->queue[i];

		queue->irq = nic->irq_base + i;
		INIT_CSD(&queue->csd, rssnic_irq_ipi, queue);
		init_irq_work(&queue->work, rssnic_irq_work);
		irq_set_chip_and_handler_name(queue->irq, &rssnic_irq_chip,
					      handle_edge_irq, "edge");
		irq_set_chip_data(queue->irq, queue);
		irq_modify_status(queue->irq, IRQ_NOREQUEST | IRQ_NOPROBE, IRQ_MOVE_PCNTXT);
		cpu = cpumask_next(cpu, cpu_online_mask);
		if (cpu >= nr_cpu_ids)
			cpu = cpumask_first(cpu_online_mask);
		queue->cpu = cpu;
	}
	err = rssnic_parent_add(nic);
	if (err)
		irq_free_descs(nic->irq_base, nic->max_queues);
	return err;
}

void rssnic_irqs_free(struct rssnic *nic)
{
	platform_device_unregister(nic->parent);
	kfree(nic->irq_attrs);
	irq_free_descs(nic->irq_base, nic->max_queues);
}
