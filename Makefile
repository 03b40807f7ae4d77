# SPDX-License-Identifier: GPL-2.0
# fastsocket: "make help" lists the targets.

VERSION = 0.1.0

# Of the kernel to build for; the tests build for their own.
KDIR ?= /lib/modules/$(shell uname -r)/build
# Debian's kernelrelease target names the upstream version; this names the kernel.
KVER = $(shell sed -n 's/^.define UTS_RELEASE "\(.*\)"/\1/p' \
	$(KDIR)/include/generated/utsrelease.h 2>/dev/null)
KBUILD_DIR = build/kmod-$(KVER)
NIC_DIR = build/nic-$(KVER)

prefix ?= /usr/local
sbindir ?= $(prefix)/sbin
libdir ?= $(prefix)/lib
includedir ?= $(prefix)/include
mandir ?= $(prefix)/share/man
moddir = /lib/modules/$(KVER)/updates
DKMS_SRC = $(DESTDIR)/usr/src/fastsocket-$(VERSION)
INSTALL ?= install

# What "make check" boots; each is a series of Debian's kernels.
KERNELS ?= 6.1 6.12
# The same with instruments (tests/vm/*.config).
DEBUG_KERNELS ?= 6.1-kasan 6.12-kasan 6.1-kcsan 6.12-kcsan
FUZZ_KERNELS ?= 6.1-kasan 6.12-kasan

all: kmod user

help:
	@echo 'make              build the module (for KDIR), the library and the command'
	@echo 'make user         build the library and the command only'
	@echo 'make install      install all (DESTDIR, prefix, KDIR); make uninstall removes it'
	@echo 'make dkms-install put the module under DKMS; make dkms-uninstall removes it'
	@echo 'make demo         unmodified nginx and HAProxy, plain and with fastsocket, in a VM'
	@echo '                  (KERNEL=6.1|6.12, VCPUS=4, ACCEL=auto|kvm|tcg)'
	@echo 'make check        every test, in VMs with kernels $(KERNELS)'
	@echo 'make check-debug  the same on kernels with KASAN, lockdep, kmemleak; then KCSAN'
	@echo 'make check-fuzz   calls and packets at random, on kernels with KASAN'
	@echo 'make check-stress long loads: the module, CPUs and namespaces come and go; leaks'
	@echo 'make check-foreign other projects'"'"' test suites, without fastsocket and with it'
	@echo 'make bench        measure stock, SO_REUSEPORT and fastsocket side by side; a report'
	@echo 'make lint         sparse, checkpatch and man page checks'
	@echo 'make clean        remove what was built'

kmod: kdir
	@$(MAKE) --no-print-directory kmod-build

# The module of the virtual network cards that the tests have.
nic: kdir
	@$(MAKE) --no-print-directory nic-build

# Of the sources $(1), in a copy $(2) per kernel, so that builds for several do not mix.
# BTF is made from vmlinux, which Debian's headers do not have.
define build-module
	@mkdir -p $(2)
	@cp -ru $(1)/. $(2)/
	+$(MAKE) -C $(KDIR) M=$(CURDIR)/$(2) W=1 FASTSOCKET_RELEASE=$(VERSION) \
		$(if $(wildcard $(KDIR)/vmlinux),,CONFIG_DEBUG_INFO_BTF_MODULES=) modules
endef

kmod-build:
	$(call build-module,kmod,$(KBUILD_DIR))

nic-build:
	$(call build-module,tests/nic,$(NIC_DIR))

kdir:
	@test -e $(KDIR)/Makefile || { \
		echo "No headers for the kernel in $(KDIR)." >&2; \
		echo "Install linux-headers-$$(uname -r), or name others: make KDIR=/lib/modules/VERSION/build" >&2; \
		exit 1; }

user:
	$(MAKE) -C preload all
	$(MAKE) -C tools all VERSION=$(VERSION) libdir=$(libdir)

install: all install-user
	$(INSTALL) -d $(DESTDIR)$(moddir)
	$(INSTALL) -m 644 $(KBUILD_DIR)/fastsocket.ko $(DESTDIR)$(moddir)/
	test -n "$(DESTDIR)" || depmod $(KVER)

install-user:
	$(INSTALL) -d $(DESTDIR)$(sbindir) $(DESTDIR)$(libdir) $(DESTDIR)$(includedir) \
		$(DESTDIR)$(mandir)/man7 $(DESTDIR)$(mandir)/man8
	$(INSTALL) -m 755 tools/fastsocket $(DESTDIR)$(sbindir)/
	$(INSTALL) -m 755 preload/libfsocket.so $(DESTDIR)$(libdir)/
	$(INSTALL) -m 644 kmod/uapi/fastsocket.h $(DESTDIR)$(includedir)/
	$(INSTALL) -m 644 Documentation/libfsocket.7 $(DESTDIR)$(mandir)/man7/
	$(INSTALL) -m 644 Documentation/fastsocket.8 $(DESTDIR)$(mandir)/man8/
	test -n "$(DESTDIR)" || ldconfig

uninstall: kdir
	rm -f $(DESTDIR)$(moddir)/fastsocket.ko $(DESTDIR)$(sbindir)/fastsocket \
		$(DESTDIR)$(libdir)/libfsocket.so $(DESTDIR)$(includedir)/fastsocket.h \
		$(DESTDIR)$(mandir)/man7/libfsocket.7 $(DESTDIR)$(mandir)/man8/fastsocket.8
	test -n "$(DESTDIR)" || { depmod $(KVER); ldconfig; }

dkms-source:
	rm -rf $(DKMS_SRC)
	$(INSTALL) -d $(DKMS_SRC)
	cp -r kmod/. $(DKMS_SRC)/
	sed 's/@VERSION@/$(VERSION)/' kmod/dkms.conf >$(DKMS_SRC)/dkms.conf

dkms-install: dkms-source
	dkms install -m fastsocket -v $(VERSION)

dkms-uninstall:
	-dkms remove -m fastsocket -v $(VERSION) --all
	rm -rf $(DKMS_SRC)

# What the virtual machines load.
vm-modules:
	@for series in $(KERNELS); do \
		build=$$(tests/vm/kernel --build $$series) || exit 1; \
		echo "building the modules for $$(tests/vm/kernel $$series)"; \
		$(MAKE) --no-print-directory -s kmod nic KDIR=$$build || exit 1; \
	done

# What the tests run beside the servers; "next" is a library of a release to come.
test-programs: build/load build/errnos build/cancel build/handlers build/pending build/connect build/interface build/shim.so build/nic-shim.so
	@mkdir -p build/next/preload build/next/kmod/uapi
	@cp -u preload/*.c preload/*.h preload/Makefile build/next/preload/
	@sed 's/^\(#define FASTSOCKET_VERSION\).*/\1 99/' kmod/uapi/fastsocket.h >build/next/kmod/uapi/fastsocket.h
	@$(MAKE) -s -C build/next/preload

build/load: tests/servers/load.c
build/errnos: tests/preload/errnos.c
build/cancel: tests/preload/cancel.c
build/handlers: tests/preload/handlers.c
build/pending: tests/kmod/pending.c
build/load build/errnos build/cancel build/handlers build/pending:
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -o $@ $<
build/connect: benchmarks/connect/connect.c
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -Ikmod/uapi -o $@ $<
build/shim.so: tests/preload/shim.c
build/nic-shim.so: tests/tools/shim.c
build/shim.so build/nic-shim.so:
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -Ikmod/uapi -shared -fPIC -o $@ $<
build/interface: tests/fuzz/interface.c
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -Ikmod/uapi -pthread -o $@ $<
build/connect build/interface build/shim.so build/nic-shim.so: kmod/uapi/fastsocket.h

# What the benchmarks run beside the servers; and the meter, which QEMU loads.
bench-programs: build/load build/connect build/echo build/ping build/mark build/known build/sharing.so

build/echo: benchmarks/echo.c
build/ping: benchmarks/ping.c
build/mark: benchmarks/sharing/mark.c
build/known: benchmarks/sharing/known.c
build/mark build/known: benchmarks/sharing/marker.h
build/echo build/ping build/mark build/known:
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -pthread -o $@ $(filter %.c,$^)
build/sharing.so: benchmarks/sharing/sharing.c benchmarks/sharing/qemu_plugin_api.h benchmarks/sharing/marker.h
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -shared -fPIC -fvisibility=hidden -pthread -o $@ $<

setup:
	@tests/setup

check: setup
	@tests/check $(KERNELS)

# On kernels with instruments, built once. Everything is slow there: the loads are small.
check-debug:
	@tests/setup debug
	@CONNECTIONS=5000 RELOADS=10 tests/check --timeout 20000 --only 'kmod/*.t' --only 'nic/*.t' \
		--only 'preload/*.t' --only 'servers/*.t' --only 'tools/*.t' --only 'stress/*.t' \
		$(DEBUG_KERNELS)

check-fuzz:
	@tests/setup debug fuzz
	@tests/check --timeout 20000 --host fuzz/user.t --only fuzz/interface.t \
		--only fuzz/packets.t $(FUZZ_KERNELS)

check-stress: setup
	@tests/check --timeout 5000 --only 'stress/*.t' $(KERNELS)

# Other projects' test suites; SUITES names some of them.
check-foreign:
	@tests/setup debug foreign
	@FASTSOCKET_FOREIGN=$$(tests/foreign/prepare $(KERNELS)) && export FASTSOCKET_FOREIGN && \
		FASTSOCKET_LIMIT=20000 tests/check --timeout 20000 --only 'foreign/*.t' $(KERNELS)

# QUICK=1 does less of each; BENCH names some, or --host.
bench:
	@tests/setup bench
	@benchmarks/run $(BENCH)

demo: setup
	@tests/demo/demo

lint: setup
	@tests/host/lint.t

clean:
	$(MAKE) -C preload clean
	$(MAKE) -C tools clean
	rm -rf build

.PHONY: all help kmod kmod-build nic nic-build kdir user install install-user uninstall \
	dkms-source dkms-install dkms-uninstall vm-modules test-programs setup check \
	check-debug check-fuzz check-stress check-foreign bench bench-programs demo lint clean
