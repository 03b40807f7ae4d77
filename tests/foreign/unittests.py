#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Run Python's unit tests of the modules named; a line "RESULT TEST" for each."""

import sys
import unittest


class Result(unittest.TestResult):
    """Says how each test ended, once."""

    def startTest(self, test):
        super().startTest(test)
        self.how = "ok"

    def addError(self, test, err):
        super().addError(test, err)
        self.how = "error"
        if not isinstance(test, unittest.TestCase):     # a fixture of a class
            print("error", test.id(), flush=True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.how = "failure"

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.how = "failure"

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.how = "skip"

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.how = "expected"

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.how = "unexpected"

    def stopTest(self, test):
        super().stopTest(test)
        print(self.how, test.id(), flush=True)


loader = unittest.defaultTestLoader
suite = loader.loadTestsFromNames(sys.argv[1:])
if loader.errors:
    sys.exit("\n".join(loader.errors))
result = Result()
suite.run(result)
for _, text in result.errors + result.failures:
    print("".join("# %s\n" % line for line in text.splitlines()), file=sys.stderr)
