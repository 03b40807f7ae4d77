// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/fastsocket and /proc/fastsocket: the ioctl interface described in
 * uapi/fastsocket.h.
 */
#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/nsproxy.h>
#include <linux/proc_fs.h>
#include <linux/uaccess.h>

#include "local.h"

static int fs_ioctl_info(void __user *argp, size_t size)
{
	struct fastsocket_info info = {
		.version = FASTSOCKET_VERSION,
		.listen_spawn = READ_ONCE(fs_net(current->nsproxy->net_ns)->listen_spawn),
	};

	if (copy_to_user(argp, &info, min(size, sizeof(info))))
		return -EFAULT;
	if (size > sizeof(info) &&
	    clear_user(argp + sizeof(info), size - sizeof(info)))
		return -EFAULT;
	return 0;
}

/* All that this version has, and nothing else that is not zero. */
static int fs_copy_arg(void *arg, size_t known, void __user *argp, size_t size)
{
	return size < known ? -EINVAL : copy_struct_from_user(arg, known, argp, size);
}

static int fs_ioctl_spawn(void __user *argp, size_t size)
{
	struct fastsocket_spawn arg;
	struct socket *sock;
	struct file *file;
	int fd, err;

	err = fs_copy_arg(&arg, sizeof(arg), argp, size);
	if (err)
		return err;
	if (arg.flags)
		return -EINVAL;

	sock = sockfd_lookup(arg.listen_fd, &err);
	if (!sock)
		return err;
	err = fs_listen_parent(sock);
	if (err)
		goto out_sock;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		err = fd;
		goto out_sock;
	}
	err = fs_listen_spawn(sock, &arg.cpu, &file);
	if (err)
		goto out_fd;

	arg.fd = fd;
	if (copy_to_user(argp, &arg, sizeof(arg))) {
		fput(file);
		err = -EFAULT;
		goto out_fd;
	}
	fd_install(fd, file);
	goto out_sock;

out_fd:
	put_unused_fd(fd);
out_sock:
	sockfd_put(sock);
	return err;
}

static int fs_ioctl_sync(void __user *argp, size_t size)
{
	struct fastsocket_sync arg;
	struct socket *sock;
	int err;

	err = fs_copy_arg(&arg, sizeof(arg), argp, size);
	if (err)
		return err;
	if (arg.flags)
		return -EINVAL;

	sock = sockfd_lookup(arg.listen_fd, &err);
	if (!sock)
		return err;
	err = fs_listen_parent(sock);
	if (!err)
		err = fs_listen_sync(sock);
	sockfd_put(sock);
	return err;
}

static int fs_ioctl_steer(void __user *argp, size_t size)
{
	struct net *net = current->nsproxy->net_ns;
	struct fastsocket_steer arg;
	s32 *cpus;
	int err;

	if (!ns_capable(net->user_ns, CAP_NET_ADMIN))
		return -EPERM;
	err = fs_copy_arg(&arg, sizeof(arg), argp, size);
	if (err)
		return err;
	if (arg.count > FS_STEER_MAX)
		return -EINVAL;

	cpus = memdup_user(u64_to_user_ptr(arg.cpus), array_size(arg.count, sizeof(*cpus)));
	if (IS_ERR(cpus))
		return PTR_ERR(cpus);
	err = fs_steer_set(net, &arg, cpus);
	kfree(cpus);
	return err;
}

static int fs_ioctl_port(void __user *argp, size_t size)
{
	struct sockaddr_storage addr = {};
	struct fastsocket_port arg;
	struct socket *sock;
	int err;

	err = fs_copy_arg(&arg, sizeof(arg), argp, size);
	if (err)
		return err;
	if (arg.pad || arg.flags & ~(FASTSOCKET_PORT_REPLACE | FASTSOCKET_PORT_RELEASE) ||
	    arg.addrlen > sizeof(addr))
		return -EINVAL;

	sock = sockfd_lookup(arg.fd, &err);
	if (!sock)
		return err;
	if (arg.flags & FASTSOCKET_PORT_RELEASE)
		err = fs_connect_release(sock);
	else if (copy_from_user(&addr, u64_to_user_ptr(arg.addr), arg.addrlen))
		err = -EFAULT;
	else
		err = fs_connect_port(sock, &addr, arg.addrlen, arg.flags);
	sockfd_put(sock);
	return err;
}

static long fs_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *argp = (void __user *)arg;
	size_t size = _IOC_SIZE(cmd);
	unsigned int known;

	if (_IOC_TYPE(cmd) != FASTSOCKET_IOC_MAGIC)
		return -ENOTTY;

	/* The size may differ from ours, the number and direction not. */
	known = cmd & ~IOCSIZE_MASK;
	if (known == (FASTSOCKET_IOC_INFO & ~IOCSIZE_MASK))
		return fs_ioctl_info(argp, size);
	if (known == (FASTSOCKET_IOC_SPAWN & ~IOCSIZE_MASK))
		return fs_ioctl_spawn(argp, size);
	if (known == (FASTSOCKET_IOC_SYNC & ~IOCSIZE_MASK))
		return fs_ioctl_sync(argp, size);
	if (known == (FASTSOCKET_IOC_STEER & ~IOCSIZE_MASK))
		return fs_ioctl_steer(argp, size);
	if (known == (FASTSOCKET_IOC_PORT & ~IOCSIZE_MASK))
		return fs_ioctl_port(argp, size);
	return -ENOTTY;
}

static const struct file_operations fs_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = fs_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice fs_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "fastsocket",
	.fops = &fs_fops,
	/* The permission is possession of the listening socket. */
	.mode = 0666,
};

#ifdef CONFIG_COMPAT
static long fs_proc_compat_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return fs_ioctl(file, cmd, (unsigned long)compat_ptr(arg));
}
#endif

/*
 * Every connect() of a program asks for a port, so it keeps a descriptor. One
 * of the device would hold the module; files of /proc can be removed while
 * they are open, and that waits for the calls that are under way.
 */
static const struct proc_ops fs_proc_ops = {
	.proc_ioctl = fs_ioctl,
#ifdef CONFIG_COMPAT
	.proc_compat_ioctl = fs_proc_compat_ioctl,
#endif
	.proc_lseek = noop_llseek,
};

static struct proc_dir_entry *fs_proc;

int fs_control_init(void)
{
	int err;

	fs_proc = proc_create("fastsocket", 0444, NULL, &fs_proc_ops);
	if (!fs_proc)
		return -ENOMEM;
	err = misc_register(&fs_misc);
	if (err)
		proc_remove(fs_proc);
	return err;
}

void fs_control_exit(void)
{
	proc_remove(fs_proc);
	misc_deregister(&fs_misc);
}
