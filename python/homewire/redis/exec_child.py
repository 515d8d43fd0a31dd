"""Become a server that dies with its parent: run as a script, `<parent pid> <program> <arguments…>`.

A program of its own instead of `preexec_fn`, which runs Python between fork and exec of a process with
threads (the tail, the reactor) and can deadlock there. Measured: 15 ms (`python -I -S`), beside the
server's own start of 15 to 45 ms. Imports nothing of homewire, so that it stays that cheap.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2]
    # Ctrl-C goes to the whole foreground group; the server must outlive the draining of its clients.
    os.setsid()
    if sys.platform == "linux":
        # SIGKILL, for a server that cannot write its file refuses to go on SIGTERM. What it acknowledged
        # is with the kernel already.
        if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            sys.exit("prctl(PR_SET_PDEATHSIG) failed")
        # A parent that died before the prctl sends no signal any more.
        if os.getppid() != parent:
            sys.exit("the parent is gone")
    os.execv(program, sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    main()
