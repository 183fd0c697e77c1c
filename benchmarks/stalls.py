"""How long this computer itself holds up a program that does nothing but read the clock.

One such program on each core. What other programs, the kernel or, on a virtual machine, its host
take from them, they take from a detector as well: no figure of a benchmark can be better than that.

    python benchmarks/stalls.py [--seconds 40]
"""

from __future__ import annotations

import argparse
import os
import time
from multiprocessing import Pool

LEAST = 1e-3  # seconds; less is an interrupt


def watch(core: int, seconds: float) -> list[float]:
    """Read the clock on one core for so long; returns how long each stall took, in seconds."""
    os.sched_setaffinity(0, {core})
    stalls = []
    last = time.perf_counter()
    end = last + seconds
    while last < end:
        now = time.perf_counter()
        if now - last > LEAST:
            stalls.append(now - last)
        last = now
    return stalls


def main() -> None:
    """Watch all cores at once and print what held them up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0, help="(%(default)s)")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with Pool(len(cores)) as pool:
        found = pool.starmap(watch, [(core, args.seconds) for core in cores], chunksize=1)
    for core, stalls in zip(cores, found, strict=True):
        longest = sorted(stalls, reverse=True)[:5]
        print(
            f"core {core}: {len(stalls)} stalls of {1e3 * LEAST:.0f} ms or more in "
            f"{args.seconds:.0f} s, {100 * sum(stalls) / args.seconds:.2f} % of the time; longest "
            f"{', '.join(f'{1e3 * stall:.1f}' for stall in longest) or 'none'} ms"
        )


if __name__ == "__main__":
    main()
