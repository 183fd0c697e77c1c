"""Forward and backward of depthwise convolutions in PyTorch on the CPU, bfloat16 against float32.

python benchmarks/strided_depthwise.py
"""

from __future__ import annotations

import time

import torch
from torch.nn import functional


def measure(channels: int, size: int, stride: int, dtype: torch.dtype) -> float:
    """Milliseconds, the best of five, for a batch of 32 in channels-last memory."""
    x = torch.randn(32, channels, size, size, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, 1, 3, 3, dtype=dtype, requires_grad=True)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        y = functional.conv2d(x, weight, None, stride, 1, groups=channels)
        y.backward(torch.ones_like(y))
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def main() -> None:
    """Print a line per shape of MobileNetV2 at alpha 0.5 and 192 pixels."""
    torch.set_num_threads(1)
    for channels, size in ((48, 96), (96, 48), (96, 24), (288, 12)):
        for stride in (1, 2):
            bfloat16 = measure(channels, size, stride, torch.bfloat16)
            float32 = measure(channels, size, stride, torch.float32)
            print(
                f"{channels:4} channels {size:3} pixels stride {stride}: "
                f"bfloat16 {bfloat16:6.1f} ms  float32 {float32:6.1f} ms  "
                f"ratio {bfloat16 / float32:.2f}"
            )


if __name__ == "__main__":
    main()
