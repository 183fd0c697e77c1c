"""The processes of one run: a single one, or those that ``torchrun`` starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

# The others wait for so long while the first one measures.
PATIENCE = timedelta(hours=4)


@dataclass(frozen=True)
class Process:
    """One of ``count`` processes; the first alone, rank 0, measures, writes and talks."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Tell people on stderr, once."""
        if self.first:
            print(text, file=sys.stderr, flush=True)

    def share(self, model: nn.Module) -> nn.Module:
        """Have the gradients of a network averaged over the processes."""
        if self.count == 1:
            return model
        return DistributedDataParallel(
            model, device_ids=[self.device] if self.device.type == "cuda" else None
        )


@contextmanager
def join_processes() -> Iterator[Process]:
    """Join the processes that ``torchrun`` started, one GPU each; without it, be the only one."""
    cuda = torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Process(0, 1, torch.device("cuda" if cuda else "cpu"))
        return
    device = torch.device("cpu")
    if cuda:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Process(distributed.get_rank(), distributed.get_world_size(), device)
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
