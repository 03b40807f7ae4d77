# SPDX-License-Identifier: GPL-2.0
"""Who imports this is its own subject: it runs itself with the library and a shim below
that, which counts, pauses and answers for the module where told to."""

import ctypes
import os
import sys

LIBS = "%s:%s" % (os.environ["FASTSOCKET_LIB"], os.environ["FASTSOCKET_SHIM"])
if os.environ.get("LD_PRELOAD") != LIBS:
    os.environ["LD_PRELOAD"] = LIBS
    os.execv(sys.argv[0], sys.argv)
del os.environ["LD_PRELOAD"]    # what the cases start is plain

libc = ctypes.CDLL(None)


class Shim:
    """The shim's variables, as attributes; flags of what was asked since reset()."""

    def __getattr__(self, name):
        return ctypes.c_int.in_dll(libc, "shim_" + name).value

    def __setattr__(self, name, value):
        ctypes.c_int.in_dll(libc, "shim_" + name).value = value

    def reset(self, answer):
        self.answer = answer
        self.asked = self.connects = self.opens = self.fail = self.version = 0

    def flags(self):
        return list((ctypes.c_uint * 64).in_dll(libc, "shim_flags")[:self.asked])


shim = Shim()
