#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What the sharing meter found, per connection and by kernel function.

usage: profile.py [--top N] [--against DESIGN] [--lines] [--json] [--set KEY=VALUE]... DIR

DIR has the meter's output ("meter") and the guest's /proc/kallsyms ("kallsyms").
A connection is a step (see sharing.c). In no total, but shown apart: what ran in
functions that the plugin was told to count apart, with all that they call, and, by
their own names, functions of the idle loop, of the clock and of RCU's grace
periods, which come with time and not with connections, and of the virtual card,
which is in the place of hardware; and the instructions of those that spin until
another CPU has done something, as the host may have stopped that one. With
--against, functions are listed by how much more there is than in that design.
With --json, one object for each window and one for each design's functions, in
which are the keys that --set gives, too.
"""

import argparse
import bisect
import json
import os
import re
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from bench import DESIGNS  # noqa: E402

# In addition to what the plugin counts apart: the idle loop and what runs from it,
# and the tick's remains outside its interrupt. They belong to no connection.
APART = re.compile(r"""^(
    do_idle|cpu_startup_entry|default_idle.*|cpuidle_.*|acpi_(processor_|idle_|safe_).*|pv_native_safe_halt
  | tick_(nohz|irq|check|program|sched|do)_.*|tick_setup_.*|can_stop_idle_tick|menu_.*|ladder_.*|teo_.*
  | (nohz|sched_balance|rebalance|load_balance|update_blocked|newidle)_.*|find_busiest_.*|update_sd_lb_.*|update_sg_.*
  | calc_load_nohz_.*|sched_clock_(idle|tick)_.*|sched_idle_.*|quiet_vmstat|need_update
  | ct_(idle|kernel|nmi|irq)_.*|rcu_(idle|dynticks|needs_cpu|nocb_flush|sched_clock)_.*|rcu_needs_cpu
  | task_mm_cid_work|update_(wall_time|vsyscall|process_times)|timekeeping_.*|clockevents_.*|get_next_timer_interrupt
  | __get_next_timer_interrupt|timer_(base_try_to_set_idle|clear_idle)|__next_timer_interrupt|next_timer_.*
  | tmigr_.*|hrtimer_(interrupt|next_event_.*|get_next_event)|__hrtimer_next_event_base|lapic_next_.*
  | .*sysvec_apic_timer_interrupt|scheduler_tick|sched_tick
  | rcu_gp_.*|force_qs_rnp|rcu_report_qs_.*|(__)?note_gp_changes|rcu_(watching|dyntick)_.*|dyntick_.*
  | rcu_implicit_.*|rcu_(accelerate|advance)_cbs.*|rcu_check_quiescent_state|rcu_core(_si)?
  | .*\ \[rssnic\]
)$""", re.X)

# How long these run is up to the host.
WAITING = re.compile(r"""^(
    native_queued_spin_lock_slowpath|queued_(read|write)_lock_slowpath|osq_lock|mutex_spin_on_owner
  | rwsem_spin_on_owner|smp_call_function_(many_cond|single)|csd_lock_wait|multi_cpu_stop|delay_tsc
)$""", re.X)

METRICS = ("instructions", "xfer", "m2")


def read_meter(path):
    """JSON objects; one may go over several lines."""
    with open(path) as file:
        text = file.read()
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        window, at = decoder.raw_decode(text, at)
        yield window
        at = text.find("{", at)


class Symbols:
    """Kernel and module symbols by address."""

    def __init__(self, path):
        found = {}
        with open(path) as file:
            for row in file:
                address, kind, name, *module = row.split()
                address = int(address, 16)
                if not address >> 63 or kind in "aA":
                    continue
                # Of several names of an address, one that is global.
                if address not in found or kind.isupper():
                    found[address] = name + (" " + module[0] if module else "")
        self.addresses = sorted(found)
        self.names = [found[address] for address in self.addresses]

    def find(self, address):
        if not address:
            return "(user space)"
        at = bisect.bisect_right(self.addresses, address) - 1
        # The last symbol of a section is not the name of all behind it.
        if at < 0 or address - self.addresses[at] > 1 << 20:
            return f"{address:x}"
        return self.names[at]

    def find_data(self, address):
        at = bisect.bisect_right(self.addresses, address | 63) - 1
        if not address >> 63 or at < 0 or address - self.addresses[at] > 1 << 14:
            return ""
        return self.names[at]


def read_window(window, symbols):
    """Totals and functions, per connection."""
    connections = sum(vcpu["steps"] for vcpu in window["vcpus"]) or 1
    functions, apart, waiting = {}, dict.fromkeys(METRICS, 0), 0
    for code in window["code"]:
        name = symbols.find(int(code["pc"], 16))
        if "aside" in code or APART.match(name):
            into = apart
        else:
            into = functions.setdefault(name, dict.fromkeys(METRICS, 0))
            if WAITING.match(name.split()[0]):
                waiting += code.pop("instructions") / connections
        for metric in METRICS:
            into[metric] += code.get(metric, 0) / connections
    totals = {metric: sum(f[metric] for f in functions.values()) for metric in METRICS}
    user = functions.get("(user space)", dict.fromkeys(METRICS, 0))
    totals["user"] = user["instructions"]
    totals["user xfer"] = user["xfer"]
    totals["waiting"] = waiting
    for metric in METRICS:
        totals["apart " + metric] = apart[metric]
    totals["connections"] = connections
    return totals, functions


def spread(values):
    """Mean, and how far the values are apart in percent of it."""
    mean = statistics.mean(values)
    return mean, 100 * (max(values) - min(values)) / mean if mean else 0


def average(repetitions):
    """Functions, over all repetitions."""
    result = {}
    for _, functions, _ in repetitions:
        for name, values in functions.items():
            into = result.setdefault(name, dict.fromkeys(METRICS, 0))
            for metric in METRICS:
                into[metric] += values[metric] / len(repetitions)
    return result


def print_top(functions, other, metric, top):
    """Those with the most, or with the most more than in another."""
    nothing = dict.fromkeys(METRICS, 0)
    rows = [(f[metric] - other.get(name, nothing)[metric], name) for name, f in functions.items()]
    rows += [(-f[metric], name) for name, f in other.items() if name not in functions]
    total = sum(value for value, _ in rows) or 1
    print(f"  by {metric}:" + (f" {total:.2f} more" if other else ""))
    for value, name in sorted(rows, reverse=True)[:top]:
        if value > 0:
            print(f"    {value:9.2f}  {100 * value / total:4.1f} %  {name}")


def print_design(name, repetitions, other, args, symbols):
    vcpus = len(repetitions[0][2]["vcpus"])
    print(f"{name}: {len(repetitions)} x {vcpus} cores")
    for key in repetitions[0][0]:
        mean, percent = spread([totals[key] for totals, _, _ in repetitions])
        if mean:
            print(f"  {key + ':':21}{mean:11.2f}   +-{percent / 2:5.1f} %")
    functions = average(repetitions)
    for metric in METRICS:
        print_top(functions, other, metric, args.top)
    if args.lines:
        print("  lines, of the last repetition:")
        totals, _, window = repetitions[-1]
        for line in window["lines"][:args.top]:
            xfer = line["xfer_read"] + line["xfer_write"] + line["xfer_upgrade"]
            print(f"    xfer {xfer / totals['connections']:7.2f}"
                  f"  m2 {line['m2'] / totals['connections']:7.2f}"
                  f"  {line['vaddr']} {symbols.find_data(int(line['vaddr'], 16))}"
                  f" by {symbols.find(int(line['pc'], 16))}, {line['writers']} writers")
    print()


def print_json(name, repetitions, args):
    given = {key: int(value) if value.isdigit() else value
             for key, value in (pair.split("=", 1) for pair in args.set)}
    for n, (totals, _, window) in enumerate(repetitions, 1):
        print(json.dumps({"benchmark": "sharing", **given, "design": name, "repetition": n,
                          "cores": len(window["vcpus"]),
                          **{key: round(value, 2) for key, value in totals.items()}}))
    functions = average(repetitions)
    wanted = {f for metric in METRICS for f in
              sorted(functions, key=lambda f: functions[f][metric])[-args.top:]}
    print(json.dumps({"benchmark": "sharing functions", **given, "design": name,
                      "cores": len(repetitions[0][2]["vcpus"]),
                      "functions": {f: {metric: round(functions[f][metric], 2)
                                        for metric in METRICS} for f in sorted(wanted)}}))


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n")[0])
    parser.add_argument("--top", type=int, default=12)
    parser.add_argument("--against")
    parser.add_argument("--lines", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("dir")
    args = parser.parse_args()

    symbols = Symbols(os.path.join(args.dir, "kallsyms"))
    groups = {}
    for window in read_meter(os.path.join(args.dir, "meter")):
        if window["cut"]:
            sys.exit("profile.py: the last window has no end")
        # As measure.py numbers them.
        groups.setdefault(DESIGNS[window["number"] - 1], []).append(
            (*read_window(window, symbols), window))
    if not groups:
        sys.exit("profile.py: the meter has seen no window")

    for name, repetitions in groups.items():
        if args.json:
            print_json(name, repetitions, args)
        else:
            other = args.against if name != args.against else None
            print_design(name, repetitions, average(groups[other]) if other else {}, args,
                         symbols)


if __name__ == "__main__":
    main()
