"""How long sessions of model files take to make and to run, in turns.

A change of the operating point makes one, and a node that starts. Prints nodes of each file,
milliseconds (median) to make its session and to run it once that is warm, and both as a share of
the first file's. Needs onnx, to count the nodes.

    python benchmarks/session.py FILE [FILE ...] [--size 320 240] [--rounds 60] [--threads 1]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from mbnet_perception.inference.detector import WARM_RUNS, ModelContent, make_session

RUNS = 6  # timed in each round, once warm


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="model files")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(320, 240), metavar=("W", "H"), help="of the input"
    )
    parser.add_argument("--rounds", type=int, default=60, help="sessions of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime (%(default)s)")
    args = parser.parse_args()
    width, height = args.size
    picture = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    models = [ModelContent(path.read_bytes()) for path in args.files]
    made: list[list[float]] = [[] for _ in models]
    ran: list[list[float]] = [[] for _ in models]
    for _ in range(args.rounds):
        for path, model, makes, runs in zip(args.files, models, made, ran, strict=True):
            began = time.perf_counter()
            session = make_session(model.source, (height, width), args.threads, str(path))
            makes.append(1e3 * (time.perf_counter() - began))
            for each in range(WARM_RUNS + RUNS):
                began = time.perf_counter()
                session.run(None, {"image": picture})
                if each >= WARM_RUNS:
                    runs.append(1e3 * (time.perf_counter() - began))
    for path, makes, runs in zip(args.files, made, ran, strict=True):
        make, run = median(makes), median(runs)
        print(
            f"{path}: {len(onnx.load(path).graph.node)} nodes   "
            f"made in {make:.1f} ms ({make / median(made[0]):.3f})   "
            f"run in {run:.3f} ms ({run / median(ran[0]):.3f})"
        )


if __name__ == "__main__":
    main()
