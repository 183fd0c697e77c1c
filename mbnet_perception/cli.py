"""The ``mbnet`` command.

Each sub-command imports what it needs when it runs, so that a car without PyTorch has the others.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.detections import Detections, Selection
from mbnet_perception.core.images import SUFFIXES
from mbnet_perception.inference.format import ModelError
from mbnet_perception.inference.models import OperatingPoint

if TYPE_CHECKING:
    from mbnet_perception.evaluation.bag_cache import BagCache
    from mbnet_perception.evaluation.bag_gate import Limit
    from mbnet_perception.evaluation.bag_run import BagPlan
    from mbnet_perception.evaluation.dataset import Dataset
    from mbnet_perception.inference.detector import Detector

T = TypeVar("T")

VIDEOS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm"})


class CommandError(RuntimeError):
    """Something the user can mend; the message says how."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; errors go to stderr as one line.

    Returns:
        Exit status: 0 if all went well, 1 if not, 130 if it was interrupted.
    """
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        # One of ours missing is a fault; one of theirs is an extra that was not installed.
        if (error.name or "").startswith("mbnet_perception"):
            raise
        extra = "train" if args.command in {"train", "export", "quantize"} else "evaluate"
        print(
            f"error: mbnet {args.command} needs the module {error.name!r}; install it with "
            f"pip install 'mbnet_perception[{extra}]' (rclpy comes with ROS 2)",
            file=sys.stderr,
        )
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """All sub-commands with their arguments, units and defaults."""
    parser = argparse.ArgumentParser(
        "mbnet", description="MobileNet SSDLite detection for ROS 2 robot cars."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = _add(commands, "detect", run_detect, "draw what the detector sees in pictures")
    command.add_argument("source", type=Path, help="picture, video, or folder of pictures")
    command.add_argument("-o", "--output", type=Path, required=True, help="file; folder for folder")
    _add_operating_point(command)
    command.add_argument("--score-threshold", type=float, default=Selection.score_threshold)
    command.add_argument("--iou-threshold", type=float, default=Selection.iou_threshold)

    command = _add(commands, "evaluate", run_evaluate, "measure models on labelled pictures")
    command.add_argument("--data", type=Path, required=True, help="labels to measure on")
    _add_reading(command)
    command.add_argument(
        "--model",
        type=Path,
        action="append",
        metavar="FILE",
        help="model file, in place of an installed one; if given again, models are compared",
    )
    _add_point(command)
    command.add_argument("--json", action="store_true", help="figures as JSON")
    weather = command.add_argument_group(
        "robustness",
        "With any of --weather, --corruptions, --bootstrap, --report, or several models, figures "
        "come with 95 % intervals, and clear weather is always among them.",
    )
    weather.add_argument(
        "--weather",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="synthetic weather: clear, fog, rain, night, rain_night, fog_night",
    )
    weather.add_argument(
        "--corruptions",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="for evaluation alone: noise, blur, contrast, jpeg, snow",
    )
    weather.add_argument(
        "--severity",
        type=_severities,
        default=(1, 2, 3, 4, 5),
        metavar="N",
        help="1 (mild) to 5: such as 3, or 1,3,5, or 1-5 (1-5)",
    )
    weather.add_argument(
        "--seed", type=int, default=0, help="of weather, corruptions, intervals (%(default)s)"
    )
    weather.add_argument(
        "--jobs", type=int, default=1, help="processes; figures don't depend on it (%(default)s)"
    )
    weather.add_argument(
        "--bootstrap", type=int, metavar="N", help="resamples for the intervals; 0: none (1000)"
    )
    weather.add_argument(
        "--report", type=Path, metavar="DIR", help="folder to write report.html and report.json to"
    )

    command = _add(
        commands, "evaluate-bag", run_evaluate_bag, "measure models on recorded drives, in weather"
    )
    command.add_argument(
        "bags", type=Path, nargs="*", metavar="BAG", help="of ROS 2 (folder, mcap, db3) or ROS 1"
    )
    command.add_argument("--topic", default="", help="of the pictures (the only one there is)")
    command.add_argument(
        "--weather",
        type=_names,
        default=("fog", "rain", "night"),
        metavar="NAME,...",
        help="synthetic weather besides clear: fog, rain, night, rain_night, fog_night; clear for "
        "none (fog,rain,night)",
    )
    command.add_argument(
        "--severity",
        type=_severities,
        default=(1, 3, 5),
        metavar="N",
        help="1 (mild) to 5: such as 3, or 1,3,5, or 1-5 (1,3,5)",
    )
    command.add_argument("--seed", type=int, default=0, help="of the weather (%(default)s)")
    command.add_argument(
        "--ground-truth",
        metavar="TOPIC|FILE",
        help="what is in the pictures: topic of vision_msgs/Detection2DArray, or COCO JSON with "
        "stamps; none: hold all against what the best model sees in clear weather (the bag's only "
        "such topic, else none)",
    )
    points = command.add_argument_group("operating points", "Every combination is measured.")
    points.add_argument("--models", type=Path, metavar="DIR", help="folder (the installed one)")
    for name, default in asdict(OperatingPoint()).items():
        points.add_argument(
            f"--{name}",
            type=partial(_values, type(default)),
            default=(default,),
            metavar="VALUE,...",
            help=f"({default})",
        )
    work = command.add_argument_group("work", "What was computed once is not computed again.")
    work.add_argument("--every", type=int, default=1, metavar="N", help="take each nth picture (1)")
    work.add_argument(
        "--jobs", type=int, default=1, help="processes; figures don't depend on it (%(default)s)"
    )
    work.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder for what is computed (mbnet_perception in the user's cache folder)",
    )
    work.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="do the Ith of N parts of the work and nothing else; needs --cache",
    )
    work.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="in place of bags: --cache folders of all shards, to be joined",
    )
    command.add_argument(
        "--fail-under",
        metavar="NAME=X,...",
        help="exit with 3 where a model's AP50 is less, such as clear=0.5,rain:3=0.4,rpc=0.8",
    )
    command.add_argument(
        "--report", type=Path, metavar="DIR", help="folder to write report.html and report.json to"
    )
    command.add_argument("--json", action="store_true", help="figures as JSON")

    command = _add(commands, "train", run_train, "train a network from a recipe")
    command.add_argument("recipe", type=Path, help="YAML file, see config/training")
    command.add_argument("-o", "--output", type=Path, required=True, help="folder for checkpoints")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")

    command = _add(commands, "export", run_export, "make a checkpoint a model the node can run")
    command.add_argument("checkpoint", type=Path)
    command.add_argument(
        "--data", type=Path, required=True, help="labels that each resolution is tested on"
    )
    _add_reading(command)
    command.add_argument("--models", type=Path, help="folder to add it to (the installed one)")
    command.add_argument(
        "--resolutions",
        type=int,
        nargs="+",
        default=[224, 256, 288, 320],
        metavar="N",
        help="long sides in pixels to offer (%(default)s)",
    )

    command = _add(commands, "quantize", run_quantize, "make an int8 model of an fp32 one")
    command.add_argument("model", type=Path, help="fp32 model file")
    command.add_argument(
        "--calibration", type=Path, required=True, help="labels of the pictures to calibrate on"
    )
    command.add_argument(
        "--pictures", type=int, default=256, metavar="N", help="to calibrate on (%(default)s)"
    )
    command.add_argument(
        "--data", type=Path, required=True, help="labels to measure both models on"
    )
    command.add_argument(
        "--calibration-folder", type=Path, metavar="DIR", help="of the pictures to calibrate on"
    )
    _add_reading(command)
    command.add_argument("--models", type=Path, help="folder to add it to (the model's own)")

    command = _add(commands, "synth-bag", run_synth_bag, "write a bag of a synthetic drive")
    command.add_argument("output", type=Path, help="bag folder to make (mcap)")
    command.add_argument("--seconds", type=float, default=10.0, help="length (%(default)s)")
    command.add_argument("--rate", type=float, default=15.0, help="pictures a second (%(default)s)")
    command.add_argument("--size", type=int, nargs=2, default=[640, 480], metavar=("W", "H"))
    command.add_argument("--seed", type=int, help="of the scene (a city street)")

    command = _add(commands, "synth-data", run_synth_data, "draw labelled synthetic pictures")
    command.add_argument("output", type=Path, help="folder to fill")
    command.add_argument("--pictures", type=int, default=1200, help="how many (%(default)s)")
    command.add_argument("--size", type=int, nargs=2, default=[320, 240], metavar=("W", "H"))
    command.add_argument("--seed", type=int, default=0, help="of scenes and moments (%(default)s)")

    command = _add(commands, "data-bag", run_data_bag, "write a bag of a data set's pictures")
    command.add_argument("data", type=Path, help="COCO JSON")
    command.add_argument("output", type=Path, help="bag folder to make (mcap)")
    command.add_argument("--rate", type=float, default=5.0, help="pictures a second (%(default)s)")

    data = commands.add_parser("data", help="look at labelled pictures before training on them")
    parts = data.add_subparsers(dest="part", required=True, metavar="COMMAND")
    command = _add(parts, "check", run_data_check, "find what is wrong with labelled pictures")
    _add_data(command)
    command.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="labelled pictures to measure on, which must share none and no scene with these",
    )
    command.add_argument(
        "--sheet", type=Path, metavar="FILE", help="picture to draw some of them into, with boxes"
    )
    command.add_argument("--json", action="store_true", help="findings as JSON, all of them")
    command = _add(parts, "anchors", run_data_anchors, "fit anchor scales to labelled pictures")
    _add_data(command)
    command.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=[320, 240],
        metavar=("W", "H"),
        help="of the network's input in pixels (320 240)",
    )
    command.add_argument("--json", action="store_true", help="figures as JSON")

    command = _add(
        commands, "benchmark", run_benchmark, "time a model, or the node, on this computer"
    )
    command.add_argument("--models", type=Path, help="folder of the models (the installed one)")
    _add_point(command)
    command.add_argument("--threads", type=int, default=0, help="of the network (cores - 1)")
    command.add_argument(
        "--seconds", type=float, default=10.0, help="how long to measure each part (%(default)s)"
    )
    command.add_argument("--json", action="store_true", help="figures as JSON")
    what = command.add_mutually_exclusive_group()
    what.add_argument(
        "--node",
        action="store_true",
        help="the live node: what it adds to the network, overload, and changes while it runs",
    )
    what.add_argument(
        "--ladder", type=Path, metavar="FILE", help="write a ladder for the node's ladder_file"
    )
    command.add_argument(
        "--load",
        type=float,
        default=0.8,
        help="with --node: rate of the camera as a share of what the node can hold (%(default)s)",
    )
    command.add_argument(
        "--logs", type=Path, help="with --node: folder for the processes' logs (a temporary one)"
    )

    command = _add(commands, "demo", run_demo, "replay a bag through the live node")
    command.add_argument("bag", type=Path)
    command.add_argument("-o", "--output", type=Path, default=Path("demo_out"))
    command.add_argument("--seconds", type=float, default=10.0, help="length (%(default)s)")
    command.add_argument("--rate", type=float, default=15.0, help="pictures a second (%(default)s)")
    return parser


def run_detect(args: argparse.Namespace) -> int:
    """Draw detections into a picture, a video, or each picture of a folder."""
    from mbnet_perception.core.drawing import draw_detections
    from mbnet_perception.core.images import Picture

    selection = Selection(args.score_threshold, args.iou_threshold)
    detector = _load_detector(args)
    source, output = args.source, args.output
    if not source.exists():
        raise CommandError(f"{source} does not exist")

    def draw(name: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        found, _ = detector.detect(Picture.of_bgr(image), selection)
        print(f"{name}: {_describe(found, detector.classes)}")
        return draw_detections(image, found, detector.classes)

    if source.suffix.lower() in VIDEOS:
        _draw_video(source, output, draw)
        return 0
    files = [source]
    if source.is_dir():
        files = sorted(f for f in source.iterdir() if f.suffix.lower() in SUFFIXES)
        output.mkdir(parents=True, exist_ok=True)
        if not files:
            raise CommandError(f"{source} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    failed = 0
    for file in files:
        target = output / file.name if output.is_dir() else output
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            print(f"error: {file}: no picture that OpenCV can decode", file=sys.stderr)
            failed += 1
        else:
            _write_picture(target, draw(file.name, np.asarray(image, np.uint8)))
    return 1 if failed else 0


def run_evaluate(args: argparse.Namespace) -> int:
    """Print AP and AP50, overall and for each class, or in weather."""
    from mbnet_perception.evaluation.accuracy import measure_model
    from mbnet_perception.inference.detector import Detector

    models = [_read_model(file, args) for file in args.model or [None]]
    dataset = _read_labels(args.data, args.class_map, args.pictures_folder)
    asked = args.weather or args.corruptions or args.report or args.bootstrap is not None
    if asked or len(models) > 1:
        return _evaluate_robustness(args, dataset, models)
    ((origin, model),) = models
    result = measure_model(dataset, Detector(model, args.resolution, origin=origin))
    if args.json:
        print(json.dumps(asdict(result), indent=2))
        return 0
    print(f"{'class':15} {'AP':>6} {'AP50':>6} {'boxes':>6} {'pictures':>8}")
    for name, row in result.classes.items():
        print(f"{name:15} {row.ap:6.3f} {row.ap50:6.3f} {row.boxes:6} {row.pictures:8}")
    print(f"{'mean':15} {result.ap:6.3f} {result.ap50:6.3f}")
    return 0


def _evaluate_robustness(
    args: argparse.Namespace, dataset: Dataset, models: Sequence[tuple[str, bytes]]
) -> int:
    from mbnet_perception.evaluation.robustness import (
        Contender,
        as_json,
        describe,
        evaluate_robustness,
        list_conditions,
    )

    stems = [Path(origin).stem for origin, _ in models]
    contenders = [
        Contender(origin if stems.count(stem) > 1 else stem, model, args.resolution)
        for stem, (origin, model) in zip(stems, models, strict=True)
    ]
    conditions = list_conditions(args.weather, args.corruptions, args.severity)
    resamples = 1000 if args.bootstrap is None else args.bootstrap
    result = evaluate_robustness(dataset, contenders, conditions, args.seed, args.jobs, resamples)
    if args.report:
        from mbnet_perception.evaluation.report import write_report

        report = write_report(args.report, args.data.name, dataset, contenders, result)
        print(f"report: {report}", file=sys.stderr)
    print(json.dumps(as_json(result), indent=2) if args.json else "\n".join(describe(result)))
    return 0


def run_evaluate_bag(args: argparse.Namespace) -> int:
    """Print how models hold up on recorded drives; 3 where that is less than what was asked for."""
    from mbnet_perception.evaluation.bag_cache import merge
    from mbnet_perception.evaluation.bag_gate import check_gate, parse_gate
    from mbnet_perception.evaluation.bag_run import evaluate_bags

    if bool(args.bags) == bool(args.merge):
        raise CommandError("expected either bags, or --merge with the folders of all shards")
    if args.shard and not (args.cache and args.bags):
        raise CommandError("--shard needs bags, and --cache, the folder for --merge")
    limits = parse_gate(args.fail_under) if args.fail_under else ()
    if args.merge:
        with TemporaryDirectory() as temporary:
            cache = merge(args.merge, args.cache or Path(temporary))
            check_gate(limits, cache.plan.conditions)
            missing = cache.missing()
            if missing:
                raise CommandError(f"not all of the work was done; missing: {'; '.join(missing)}")
            return _tell_of_bags(args, cache, limits)
    plan = _bag_plan(args)
    check_gate(limits, plan.conditions)
    cache = evaluate_bags(plan, args.cache or _cache_folder(), args.jobs, args.shard or (1, 1))
    if args.shard:
        print(f"part {args.shard[0]} of {args.shard[1]} is in {args.cache}")
        return 0
    return _tell_of_bags(args, cache, limits)


def _tell_of_bags(args: argparse.Namespace, cache: BagCache, limits: Sequence[Limit]) -> int:
    from mbnet_perception.evaluation.bag_gate import failures
    from mbnet_perception.evaluation.bag_score import as_json, describe, score

    plan, bags = cache.plan, cache.all_facts()
    evaluation = score(
        bags,
        [cache.truth(bag) for bag in bags],
        plan.points,
        plan.conditions,
        cache.run,
        seed=plan.seed,
        every=plan.every,
        machine=", ".join(cache.machines()),
        jobs=args.jobs,
    )
    if args.report:
        from mbnet_perception.evaluation.bag_pictures import show_moments
        from mbnet_perception.evaluation.bag_report import write_bag_report

        shown = show_moments(cache, evaluation.moments)
        print(f"report: {write_bag_report(args.report, evaluation, shown)}", file=sys.stderr)
    print(
        json.dumps(as_json(evaluation), indent=2) if args.json else "\n".join(describe(evaluation))
    )
    short = failures(evaluation, limits)
    for line in short:
        print(f"falls short: {line}", file=sys.stderr)
    return 3 if short else 0


def _bag_plan(args: argparse.Namespace) -> BagPlan:
    from mbnet_perception.evaluation.bag_run import BagPlan
    from mbnet_perception.evaluation.robustness import list_conditions

    truth = args.ground_truth or ""
    wanted = truth != "none"
    is_file = wanted and Path(truth).is_file()
    return BagPlan(
        bags=tuple(args.bags),
        points=tuple(
            OperatingPoint(*each)
            for each in product(args.backbone, args.alpha, args.resolution, args.precision)
        ),
        conditions=list_conditions(args.weather, (), args.severity),
        topic=args.topic,
        seed=args.seed,
        every=args.every,
        models=args.models,
        truth_topic=truth if wanted and not is_file else "",
        truth_file=Path(truth) if is_file else None,
        use_truth=wanted,
    )


def _cache_folder() -> Path:
    """Where the user's programs keep what they can make again (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mbnet_perception" / "bags"


def run_train(args: argparse.Namespace) -> int:
    """Train; progress goes to stderr, the result to stdout."""
    from mbnet_perception.training.recipe import read_recipe
    from mbnet_perception.training.train import train

    result = train(read_recipe(args.recipe), args.output, args.resume)
    if result:  # of several processes, the first has it
        print(f"AP {result.ap:.3f}  AP50 {result.ap50:.3f}  checkpoint {args.output / 'last.pt'}")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write the model file, measure it at each resolution, and list it in the manifest."""
    from mbnet_perception.evaluation.accuracy import measure_model
    from mbnet_perception.inference.detector import Detector
    from mbnet_perception.inference.models import add_model, find_models_folder
    from mbnet_perception.training.export import export_checkpoint

    dataset = _read_labels(args.data, args.class_map, args.pictures_folder)
    folder = args.models or find_models_folder()
    model, metadata = export_checkpoint(args.checkpoint, tuple(sorted(args.resolutions)))
    measured = {}
    for resolution in metadata.resolutions:
        result = measure_model(dataset, Detector(model, resolution, origin=str(args.checkpoint)))
        measured[resolution] = result.rounded()
        print(f"resolution {resolution}: AP {result.ap:.3f}  AP50 {result.ap50:.3f}")
    print(add_model(folder, model, metadata, {"data": args.data.name, "accuracy": measured}))
    return 0


def run_quantize(args: argparse.Namespace) -> int:
    """Write the int8 file, measure it beside the fp32 one, and list it in the manifest."""
    from mbnet_perception.evaluation.accuracy import measure_model
    from mbnet_perception.inference.detector import Detector
    from mbnet_perception.inference.models import add_model
    from mbnet_perception.training.quantize import quantize_model, spread_pictures

    if args.pictures < 1:
        raise CommandError(f"--pictures must be at least 1, got {args.pictures}")
    origin, model = _read_model(args.model, args)
    dataset = _read_labels(args.data, args.class_map, args.pictures_folder)
    calibration = _read_labels(args.calibration, args.class_map, args.calibration_folder)
    count = min(args.pictures, len(calibration.pictures))
    quantized, metadata = quantize_model(
        model,
        spread_pictures(calibration, count),
        f"{count} pictures of {args.calibration.name}",
        origin,
    )
    measured = {}
    for resolution in metadata.resolutions:
        before, after = (
            measure_model(dataset, Detector(content, resolution, origin=origin))
            for content in (model, quantized)
        )
        measured[resolution] = after.rounded()
        print(
            f"resolution {resolution}: fp32 AP {before.ap:.3f}  AP50 {before.ap50:.3f}   "
            f"int8 AP {after.ap:.3f}  AP50 {after.ap50:.3f}   "
            f"lost AP {before.ap - after.ap:.3f}  AP50 {before.ap50 - after.ap50:.3f}"
        )
    figures = {"data": args.data.name, "accuracy": measured}
    print(add_model(args.models or args.model.parent, quantized, metadata, figures))
    return 0


def run_synth_bag(args: argparse.Namespace) -> int:
    """Write a drive through a synthetic scene."""
    from mbnet_perception.evaluation.sample_drive import SEED, write_drive

    seed = SEED if args.seed is None else args.seed
    count = write_drive(args.output, args.seconds, args.rate, tuple(args.size), seed)
    print(f"{count} pictures in {args.output}")
    return 0


def run_synth_data(args: argparse.Namespace) -> int:
    """Write synthetic pictures and a label file."""
    from mbnet_perception.evaluation.synthetic import write_pictures

    print(write_pictures(args.output, args.pictures, tuple(args.size), args.seed))
    return 0


def run_data_bag(args: argparse.Namespace) -> int:
    """Write the pictures of a data set as a bag, with their labels as ground truth."""
    from mbnet_perception.evaluation.bags import write_pictures

    print(f"{write_pictures(args.output, args.data, args.rate)} pictures in {args.output}")
    return 0


def run_data_check(args: argparse.Namespace) -> int:
    """Print what is in data sets and what is wrong with them; fails if anything must be mended."""
    from mbnet_perception.evaluation.check import check, describe, draw_sheet
    from mbnet_perception.evaluation.sources import parse_labels

    datasets = _parse_data(args)
    against = [parse_labels(path, on_bad="skip") for path in args.against]
    report = check(datasets, against)
    print(json.dumps(asdict(report), indent=2) if args.json else "\n".join(describe(report)))
    if args.sheet:
        _write_picture(args.sheet, draw_sheet(datasets))
    return 1 if report.errors else 0


def run_data_anchors(args: argparse.Namespace) -> int:
    """Print how well the default anchor scales and fitted ones cover the objects."""
    from mbnet_perception.evaluation.anchor_fit import boxes_of, fit_scales, measure_scales

    boxes = boxes_of(_parse_data(args))
    width, height = args.size
    fitted = fit_scales(boxes, height, width)
    fits = {"default": measure_scales(boxes, height, width), "fitted": fitted}
    if args.json:
        fits_as_json = {name: asdict(fit) for name, fit in fits.items()}
        print(json.dumps({"boxes": len(boxes), "input": args.size, **fits_as_json}, indent=2))
        return 0
    print(f"{len(boxes)} boxes at an input of {width} x {height}")
    print(f"{'':8} {'mean IoU':>8} {'recall':>6}   share of the boxes on each map")
    for name, fit in fits.items():
        shares = " ".join(f"{share:5.2f}" for share in fit.shares)
        print(f"{name:8} {fit.mean_iou:8.3f} {fit.recall:6.3f}   {shares}")
    print(f"anchor_scales: {list(fitted.scales)}")
    return 0


def run_benchmark(args: argparse.Namespace) -> int:
    """Print how fast a model is, or the node with it; or write the ladder of all models."""
    from mbnet_perception.inference.benchmark import describe_machine, measure_alone
    from mbnet_perception.inference.ladder import measure_ladder, write_ladder
    from mbnet_perception.inference.models import ModelLibrary

    point = OperatingPoint(args.backbone, args.alpha, args.resolution, args.precision)
    if args.seconds <= 0 or args.load <= 0:
        raise CommandError(
            f"--seconds and --load must be above 0, got {args.seconds:g} and {args.load:g}"
        )
    if args.node:
        return _benchmark_node(args, point)
    library = ModelLibrary(args.models)
    if args.ladder:
        rungs = measure_ladder(library, point, args.threads, lambda: False)
        write_ladder(args.ladder, rungs)
        if args.json:
            print(json.dumps([asdict(rung) for rung in rungs], indent=2))
        else:
            for rung in rungs:
                ap50 = "" if rung.ap50 is None else f"   AP50 {rung.ap50:.3f}"
                print(f"{1e3 * rung.seconds:7.2f} ms   {rung.point}{ap50}")
        return 0
    alone = measure_alone(library, point, args.threads, args.seconds)
    if args.json:
        print(json.dumps({"point": str(point), **describe_machine(), **alone}, indent=2))
        return 0
    for name in ("session_run", "detect"):
        figures = "   ".join(
            f"p{rank} {alone[name][f'p{rank}_ms']:.2f} ms" for rank in (50, 90, 99)
        )
        print(f"{name:12} {figures}   {alone[f'{name}_rate_hz']:.1f} Hz")
    return 0


def _benchmark_node(args: argparse.Namespace, point: OperatingPoint) -> int:
    from mbnet_perception.nodes.benchmark import describe, measure_node
    from mbnet_perception.nodes.processes import interruption

    with TemporaryDirectory() as temporary, interruption() as check:
        logs = args.logs or Path(temporary)
        logs.mkdir(parents=True, exist_ok=True)
        result = measure_node(
            args.models, point, args.threads, args.seconds, args.load, logs, check
        )
    print(json.dumps(result, indent=2) if args.json else "\n".join(describe(result)))
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """See :func:`mbnet_perception.nodes.demo.run_demo`."""
    from mbnet_perception.nodes.demo import run_demo

    return run_demo(args.bag, args.output, args.seconds, args.rate)


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: object,
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(run=run)
    return command


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "labels",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="COCO or BDD100K JSON, VOC folder, YOLO data.yaml; a split may follow, as in "
        "data.yaml:train",
    )
    _add_reading(command)


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--class-map", type=Path, metavar="FILE", help="YAML with the classes")
    command.add_argument(
        "--pictures-folder", type=Path, metavar="DIR", help="of the pictures, if an unusual one"
    )


def _parse_data(args: argparse.Namespace) -> list[Dataset]:
    """The data sets of a ``data`` command, in the same classes; what is bad in them is noted."""
    from mbnet_perception.evaluation.sources import ClassMap, parse_labels, read_class_map

    class_map = read_class_map(args.class_map) if args.class_map else None
    datasets = []
    for path in args.labels:
        datasets.append(parse_labels(path, class_map, args.pictures_folder, "skip"))
        class_map = class_map or ClassMap(datasets[0].classes, origin=str(path))
    return datasets


def _add_operating_point(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=Path, help="model file, in place of an installed one")
    _add_point(command)


def _add_point(command: argparse.ArgumentParser) -> None:
    point = OperatingPoint()
    command.add_argument("--backbone", default=point.backbone, help="(%(default)s)")
    command.add_argument(
        "--alpha", type=float, default=point.alpha, help="width multiplier (%(default)s)"
    )
    command.add_argument("--precision", default=point.precision, help="(%(default)s)")
    command.add_argument(
        "--resolution",
        type=int,
        default=point.resolution,
        help="long side of the network input in pixels (%(default)s)",
    )


def _read_labels(path: Path, class_map: Path | None, pictures: Path | None) -> Dataset:
    from mbnet_perception.evaluation.sources import read_class_map, read_labels

    return read_labels(path, read_class_map(class_map) if class_map else None, pictures)


def _load_detector(args: argparse.Namespace) -> Detector:
    from mbnet_perception.inference.detector import Detector

    origin, model = _read_model(args.model, args)
    return Detector(model, args.resolution, origin=origin)


def _read_model(file: Path | None, args: argparse.Namespace) -> tuple[str, bytes]:
    """Name and content of a model file, of the installed one where none is given."""
    from mbnet_perception.inference.models import ModelLibrary

    if file:
        try:
            return str(file), file.read_bytes()
        except OSError as error:
            raise ModelError(f"{file}: cannot be read: {error.strerror}") from error
    library = ModelLibrary()
    entry = library.find(OperatingPoint(args.backbone, args.alpha, args.resolution, args.precision))
    return entry.file, library.read(entry)


def _names(text: str) -> tuple[str, ...]:
    """Names from an argument like ``rain,fog``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _values(kind: Callable[[str], T], text: str) -> tuple[T, ...]:
    """Values from an argument like ``0.35,0.5``."""
    return tuple(kind(part) for part in text.split(","))


def _shard(text: str) -> tuple[int, int]:
    """Part and parts from an argument like ``1/4``."""
    part, _, parts = text.partition("/")
    return int(part), int(parts)


def _severities(text: str) -> tuple[int, ...]:
    """Severities from an argument like ``3``, ``1,3,5`` or ``1-5``."""
    levels: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        levels += range(int(first), int(last or first) + 1)
    return tuple(levels)


def _describe(found: Detections, classes: Sequence[str]) -> str:
    pairs = zip(found.classes, found.scores, strict=True)
    return ", ".join(f"{classes[k]} {score:.2f}" for k, score in pairs) or "nothing"


def _write_picture(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() not in SUFFIXES or not cv2.imwrite(str(path), image):
        raise CommandError(f"{path} cannot be written; it should end in .jpg or .png")


def _draw_video(
    source: Path, output: Path, draw: Callable[[str, NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    capture = cv2.VideoCapture(str(source))
    rate = capture.get(cv2.CAP_PROP_FPS) or 15.0
    writer = None
    for number, image in enumerate(_frames(capture)):
        drawn = draw(f"frame {number}", image)
        if writer is None:
            output.parent.mkdir(parents=True, exist_ok=True)
            size = (drawn.shape[1], drawn.shape[0])
            writer = cv2.VideoWriter(str(output), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
            if not writer.isOpened():
                raise CommandError(f"{output} cannot be written; it should end in .mp4")
        writer.write(drawn)
    capture.release()
    if writer is None:
        raise CommandError(f"{source}: no video that OpenCV can decode")
    writer.release()


def _frames(capture: cv2.VideoCapture) -> Iterator[NDArray[np.uint8]]:
    while True:
        more, image = capture.read()
        if not more:
            return
        yield np.asarray(image, np.uint8)


if __name__ == "__main__":
    sys.exit(main())
