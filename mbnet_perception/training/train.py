"""A training run: from a recipe to checkpoints."""

from __future__ import annotations

import copy
import json
import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from mbnet_perception.core.allocator import keep_memory
from mbnet_perception.core.anchors import make_anchors
from mbnet_perception.core.detections import Detections, select_detections
from mbnet_perception.core.images import Picture
from mbnet_perception.evaluation.accuracy import MEASURING, measure_detector
from mbnet_perception.evaluation.average_precision import Result
from mbnet_perception.evaluation.dataset import Dataset, DatasetError
from mbnet_perception.evaluation.sources import read_class_map, read_labels, read_sources
from mbnet_perception.inference.detector import prepare_image
from mbnet_perception.training.checkpoints import (
    TrainingError,
    describe_code,
    load_start,
    read_checkpoint,
    save_checkpoint,
    write_recipe,
)
from mbnet_perception.training.data import ASPECTS, BatchSampler, Draw, TrainingData, collate
from mbnet_perception.training.distillation import distillation_loss, load_teacher
from mbnet_perception.training.loss import Targets, detection_loss, make_answers
from mbnet_perception.training.model import SSDLite, decode_boxes
from mbnet_perception.training.processes import Process, join_processes
from mbnet_perception.training.recipe import Recipe, recipe_from

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LAST = "last.pt"
BEST = "best.pt"
SAVE_SECONDS = 600.0  # at most so much of an epoch is lost
SKIPPED_SHOWN = 10
WRITE_STEPS = 20  # from one point of TensorBoard's curves to the next


def train(recipe: Recipe, folder: Path, resume: bool = False) -> Result | None:
    """Run a recipe; under ``torchrun``, in all of its processes together.

    Writes into ``folder``: ``last.pt`` after each epoch and every ten minutes (weights, averaged
    weights, optimiser, recipe, classes; all that resuming takes), ``best.pt`` like it from where
    the averaged weights reached the best AP, ``recipe.yaml``, a line of ``log.jsonl`` for each
    epoch, and ``tensorboard/`` where TensorBoard is installed.

    A resumed run does what an unbroken one would have done, to the last bit on the CPU: whatever
    is random in a step follows from the recipe's seed and the step.

    Args:
        recipe: What to do.
        folder: Where to; made if missing.
        resume: Go on from ``last.pt`` of the same recipe.

    Returns:
        What the averaged weights reach on the validation data, at the largest of the sizes. None
        in processes other than the first.

    Raises:
        TrainingError: If the loss is not finite, a checkpoint cannot be saved or is of another
            recipe or network, or there is one already and ``resume`` is off.
        DatasetError: If data cannot be used.
    """
    if (folder / LAST).exists() and not resume:
        raise TrainingError(f"{folder / LAST} exists; resume it, or choose another folder")
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    keep_memory()
    with join_processes() as process:
        data, validation = read_data(recipe, process.say)
        run = Run(recipe, folder, data, validation, process)
        if (folder / LAST).exists():
            run.restore()
        if process.first:
            run.prepare_folder()
        result = None
        while run.epoch < recipe.epochs:
            line = run.train_epoch()
            if not process.first:
                continue
            finished = run.epoch == recipe.epochs
            if finished:
                settle_normalisation(run.average, data, recipe)
            run.save(LAST)
            if finished or run.epoch % recipe.validate_every == 0:
                result = run.measure()
                line |= result.rounded()
            with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            process.say(str(line))
        return (result or run.measure()) if process.first else None


def read_data(recipe: Recipe, say: Callable[[str], None]) -> tuple[TrainingData, Dataset]:
    """What a recipe learns from and what it is measured on; tells what had to be left out.

    Raises:
        DatasetError: If a label file cannot be used, or one of the two holds no boxes.
        ValueError: If the policy cannot be used.
    """
    class_map = read_class_map(Path(recipe.class_map)) if recipe.class_map else None
    sources = read_sources(recipe.train, class_map, recipe.on_bad)
    validation = read_labels(Path(recipe.validation), class_map, on_bad=recipe.on_bad)
    for dataset in (*(source for source, _ in sources), validation):
        for line in dataset.skipped[:SKIPPED_SHOWN]:
            say(f"left out: {line}")
        if dataset.skipped:
            say(f"left out {len(dataset.skipped)} in all of {len(dataset.pictures)} pictures")
    if not any(len(picture.boxes) for picture in validation.pictures):
        raise DatasetError(f"{recipe.validation}: holds no boxes, so nothing can be measured on it")
    policy = None
    if recipe.policy:
        # Imported here alone: it needs albumentations, which a run without a policy does not.
        from mbnet_perception.training.policy import read_policy

        policy = read_policy(Path(recipe.policy))
    return TrainingData(sources, policy, recipe.mosaic), validation


class Run:
    """A run between two steps: ``epoch`` passes are complete, and ``step`` batches of the next."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        data: TrainingData,
        validation: Dataset,
        process: Process,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.data = data
        self.validation = validation
        self.process = process
        torch.manual_seed(recipe.seed)
        self.model = SSDLite(recipe.backbone, recipe.alpha, len(data.classes))
        if recipe.start_from:
            taken = load_start(self.model, Path(recipe.start_from), recipe, data.classes)
            process.say(f"start from {taken}")
        self.model.to(process.device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.network = process.share(self.model)
        self.teacher = None
        if recipe.teacher:
            teacher = load_teacher(Path(recipe.teacher), data.classes, recipe.anchor_scales)
            self.teacher = teacher.to(process.device).to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.model, recipe)
        self.sampler = BatchSampler(
            data.repeat_factors(recipe.balance),
            recipe.batch_size,
            recipe.sizes,
            recipe.epochs,
            recipe.seed,
            process.rank,
            process.count,
        )
        self.loader = DataLoader(
            data,
            batch_sampler=self.sampler,
            num_workers=recipe.workers,
            collate_fn=collate,
            prefetch_factor=4 if recipe.workers else None,
            pin_memory=process.device.type == "cuda",
        )
        self.epoch = 0
        self.step = 0
        self.best = -1.0
        self.code = describe_code()
        self.writer: SummaryWriter | None = None

    def restore(self) -> None:
        """Go to where ``last.pt`` of the same recipe stood.

        Raises:
            TrainingError: If it is of another recipe; names what differs.
        """
        path = self.folder / LAST
        state = read_checkpoint(path)
        ours, theirs = self.recipe.as_dict(), recipe_from(state["recipe"], str(path)).as_dict()
        differing = [
            f"{name} is {theirs[name]} there and {ours[name]} here"
            for name in ours
            if theirs[name] != ours[name]
        ]
        if differing:
            raise TrainingError(
                f"{path} is of another recipe: {'; '.join(differing)}; "
                "resume it with its own (recipe.yaml beside it), or choose another folder"
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state.get("step", 0)
        if (self.folder / BEST).exists():
            self.best = read_checkpoint(self.folder / BEST)["accuracy"]["ap"]

    def prepare_folder(self) -> None:
        """Write down what runs, before it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_recipe(self.recipe, self.code, self.folder / "recipe.yaml")
        if self.recipe.policy:
            shutil.copyfile(self.recipe.policy, self.folder / "policy.yaml")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.process.say("no tensorboard/: TensorBoard is not installed")
        else:
            # What a broken run wrote after its last checkpoint goes.
            self.writer = SummaryWriter(
                str(self.folder / "tensorboard"), purge_step=self.steps_done + 1
            )

    @property
    def steps_done(self) -> int:
        """Steps since the run began."""
        return self.epoch * len(self.sampler) + self.step

    def train_epoch(self) -> dict[str, float]:
        """Do what is left of the pass.

        Returns:
            For the log: the epoch, means of the losses, and the seconds it took.
        """
        self.network.train()
        self.sampler.epoch, self.sampler.skip = self.epoch, self.step
        started = saved = time.monotonic()
        sums: Counter[str] = Counter()
        progress = tqdm(
            zip(self.sampler, self.loader, strict=True),
            f"epoch {self.epoch + 1}/{self.recipe.epochs}",
            total=len(self.sampler),
            initial=self.step,
            file=sys.stderr,
            mininterval=5,
            disable=not self.process.first,
        )
        for draws, (images, targets) in progress:
            losses = self.train_step(draws, images, targets)
            sums.update(losses)
            shown = {name: f"{loss:.3f}" for name, loss in losses.items()}
            progress.set_postfix(shown, refresh=False)
            if self.process.first and time.monotonic() - saved > SAVE_SECONDS:
                self.save(LAST)
                saved = time.monotonic()
        steps = self.step - self.sampler.skip
        self.epoch, self.step = self.epoch + 1, 0
        return {
            "epoch": self.epoch,
            **{f"{name}_loss": round(total / steps, 4) for name, total in sums.items()},
            "seconds": round(time.monotonic() - started, 1),
        }

    def train_step(
        self, draws: Sequence[Draw], images: Tensor, targets: Sequence[Targets]
    ) -> dict[str, float]:
        """Learn from a batch, and give its losses.

        Raises:
            TrainingError: If the loss or its gradient is not finite, before weights change.
        """
        recipe, device = self.recipe, self.process.device
        rate = learning_rate(self.steps_done, recipe, len(self.sampler))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        x = to_input(images, device)
        anchors = torch.from_numpy(make_anchors(x.shape[2], x.shape[3], recipe.anchor_scales))
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
            regressions, logits = self.network(x)
            taught = self.teacher(x) if self.teacher else None
        # A GPU is still at work on the network while the CPU finds out what it should say.
        answers = make_answers(anchors, targets).to(device)
        anchors = anchors.to(device)
        score, box = detection_loss(regressions, logits, anchors, answers)
        losses = {"score": score, "box": box}
        if taught:
            distance = distillation_loss((regressions, logits), taught, anchors)
            losses["distillation"] = recipe.distillation * distance
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        values = {name: loss.item() for name, loss in losses.items()}
        if not math.isfinite(sum(values.values()) + norm.item()):
            raise TrainingError(self._describe_divergence(values, norm.item(), draws))
        self.optimizer.step()
        self.step += 1
        # Early on the average follows closely: it must not remember the random start.
        decay = min(recipe.ema, (1 + self.steps_done) / (10 + self.steps_done))
        update_average(self.average, self.model, decay)
        if self.writer and self.steps_done % WRITE_STEPS == 0:
            scalars = {f"loss/{name}": value for name, value in values.items()}
            scalars |= {"learning_rate": rate, "gradient_norm": norm.item()}
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, self.steps_done)
        return values

    def _describe_divergence(
        self, losses: dict[str, float], norm: float, draws: Sequence[Draw]
    ) -> str:
        indices = [index for draw in draws for index in self.data.indices(draw)]
        pictures = sorted({str(self.data.pictures[index].path) for index in indices})
        values = ", ".join(f"{name} loss {value:g}" for name, value in losses.items())
        return (
            f"not finite: {values}, gradient {norm:g}, at step {self.step + 1} of epoch "
            f"{self.epoch + 1} in {self.folder}; look at the labels of its pictures, or try a "
            f"smaller learning_rate. The pictures: {', '.join(pictures)}"
        )

    def save(self, name: str, **more: object) -> None:
        """Write a checkpoint of this moment."""
        state = {
            "recipe": self.recipe.as_dict(),
            "classes": list(self.data.classes),
            "epoch": self.epoch,
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "code": self.code,
        }
        save_checkpoint(state | more, self.folder / name)

    def measure(self) -> Result:
        """Measure the averaged weights, and keep them if they are the best so far."""
        result = evaluate(
            self.average,
            self.validation,
            self.data.classes,
            max(self.recipe.sizes),
            self.recipe.anchor_scales,
        )
        if result.ap > self.best:
            self.best = result.ap
            self.save(BEST, accuracy={"ap": result.ap, "ap50": result.ap50})
        if self.writer:
            self.writer.add_scalar("validation/AP", result.ap, self.steps_done)
            self.writer.add_scalar("validation/AP50", result.ap50, self.steps_done)
            self.writer.flush()
        return result


def to_input(images: Tensor, device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 RGB to (B, 3, H, W) float32 in [-1, 1], channels last in memory."""
    on_device = images.to(device, non_blocking=True)
    return on_device.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


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


def evaluate(
    model: SSDLite,
    dataset: Dataset,
    classes: tuple[str, ...],
    resolution: int,
    scales: tuple[float, ...],
) -> Result:
    """Measure a network in evaluation mode, as ``mbnet evaluate`` measures a model file."""
    device = next(model.parameters()).device
    mask = np.ones(len(classes), bool)

    @torch.no_grad()
    def detect(image: NDArray[np.uint8]) -> Detections:
        pixels = prepare_image(Picture.of_bgr(image), resolution)
        anchors = torch.from_numpy(make_anchors(pixels.shape[1], pixels.shape[2], scales))
        regressions, logits = model(to_input(torch.from_numpy(pixels), device))
        boxes = decode_boxes(regressions[0].cpu(), anchors).numpy()
        scores = logits[0].sigmoid().cpu().numpy()
        return select_detections(boxes, scores, image.shape[:2], MEASURING, mask)

    return measure_detector(dataset, classes, detect)
