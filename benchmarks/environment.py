#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""One line of results that says where and with what the others were measured.

usage: environment.py COMMAND"""

import json
import os
import re
import subprocess
import sys
import time


def said(*command):
    try:
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
    except FileNotFoundError:
        return "none"
    return (done.stdout.strip() or "none").splitlines()[0]


def cpu():
    with open("/proc/cpuinfo") as f:
        return (re.findall(r"model name\s*: (.*)", f.read()) or ["unknown"])[0]


print(json.dumps({
    "benchmark": "environment",
    "command": sys.argv[1],
    "settings": {name: os.environ[name] for name in
                 ("QUICK", "KERNEL", "CORES", "ACCEL", "CONNECTIONS") if os.environ.get(name)},
    "date": time.strftime("%Y-%m-%d"),
    "cpu": cpu(),
    "cpus": os.cpu_count(),
    "host_kernel": os.uname().release,
    "versions": {
        "fastsocket": said("git", "describe", "--always", "--dirty"),
        "nginx": said("nginx", "-v").replace("nginx version: ", ""),
        "haproxy": said("haproxy", "-v").split(" - ")[0],
        "qemu": said("qemu-system-x86_64", "--version"),
    },
}))
