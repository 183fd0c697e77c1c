"""How the C library keeps memory, where it is glibc; with another one nothing is done."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of its malloc.h


def keep_memory() -> None:
    """Have what is given back kept for later, as by a step of training for the next one.

    Otherwise the maps of each step are new pages, which the kernel clears one by one; see
    benchmarks/training_step.py.
    """
    _set_option(M_MMAP_MAX, 0)
    _set_option(M_TRIM_THRESHOLD, 2**31 - 1)


def share_arenas() -> None:
    """Have threads that begin from now on allocate from the memory of those before.

    Else each has an arena of its own, of which glibc keeps the end that was free last, several
    megabytes, :func:`return_memory` or not (figures in docs/decisions.md).
    """
    _set_option(M_ARENA_MAX, 1)


def return_memory() -> None:
    """Give memory that nobody uses back to the system.

    It is kept for later otherwise. Other threads that want memory meanwhile wait, for milliseconds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _set_option(option: int, value: int) -> None:
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option:
        set_option(option, value)
