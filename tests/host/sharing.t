#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The sharing meter counts the cache-line transfers, first touches and instructions
# of a program for which they are known.

exec "$(dirname "$0")/../../benchmarks/sharing/run" --known
