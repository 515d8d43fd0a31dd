"""Execute a server that ends with its parent. Run as a script: `<parent pid> <program> <arguments…>`.

A script instead of `preexec_fn`, which runs Python between fork and exec in a process with threads (stream
reader, reactor) and can deadlock there. It takes 15 ms (`python -I -S`); the server takes 15 to 45 ms to
start. It imports nothing of homewire, which would take longer.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2]
    # Ctrl-C signals the whole foreground group; the server must run until its clients are drained.
    os.setsid()
    if sys.platform == "linux":
        # SIGKILL, because a server that cannot write its file ignores SIGTERM. The kernel already has all
        # acknowledged writes.
        if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            sys.exit("prctl(PR_SET_PDEATHSIG) failed")
        # A parent that ended before the prctl causes no signal.
        if os.getppid() != parent:
            sys.exit("the parent is gone")
    os.execv(program, sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    main()
