#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A report from results: tables to read here, and report.html, which stands alone,
with its plots beside it as SVG and PNG.

usage: report.py DIR		(DIR/results.jsonl, as benchmarks/run leaves it)"""

import collections
import html
import io
import json
import os
import statistics
import sys

import matplotlib
matplotlib.use("Agg")
# The same picture from the same results.
matplotlib.rcParams["svg.hashsalt"] = "fastsocket"
import matplotlib.pyplot as plt  # noqa: E402

DESIGNS = "stock", "reuseport", "cbpf", "migrate", "fastsocket", "fastsocket busy"
COLOURS = dict(zip(DESIGNS, ("#888888", "#d95f02", "#7570b3", "#e7298a", "#1b9e77", "#66a61e")))

# The projection: seconds for an instruction and for a cache line from another core.
SECONDS_PER_INSTRUCTION = 0.4e-9
SECONDS_PER_TRANSFER = 80e-9
PROJECTED_CORES = 24


class Table:
    def __init__(self, title, head, note=""):
        self.title, self.head, self.note, self.rows = title, head, note, []

    def add(self, *row):
        self.rows.append([str(cell) for cell in row])

    def text(self):
        widths = [max(len(row[i]) for row in [self.head] + self.rows)
                  for i in range(len(self.head))]
        lines = [self.title, ""]
        for row in [self.head] + self.rows:
            lines.append("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                                   for i, (cell, w) in enumerate(zip(row, widths))))
        return "\n".join(lines + ([self.note] if self.note else [])) + "\n"

    def html(self):
        def row(cells, tag):
            return "<tr>" + "".join("<%s>%s</%s>" % (tag, html.escape(c), tag)
                                    for c in cells) + "</tr>"
        return "<h2>%s</h2><table>%s%s</table><p>%s</p>" % (
            html.escape(self.title), row(self.head, "th"),
            "".join(row(r, "td") for r in self.rows), html.escape(self.note))


class Plot:
    """Lines over a common axis; .svg and .png in @directory, and inline."""

    def __init__(self, directory, name, title, x, y, log=False):
        self.path = os.path.join(directory, name)
        self.figure, self.axes = plt.subplots(figsize=(7.2, 3.6))
        self.axes.set(title=title, xlabel=x, ylabel=y)
        if log:
            self.axes.set_xscale("log", base=2)
            self.axes.set_yscale("log")

    def line(self, design, points):
        points = sorted(points)
        low = [statistics.median(v) - min(v) for _, v in points]
        high = [max(v) - statistics.median(v) for _, v in points]
        self.axes.errorbar([x for x, _ in points], [statistics.median(v) for _, v in points],
                           yerr=[low, high], label=design, color=COLOURS.get(design),
                           marker="o", capsize=3)

    def designs(self, points):
        """A line for each design in @points: (design, x, values)."""
        for design in DESIGNS:
            own = [(x, of) for d, x, of in points if d == design]
            if own:
                self.line(design, own)

    def html(self):
        if not self.axes.get_xscale() == "log":
            self.axes.set_ylim(bottom=0)
        self.axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        self.figure.tight_layout()
        self.figure.savefig(self.path + ".png", dpi=120)
        inline = io.StringIO()
        self.figure.savefig(inline, format="svg", metadata={"Date": None})
        with open(self.path + ".svg", "w") as f:
            f.write(inline.getvalue())
        plt.close(self.figure)
        return inline.getvalue()[inline.getvalue().index("<svg"):]


def group(rows, *keys):
    """Rows by the values of @keys, in order of appearance; designs in theirs."""
    found = collections.defaultdict(list)
    for row in rows:
        found[tuple(row[key] for key in keys)].append(row)
    place = keys.index("design") if "design" in keys else None
    return dict(sorted(found.items(), key=lambda item: (
        [v for i, v in enumerate(item[0]) if i != place],
        DESIGNS.index(item[0][place]) if place is not None else 0)))


def values(rows, key):
    return [row[key] for row in rows]


def spread(of):
    """How far repetitions are from their median, in percent of it, at most."""
    middle = statistics.median(of)
    return 100 * max(abs(v - middle) for v in of) / middle if middle else 0


def ratio(a, b):
    return "%.2f" % (statistics.median(a) / statistics.median(b)) if a and b else "-"


def fit(points):
    """Least squares of value = a + b (1 - 1/cores): the share of other cores, if what a core
    touches was last touched by any of them alike."""
    xs = [1 - 1 / cores for cores, _ in points]
    ys = [value for _, value in points]
    if len(set(xs)) < 2:
        return ys[0], 0
    b = statistics.covariance(xs, ys) / statistics.variance(xs)
    return statistics.mean(ys) - b * statistics.mean(xs), b


def sharing(rows, directory):
    parts = []
    by = group(rows, "workload", "cores", "design")
    table = Table("Sharing meter: per connection", [
        "workload, cores, design", "instructions", "transfers", "+- %", "first touches", "+- %",
        "transfers to reuseport", "instructions to stock", "runs"],
        "Transfers: cache lines that a core gets from another. First touches: lines that several "
        "cores write, each counted once for a connection. Benchmarks.rst says what the meter "
        "cannot see. For the workload connect, which has no listener, stock stands for all but "
        "fastsocket.")
    for (workload, cores, design), runs in by.items():
        stock, plain = (by.get((workload, cores, other), []) for other in ("stock", "reuseport"))
        table.add("%s, %d, %s" % (workload, cores, design),
                  "%.0f" % statistics.median(values(runs, "instructions")),
                  "%.1f" % statistics.median(values(runs, "xfer")),
                  "%.1f" % spread(values(runs, "xfer")),
                  "%.1f" % statistics.median(values(runs, "m2")),
                  "%.1f" % spread(values(runs, "m2")),
                  ratio(values(runs, "xfer"), values(plain or stock, "xfer")),
                  ratio(values(runs, "instructions"), values(stock, "instructions")), len(runs))
    parts.append(table)
    for workload in sorted({key[0] for key in by}):
        plot = Plot(directory, "sharing-" + workload, workload, "cores",
                    "transfers per connection")
        plot.designs([(design, cores, values(runs, "xfer"))
                      for (w, cores, design), runs in by.items() if w == workload])
        parts.append(plot)
    parts.append(projection(by))
    return parts


def projection(by):
    table = Table("PROJECTION to %d cores, computed, not measured" % PROJECTED_CORES, [
        "workload, design", "transfers", "connections/s", "to stock", "to reuseport"],
        "connections/s = cores / (instructions x %.1f ns + transfers x %.0f ns), transfers = a + "
        "b (1 - 1/cores) fitted to what was measured. No waiting for locks, for memory or for the "
        "network: an upper limit, and more so for designs that share." % (
            SECONDS_PER_INSTRUCTION * 1e9, SECONDS_PER_TRANSFER * 1e9))
    rates, transfers = {}, {}
    for workload, design in group([{"workload": w, "design": d} for w, _, d in by],
                                  "workload", "design"):
        points = [(cores, statistics.median(values(runs, "xfer")))
                  for (w, cores, d), runs in by.items() if (w, d) == (workload, design)]
        last = max(cores for cores, _ in points)
        a, b = fit(points)
        transfers[workload, design] = a + b * (1 - 1 / PROJECTED_CORES)
        instructions = statistics.median(values(by[workload, last, design], "instructions"))
        rates[workload, design] = PROJECTED_CORES / (
            instructions * SECONDS_PER_INSTRUCTION +
            transfers[workload, design] * SECONDS_PER_TRANSFER)
    for (workload, design), found in rates.items():
        table.add("%s, %s" % (workload, design), "%.1f" % transfers[workload, design],
                  "%.0f" % found, *("%.2f" % (found / rates[workload, other])
                                    if (workload, other) in rates else "-"
                                    for other in ("stock", "reuseport")))
    return table


def functions(rows):
    parts = []
    for row in rows:
        most = max(other["cores"] for other in rows if other["workload"] == row["workload"])
        if row["cores"] != most:
            continue
        table = Table("Most transfers: %s, %d cores, %s" % (
            row["workload"], row["cores"], row["design"]), ["function", "transfers",
                                                            "first touches", "instructions"])
        top = sorted(row["functions"].items(), key=lambda item: -item[1]["xfer"])[:10]
        for name, f in top:
            table.add(name, "%.2f" % f["xfer"], "%.2f" % f["m2"], "%.0f" % f["instructions"])
        parts.append(table)
    return parts


def rate(rows, directory):
    parts = []
    by = group(rows, "workload", "cores", "design")
    table = Table("Connection rate, keep-alive off", [
        "workload, cores, design", "requests/s", "+- %", "to stock", "runs"],
        "Medians. Of emulated CPUs only the ratios of one row to another mean something.")
    for (workload, cores, design), runs in by.items():
        table.add("%s, %d, %s" % (workload, cores, design),
                  "%.0f" % statistics.median(values(runs, "requests_per_s")),
                  "%.1f" % spread(values(runs, "requests_per_s")),
                  ratio(values(runs, "requests_per_s"),
                        values(by[workload, cores, "stock"], "requests_per_s")), len(runs))
    parts.append(table)
    for workload in sorted({key[0] for key in by}):
        plot = Plot(directory, "rate-" + workload, workload, "cores", "requests/s")
        plot.designs([(design, cores, values(runs, "requests_per_s"))
                      for (w, cores, design), runs in by.items() if w == workload])
        parts.append(plot)
    names = list(dict.fromkeys(name for row in rows for name in row["counters"]))
    if names:
        table = Table("Hardware's counters on the servers' cores: per request", [
            "workload, cores, design", *names])
        for (workload, cores, design), runs in by.items():
            table.add("%s, %d, %s" % (workload, cores, design), *(
                "%.1f" % statistics.median(row["counters"].get(name, 0) for row in runs)
                for name in names))
        parts.append(table)
    return parts


def connect(rows, directory):
    table = Table("connect(), by how many ports are in use", [
        "in use", "stock ns", "to 0 %", "fastsocket ns", "to 0 %", "stock to fastsocket"])
    plot = Plot(directory, "connect", "connect()", "ports in use, %", "ns")
    for row in rows:
        table.add("%d %%" % row["occupancy"], "%.0f" % row["stock_ns"],
                  "%.2f" % (row["stock_ns"] / rows[0]["stock_ns"]), "%.0f" % row["local_ns"],
                  "%.2f" % (row["local_ns"] / rows[0]["local_ns"]),
                  "%.2f" % (row["stock_ns"] / row["local_ns"]))
    for design, key in ("stock", "stock_all"), ("fastsocket", "local_all"):
        plot.line(design, [(row["occupancy"], row[key]) for row in rows])
    return [table, plot]


def pingpong(rows, directory):
    by = group(rows, "connections", "design")
    table = Table("Ping-pong over established connections", [
        "connections, design", "echoes/s", "+- %", "to stock", "p50 us", "p99 us", "p99.9 us"])
    plot = Plot(directory, "pingpong", "ping-pong", "connections", "p99 latency, us", log=True)
    for (count, design), runs in by.items():
        table.add("%d, %s" % (count, design),
                  "%.0f" % statistics.median(values(runs, "echoes_per_s")),
                  "%.1f" % spread(values(runs, "echoes_per_s")),
                  ratio(values(runs, "echoes_per_s"),
                        values(by[count, "stock"], "echoes_per_s")),
                  *("%.0f" % statistics.median(values(runs, p)) for p in ("p50", "p99", "p99.9")))
    plot.designs([(design, count, values(runs, "p99"))
                  for (count, design), runs in by.items()])
    return [table, plot]


def concurrency(rows, _):
    by = group(rows, "connections", "design")
    table = Table("Idle connections, and latency on 1,000 active ones among them", [
        "connections, design", "bytes each", "beyond stock", "echoes/s", "p50 us", "p99 us",
        "p99.9 us", "runs"], "Bytes of both ends together, programs included.")
    for (count, design), runs in by.items():
        each = statistics.median(values(runs, "bytes_per_connection"))
        stock = statistics.median(values(by[count, "stock"], "bytes_per_connection"))
        table.add("%d, %s" % (count, design), "%.0f" % each, "%+.0f" % (each - stock),
                  "%.0f" % statistics.median(values(runs, "echoes_per_s")),
                  *("%.0f" % statistics.median(values(runs, p)) for p in ("p50", "p99", "p99.9")),
                  len(runs))
    return [table]


def churn(rows, _):
    table = Table("Requests that fail while nginx's workers come and go", [
        "what, design", "times", "requests", "failed", "per 1,000 times"])
    for (kind, design), runs in group(rows, "kind", "design").items():
        count, failed = (sum(values(runs, key)) for key in ("count", "failed"))
        table.add("%s, %s" % (kind, design), count, sum(values(runs, "requests")), failed,
                  "%.1f" % (1000 * failed / count))
    return [table]


def goals(rows):
    """What was to be reached, and whether it was."""
    table = Table("Goals", ["goal", "found", "reached"])

    def add(goal, found, limit):
        for what, value in found:
            table.add(goal, "%s: %.2f" % (what, value), "yes" if value <= limit else "NO")

    names = {"xfer": "transfers", "m2": "first touches", "instructions": "instructions"}
    by = group([row for row in rows if row["benchmark"] == "sharing"],
               "workload", "cores", "design")
    middle = {key: {name: statistics.median(values(runs, name))
                    for name in names} for key, runs in by.items()}
    ours = [key for key in middle if key[2] == "fastsocket"]
    for workload in sorted({key[0] for key in ours}):
        cores = sorted(key[1] for key in ours if key[0] == workload)
        here = middle[workload, cores[-1], "fastsocket"]
        if len(cores) > 1:
            for metric in "xfer", "m2":
                add(names[metric] + " on the most cores <= 1.1 x those on the fewest",
                    [("%s, %d to %d" % (workload, cores[-1], cores[0]),
                      here[metric] / middle[workload, cores[0], "fastsocket"][metric])], 1.1)
        for other, what, limit in (("reuseport", "xfer", 0.25), ("cbpf", "xfer", 1),
                                   ("stock", "instructions", 1.02)):
            base = middle.get((workload, cores[-1], other))
            if base:
                add("%s <= %g x %s" % (names[what], limit, other),
                    [("%s, %d cores" % (workload, cores[-1]), here[what] / base[what])], limit)
    by = group([row for row in rows if row["benchmark"] == "concurrency"],
               "connections", "design")
    each = {key: statistics.median(values(runs, "bytes_per_connection"))
            for key, runs in by.items()}
    for count, design in each:
        # The clients' ends are in no table of the module's.
        if design == "fastsocket":
            add("bytes for an idle connection <= 128 beyond stock",
                [("%d connections" % count, each[count, design] - each[count, "stock"])], 128)
    return table


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = sys.argv[1]
    with open(os.path.join(directory, "results.jsonl")) as f:
        rows = [json.loads(line) for line in f]
    about = [row for row in rows if row["benchmark"] == "environment"]
    measured = [row for row in rows if row["benchmark"] != "environment"]
    if not measured:
        sys.exit("report.py: no results in " + directory)
    places = sorted({"Linux %s, %s" % (row["kernel"], {"tcg": "emulated (QEMU TCG)"}.get(
        row["accelerator"], row["accelerator"])) for row in measured})

    parts = []
    for name, make in (("sharing", sharing), ("rate", rate), ("connect", connect),
                       ("pingpong", pingpong), ("concurrency", concurrency), ("churn", churn)):
        some = [row for row in measured if row["benchmark"] == name]
        if some:
            parts += make(some, directory)
        if some and name == "sharing":
            parts += functions([row for row in measured
                                if row["benchmark"] == "sharing functions"])
    verdict = goals(measured)
    if verdict.rows:
        parts.append(verdict)

    with open(os.path.join(directory, "report.html"), "w") as f:
        f.write("<!DOCTYPE html><meta charset=utf-8><title>fastsocket: benchmarks</title>"
                "<style>body{font:15px sans-serif;margin:2em}td,th{padding:0 .8em;text-align:right}"
                "td:first-child,th:first-child{text-align:left}</style>"
                "<h1>fastsocket: benchmarks</h1><p>%s</p>" % html.escape("; ".join(places)))
        for row in about:
            f.write("<pre>%s</pre>" % html.escape(json.dumps(row, indent=1)))
        for part in parts:
            f.write(part.html() + "\n")
    print("\n" + "; ".join(places) + "\n")
    for part in parts:
        if isinstance(part, Table) and not part.title.startswith("Most transfers"):
            print(part.text())
    print("report: " + os.path.join(directory, "report.html"))


main()
