"""Make models of widths that nobody has trained yet, to be timed and for nothing else.

They have the layers of a trained model, and normalisation measured on the pictures of the
benchmark, so that no value is out of the ordinary. Their scores are shifted until so many boxes of
a picture pass the default threshold: what they find is noise, but it costs what objects do. Needs
torch.

    python benchmarks/untrained.py FOLDER [--alphas 1.0 0.5] [--boxes 10]
    mbnet benchmark --models FOLDER --alpha 1.0 --node
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mbnet_perception.core.anchors import DEFAULT_SCALES
from mbnet_perception.core.detections import Selection
from mbnet_perception.core.images import Picture
from mbnet_perception.core.scene import CLASSES
from mbnet_perception.inference.benchmark import drive_pictures
from mbnet_perception.inference.detector import prepare_image
from mbnet_perception.inference.format import Metadata
from mbnet_perception.inference.models import add_model
from mbnet_perception.training.export import make_onnx
from mbnet_perception.training.model import SSDLite
from mbnet_perception.training.train import to_input

RESOLUTIONS = (224, 256, 288, 320)


def make_model(backbone: str, alpha: float, boxes: int) -> tuple[bytes, Metadata]:
    """A model file with random weights that reports about so many boxes of a synthetic drive."""
    torch.manual_seed(0)
    model = SSDLite(backbone, alpha, len(CLASSES))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over what it sees
    pictures = [prepare_image(Picture.of_bgr(bgr), RESOLUTIONS[-1]) for bgr in drive_pictures()]
    x = to_input(torch.from_numpy(np.concatenate(pictures)), torch.device("cpu"))
    with torch.no_grad():
        model.train()(x)
        logits = model.eval()(x)[1].flatten()
        threshold = Selection.score_threshold
        shift = (
            math.log(threshold / (1 - threshold)) - logits.topk(len(pictures) * boxes).values[-1]
        )
        for head in model.score_heads:
            head.convs[-1][0].bias += shift
    metadata = Metadata(
        backbone=backbone,
        alpha=alpha,
        precision="fp32",
        classes=CLASSES,
        anchor_scales=DEFAULT_SCALES,
        resolutions=RESOLUTIONS,
        trained_with="nothing: random weights, to be timed alone",
    )
    return make_onnx(model, metadata).SerializeToString(), metadata


def main() -> None:
    """Make the models and say what they report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="to make, or to add to; not the installed one")
    parser.add_argument("--backbone", default="mobilenet_v2", help="(%(default)s)")
    parser.add_argument("--alphas", type=float, nargs="+", default=[1.0, 0.5], metavar="A")
    parser.add_argument("--boxes", type=int, default=10, help="to report (%(default)s)")
    args = parser.parse_args()
    for alpha in args.alphas:
        model, metadata = make_model(args.backbone, alpha, args.boxes)
        path = add_model(args.folder, model, metadata, {"data": "none: random weights"})
        print(path)


if __name__ == "__main__":
    main()
