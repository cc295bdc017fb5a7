"""Runs a command for which io_uring_setup fails, as the seccomp profile of a container engine makes it.

    deny_io_uring.py EPERM COMMAND [ARGUMENT ...]
"""

import ctypes
import errno
import os
import struct
import sys

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7FFF0000
# The same number on every architecture.
IO_URING_SETUP = 425

LOAD_SYSTEM_CALL_NUMBER = (0x20, 0, 0, 0)
SKIP_UNLESS_EQUAL = (0x15, 0, 1, IO_URING_SETUP)
RETURN = 0x06


def main():
    code = getattr(errno, sys.argv[1])
    instructions = [
        LOAD_SYSTEM_CALL_NUMBER,
        SKIP_UNLESS_EQUAL,
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | code),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    code_of_filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
    program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(code_of_filter))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)]:
        if prctl(*arguments) != 0:
            sys.exit(f"prctl{arguments}: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[2], sys.argv[2:])


main()
