# What a person types. `make` alone lists it.
#
# Guests run on this host if it can run them, else in the testbed, an emulated host; scripts/where says which and why.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# existing A B...: those of the package patterns ./A/... whose folder exists.
existing = $(foreach p,$(1),$(if $(wildcard $(p:/...=)),$(p)))

# Tests that run under the race detector: code whose goroutines share memory, without /dev/kvm.
RACE_PKGS := $(call existing,./link/... ./dsm ./vcpu/apic/... ./acpi/... ./boot/... ./vmm/... ./scripts/...)
# Tests that need ring 0 at hardware speed: they run where guests run, besides here.
GUEST_PKGS := $(call existing,./vcpu ./dsm/uffd/...)
# Tests of micro guests, on the emulated Intel host.
INTEL_PKGS := $(call existing,./vcpu)
# Tests of the whole: they run only where guests run.
SYSTEM_PKGS := $(call existing,$(patsubst %,./tests/%/...,bare bench demo lab labtest product))
# Tests of the program as its users run it. Those whose guests are bare kernels run on any KVM, so here if there is one;
# these names are of those that need more: Linux, TSC offsets, netem, or page walks by the processor.
PROGRAM_PKGS := ./tests
HARDWARE_TESTS := Linux|Clocks|FixedTSC|Span|TwoLenders|SlowCable|PaysNothing|Trace
# Tests of memory by micro guests in ring 3: they run at full speed on any KVM, so here if there is one.
MEMORY_PKGS := $(call existing,./tests/coherence/...)

# Whether there is a KVM here, and whether guests run elsewhere all the same.
HERE = $(shell [[ -w /dev/kvm ]] && echo here)
TWICE = $(if $(HERE),$(shell scripts/where | grep ^testbed:))

# What whole-system tests, the demo and the benchmark find in the project's folder.
NEEDS := build/coalesce build/guest-tiny.cpio build/kernel/vmlinuz
# What the benchmark compares with: QEMU and the firmware that its microvm boots from. On the emulated Intel host, which
# reads slowly, it is Debian's build of QEMU for microvm alone, a quarter of the size.
FIRMWARE := $(addprefix /usr/share/qemu/,qboot.rom linuxboot_dma.bin kvmvapic.bin)
QEMU := /usr/bin/qemu-system-x86_64 $(FIRMWARE)
QEMU_MICROVM := /usr/bin/qemu-system-x86_64-microvm $(FIRMWARE)
needs = $(foreach n,$(NEEDS),--need $(n))

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install and fetch what is missing
	@scripts/setup

.PHONY: build
build: setup ## build/coalesce, the guests' initramfs, the demo and the benchmark
	CGO_ENABLED=0 go build -trimpath -o build/ ./cmd/coalesce ./tests/demo ./tests/bench
	go run ./guest/initramfs/cmd -o build/guest.cpio --kernel-modules build/kernel/modules
	go run ./guest/initramfs/cmd -o build/guest-tiny.cpio --tiny --kernel-modules build/kernel/modules

.PHONY: demo
demo: build ## one Linux guest on two hosts, with checks
	scripts/there run --timeout 1200 $(needs) --need build/demo -- build/demo

.PHONY: bench
bench: build ## boot time, speed and memory against the alternatives
	scripts/there run --timeout 1800 $(needs) --need build/bench $(addprefix --need ,$(QEMU)) -- build/bench

# Two CPUs, whose clock runs by the instructions that each executes: a vCPU there has a host CPU's whole speed, whatever
# else this machine does.
.PHONY: bench-intel
bench-intel: build ## the same on the emulated Intel host; an hour
	scripts/testbed-intel run --cpus 2 --timeout 10800 $(needs) --need build/bench $(addprefix --need ,$(QEMU_MICROVM)) \
		--dir $(CURDIR) -- build/bench -n 3 -limit 3m -qemu $(firstword $(QEMU_MICROVM))

.PHONY: lint
lint: setup ## gofmt, go vet, staticcheck
	@files=$$(git ls-files '*.go'); bad=$$(gofmt -l $$files); [[ -z $$bad ]] || { echo "gofmt would change: $$bad" >&2; exit 1; }
	go vet ./...
	go tool staticcheck ./...

.PHONY: test
test: setup lint build ## all tests but those on the emulated Intel host
	go test -race $(RACE_PKGS)
	go test $$(go list ./... | grep -vxF -f <(go list $(RACE_PKGS) $(SYSTEM_PKGS) $(PROGRAM_PKGS) $(MEMORY_PKGS)))
	$(if $(HERE),go test -v -count=1 -timeout 900s,scripts/there test --timeout 900 $(needs)) $(MEMORY_PKGS)
	$(if $(TWICE),go test -count=1 -timeout 600s $(PROGRAM_PKGS))
	scripts/there test --timeout 900 $(needs) $(GUEST_PKGS) $(SYSTEM_PKGS)
	scripts/there test --timeout 1300 $(needs) --need build/guest.cpio $(PROGRAM_PKGS) $(if $(TWICE),-- -test.run '$(HARDWARE_TESTS)')

.PHONY: test-intel
test-intel: build ## micro guests and Linux on the emulated Intel host; minutes
	scripts/testbed-intel test $(INTEL_PKGS)
	scripts/testbed-intel run $(needs) --dir $(CURDIR) -- build/coalesce run --cpus 1 --memory 512M \
		--kernel build/kernel/vmlinuz --initrd build/guest-tiny.cpio --append 'console=ttyS0 coalesce.run=poweroff'

.PHONY: explore
explore: ## every schedule of larger models of the memory protocol; minutes, 6 GiB
	go run ./dsm/explore/cmd

.PHONY: clean
clean: ## remove what was built; what was fetched stays in the cache
	rm -rf build
