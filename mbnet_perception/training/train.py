"""A training run: from a recipe to checkpoints."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from mbnet_perception.core.anchors import make_anchors
from mbnet_perception.core.detections import Detections, select_detections
from mbnet_perception.core.images import Picture
from mbnet_perception.evaluation.accuracy import MEASURING, measure_detector
from mbnet_perception.evaluation.average_precision import Result
from mbnet_perception.evaluation.dataset import Dataset, read_coco
from mbnet_perception.inference.detector import prepare_image
from mbnet_perception.training.data import ASPECTS, BatchSampler, Draw, TrainingData, collate
from mbnet_perception.training.loss import detection_loss
from mbnet_perception.training.model import SSDLite, decode_boxes
from mbnet_perception.training.recipe import Recipe, recipe_from

CHECKPOINT = "last.pt"


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says where it stood and what to do."""


def train(recipe: Recipe, folder: Path, resume: bool = False) -> Result:
    """Run a recipe.

    Writes into ``folder`` after each epoch ``last.pt`` (weights, averaged weights, optimiser,
    recipe, classes; all that resuming takes) and a line of ``log.jsonl``.

    Args:
        recipe: What to do.
        folder: Where to; made if missing.
        resume: Go on from ``last.pt`` of the same recipe.

    Returns:
        What the averaged weights reach on the validation data, at the largest of the sizes.

    Raises:
        TrainingError: If the loss is not finite, or a checkpoint is of another recipe or network,
            or there is one already and ``resume`` is off.
        DatasetError: If data cannot be used.
    """
    sources = [read_coco(Path(path)) for path in recipe.train]
    validation = read_coco(Path(recipe.validation))
    classes = sources[0].classes
    data = TrainingData(sources, classes)
    torch.manual_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = SSDLite(recipe.backbone, recipe.alpha, len(classes))
    if recipe.start_from:
        load_weights(model, Path(recipe.start_from))
    model.to(device).to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = make_optimizer(model, recipe)
    repeats = data.repeat_factors(recipe.balance)
    sampler = BatchSampler(repeats, recipe.batch_size, recipe.sizes, recipe.epochs, recipe.seed)

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    first = 0
    if checkpoint.exists():
        if not resume:
            raise TrainingError(f"{checkpoint} exists; resume it, or choose another folder")
        state = read_checkpoint(checkpoint)
        if state["recipe"] != recipe.as_dict():
            raise TrainingError(f"{checkpoint} is of another recipe: {state['recipe']}")
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]

    loader = DataLoader(
        data,
        batch_sampler=sampler,
        num_workers=recipe.workers,
        collate_fn=collate,
        prefetch_factor=4 if recipe.workers else None,
    )
    step = first * len(sampler)
    result = None
    for epoch in range(first, recipe.epochs):
        sampler.epoch = epoch
        model.train()
        started = time.monotonic()
        sums = np.zeros(2)
        progress = tqdm(
            loader, f"epoch {epoch + 1}/{recipe.epochs}", file=sys.stderr, mininterval=5
        )
        for images, targets in progress:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, recipe, len(sampler))
            x = to_input(images, device)
            anchors = torch.from_numpy(make_anchors(x.shape[2], x.shape[3]))
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
                regressions, logits = model(x)
            losses = detection_loss(regressions.cpu(), logits.cpu(), anchors, targets)
            loss = losses[0] + losses[1]
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"the loss is {loss.item()} at step {step} of epoch {epoch + 1}; "
                    "try a smaller learning_rate, or look at the labels"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            step += 1
            # Early on the average follows closely: it must not remember the random start.
            update_average(average, model, min(recipe.ema, (1 + step) / (10 + step)))
            sums += [losses[0].item(), losses[1].item()]
            progress.set_postfix(score=f"{losses[0].item():.3f}", box=f"{losses[1].item():.3f}")
        line: dict[str, Any] = {
            "epoch": epoch + 1,
            "score_loss": round(float(sums[0]) / len(sampler), 4),
            "box_loss": round(float(sums[1]) / len(sampler), 4),
            "seconds": round(time.monotonic() - started, 1),
        }
        if epoch + 1 == recipe.epochs:
            settle_normalisation(average, data, recipe)
        save_checkpoint(
            {
                "recipe": recipe.as_dict(),
                "classes": list(classes),
                "epoch": epoch + 1,
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            checkpoint,
        )
        if (epoch + 1) % 5 == 0 or epoch + 1 == recipe.epochs:
            result = evaluate(average, validation, classes, max(recipe.sizes))
            line |= {"ap": round(result.ap, 4), "ap50": round(result.ap50, 4)}
        with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        print(line, file=sys.stderr, flush=True)
    return result or evaluate(average, validation, classes, max(recipe.sizes))


def load_weights(model: SSDLite, checkpoint: Path) -> None:
    """Take over the averaged weights of a checkpoint of the same network.

    Raises:
        TrainingError: If it cannot be read, or is of another network; names both.
    """
    state = read_checkpoint(checkpoint)
    try:
        model.load_state_dict(state["average"])
    except RuntimeError as error:
        theirs = recipe_from(state["recipe"], str(checkpoint))
        raise TrainingError(
            f"{checkpoint}: holds {theirs.backbone} alpha {theirs.alpha:g} with "
            f"{len(state['classes'])} classes, which does not fit the recipe's network"
        ) from error


def to_input(images: Tensor, device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 RGB to (B, 3, H, W) float32 in [-1, 1], channels last in memory."""
    return images.to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; weight decay on convolutions across channels alone."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim == 4 and parameter.shape[1] > 1 else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def learning_rate(step: int, recipe: Recipe, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine to zero at the end of the run."""
    total = recipe.epochs * steps_per_epoch
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / total))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights and normalisation statistics towards the model's."""
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    floats = [(a, m) for a, m in pairs if a.dtype.is_floating_point]
    torch._foreach_lerp_([a for a, _ in floats], [m for _, m in floats], 1 - decay)
    for a, m in pairs:
        if not a.dtype.is_floating_point:
            a.copy_(m)


SETTLING_BATCHES = 100


@torch.no_grad()
def settle_normalisation(model: SSDLite, data: TrainingData, recipe: Recipe) -> None:
    """Measure the statistics of normalisation anew, with the weights as they now are.

    Those gathered over a run are of weights that no longer are (arXiv 2105.07576, section 3), and
    of inputs of every size, where the share of padding in the deep maps differs. Takes augmented
    pictures at the recipe's ``settling_sizes`` in turn; leaves the model in evaluation mode.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    device = next(model.parameters()).device
    rng = np.random.default_rng((recipe.seed, recipe.epochs))
    model.train()
    for batch in range(SETTLING_BATCHES):
        turn, place = divmod(batch, len(recipe.settling_sizes))
        size = recipe.settling_sizes[place]
        height = round(size * ASPECTS[turn % len(ASPECTS)])
        rows = rng.integers(len(data), size=recipe.batch_size).tolist()
        draws = [Draw(i, height, size, (recipe.seed, batch, k)) for k, i in enumerate(rows)]
        images, _ = collate([data[draw] for draw in draws])
        model(to_input(images, device))
    model.eval()
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value


def evaluate(model: SSDLite, dataset: Dataset, classes: tuple[str, ...], resolution: int) -> Result:
    """Measure a network in evaluation mode, as ``mbnet evaluate`` measures a model file."""
    device = next(model.parameters()).device
    mask = np.ones(len(classes), bool)

    @torch.no_grad()
    def detect(image: NDArray[np.uint8]) -> Detections:
        pixels = prepare_image(Picture.of_bgr(image), resolution)
        anchors = torch.from_numpy(make_anchors(pixels.shape[1], pixels.shape[2]))
        regressions, logits = model(to_input(torch.from_numpy(pixels), device))
        boxes = decode_boxes(regressions[0].cpu(), anchors).numpy()
        scores = logits[0].sigmoid().cpu().numpy()
        return select_detections(boxes, scores, image.shape[:2], MEASURING, mask)

    return measure_detector(dataset, classes, detect)


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write beside and rename, so that an interrupted write leaves the previous file whole."""
    beside = path.with_suffix(".partial")
    torch.save(state, beside)
    beside.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours without running anything in it.

    Raises:
        TrainingError: If it is missing, damaged, or no checkpoint of ``mbnet train``.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler or the archive does
        raise TrainingError(f"{path}: no checkpoint that PyTorch can read: {error}") from error
    wanted = {"recipe", "classes", "epoch", "model", "average", "optimizer"}
    if not isinstance(state, dict) or not wanted <= set(state):
        raise TrainingError(f"{path}: expected a checkpoint of mbnet train with {sorted(wanted)}")
    recipe_from(state["recipe"], str(path))
    return state
