"""Our training step against torchvision's SSDLite, on the same batch, in one process, in turn.

A step is all that happens between two batches: forward, matching, loss, gradient, optimiser, and
with us the averaged weights. Ours is the one that ``mbnet train`` runs. Theirs has the optimiser of
torchvision's reference script (SGD with momentum), and is timed in float32 and under bfloat16
autocast, as ours is:

- ``ssdlite320_mobilenet_v3_large``, what people train who take SSDLite from torchvision;
- the same detector around our backbone and extra maps, for a like-for-like comparison. What still
  differs: predictors with normalisation between their two convolutions, six anchors per cell on the
  first map too (ours has three), softmax over the hardest negatives and smooth L1 instead of
  sigmoid focal loss over all anchors and GIoU, and resizing and normalising inside the network.

Prints pictures a second (median step), and the multiplications of a forward pass for one picture:
networks of different size do not compare by time alone. The ratios at the end are of ours in
bfloat16, as a recipe has it, to the faster of theirs.

``mbnet train`` has the C library keep memory from step to step. So do all steps here;
``--no-keeping`` shows what that saves.

    python benchmarks/training_step.py [--alphas 1.0 0.5] [--batch 16] [--rounds 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead

from mbnet_perception.core.allocator import keep_memory
from mbnet_perception.core.architecture import make_detector
from mbnet_perception.evaluation.sources import Source
from mbnet_perception.evaluation.synthetic import write_pictures
from mbnet_perception.training.data import Draw, collate
from mbnet_perception.training.loss import Targets
from mbnet_perception.training.model import SSDLite
from mbnet_perception.training.processes import join_processes
from mbnet_perception.training.recipe import Recipe
from mbnet_perception.training.train import Run, read_data

SIZE = 320  # what torchvision's is made for, both sides
BFLOAT16 = ", bfloat16"
Step = Callable[[], object]


class FeatureMaps(nn.Module):
    """The six maps of our detector, as torchvision's SSD wants them from a backbone."""

    def __init__(self, detector: SSDLite) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.detector.backbone_maps(x)
        for extra in self.detector.extras:
            maps.append(extra(maps[-1]))
        return OrderedDict((str(i), level) for i, level in enumerate(maps))


def make_their_detector(alpha: float, classes: int) -> SSD:
    """Torchvision's SSDLite around our backbone."""
    table = make_detector("mobilenet_v2", alpha, classes)
    channels = [head.convs[0].in_channels for head in table.score_heads]
    boxes = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    anchors = boxes.num_anchors_per_location()
    head = SSDLiteHead(channels, anchors, classes + 1, nn.BatchNorm2d)
    maps = FeatureMaps(SSDLite("mobilenet_v2", alpha, classes))
    return SSD(maps, boxes, (SIZE, SIZE), classes + 1, head=head)


def their_step(model: nn.Module, images: Tensor, targets: list[Targets], bfloat16: bool) -> Step:
    """A step of torchvision's detector; it takes pictures of RGB in 0-1 and boxes in pixels."""
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=4e-5)
    wanted = [{"boxes": t.boxes * SIZE, "labels": t.classes + 1} for t in targets]

    def step() -> None:
        pictures = list(images.permute(0, 3, 1, 2).float().div(255))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            losses = model(pictures, wanted)
        loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def count_mmacs(model: nn.Module, inputs: object) -> float:
    """Millions of multiplications with addition in a forward pass."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(inputs)
    return counter.get_total_flops() / 2e6


def main() -> None:
    """Take the steps in turn and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alphas", type=float, nargs="+", default=[1.0, 0.5], metavar="A")
    parser.add_argument("--batch", type=int, default=16, help="pictures (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the arithmetic (%(default)s)")
    parser.add_argument("--no-keeping", action="store_true", help="give memory back as usual")
    args = parser.parse_args()
    if not args.no_keeping:
        keep_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    steps: dict[str, Step] = {}
    mmacs: dict[str, float] = {}

    with TemporaryDirectory() as folder, join_processes() as process:
        labels = write_pictures(Path(folder), args.batch, size=(SIZE, SIZE))
        recipe = Recipe((Source(labels),), str(labels))
        data, validation = read_data(recipe, process.say)
        classes = len(data.classes)
        draws = [Draw(i, SIZE, SIZE, (i,)) for i in range(args.batch)]
        images, targets = collate([data[draw] for draw in draws])
        for alpha in args.alphas:
            name = f"ours, alpha {alpha:g}"
            network = SSDLite(recipe.backbone, alpha, classes)
            mmacs[name] = count_mmacs(network, torch.zeros(1, 3, SIZE, SIZE))
            for suffix in ("", BFLOAT16):
                changed = replace(recipe, alpha=alpha, bfloat16=bool(suffix))
                run = Run(changed, Path(folder), data, validation, process)
                run.network.train()
                steps[name + suffix] = partial(run.train_step, draws, images, targets)
        theirs = {
            "torchvision, MobileNetV3-Large": lambda: ssdlite320_mobilenet_v3_large(
                weights=None, weights_backbone=None, num_classes=classes + 1
            )
        }
        for alpha in args.alphas:
            theirs[f"torchvision, our alpha {alpha:g}"] = partial(
                make_their_detector, alpha, classes
            )
        for name, make in theirs.items():
            mmacs[name] = count_mmacs(make(), [torch.zeros(3, SIZE, SIZE)])
            for suffix in ("", BFLOAT16):
                steps[name + suffix] = their_step(make(), images, targets, bool(suffix))
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(args.rounds + 1):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                if turn:  # the first one warms up
                    seconds[name].append(time.perf_counter() - start)
    print(
        f"batch {args.batch} at {SIZE} x {SIZE}, {args.threads} threads, torch {torch.__version__}"
    )
    rates = {name: args.batch / statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        spread = f"{args.batch / max(values):.2f}-{args.batch / min(values):.2f}"
        macs = mmacs[name.removesuffix(BFLOAT16)]
        print(
            f"{name:42} {rates[name]:7.2f} pictures/s ({spread})  {macs:5.0f} M multiplications "
            "forward"
        )
    for alpha in args.alphas:
        ours = rates[f"ours, alpha {alpha:g}{BFLOAT16}"]
        for name in ("torchvision, MobileNetV3-Large", f"torchvision, our alpha {alpha:g}"):
            best = max(rates[name], rates[name + BFLOAT16])
            print(f"ours, alpha {alpha:g}: {ours / best:.2f} times the best of {name}")


if __name__ == "__main__":
    main()
