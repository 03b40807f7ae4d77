#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""No request fails while nginx reloads or its workers die."""

import importlib.machinery
import importlib.util
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
sys.path.insert(0, os.path.join(here, "..", "kmod"))
from fstest import *  # noqa: E402,F403 pylint: disable=W,C

loader = importlib.machinery.SourceFileLoader("churn", os.path.join(here, "churn"))
churn = importlib.util.module_from_spec(importlib.util.spec_from_loader("churn", loader))
loader.exec_module(churn)


COUNT = int(200 / SLOW)


def run_churn(kind, count):
    d = Delta()
    result = churn.churn("fastsocket", kind, count, clients=4)
    print("# %s" % result)
    assert result["failed"] == 0
    assert result["requests"] > 10 * count
    # The test means nothing where the connections went the slow way; those of
    # a core whose worker is dead or new do, and one of four often is.
    assert d.accept_local > 0.25 * result["requests"], stats()
    return d


@case
def reloads(stack):
    """200 reloads under load: 0 failed requests."""
    run_churn("reload", COUNT)


@case
def kills(stack):
    """200 workers killed under load: 0 failed requests; what waited for them has moved."""
    assert run_churn("kill", COUNT).moved > 0


load(patient=False)
main()
