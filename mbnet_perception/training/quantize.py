"""A model file that calculates in eight bits, made of one that calculates in float32.

Static quantisation: real = scale * (integer - zero point) (Jacob et al., arXiv 1712.05877,
equation 1). Maps become uint8 over the range of values that they take on pictures of the training
data (calibration); weights become int8 with a scale for each output channel. The file holds
QuantizeLinear and DequantizeLinear nodes around float operators (QDQ), which ONNX Runtime fuses
into integer ones when it loads it. Needs onnx, but not torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from tqdm import tqdm

from mbnet_perception.core.images import Picture
from mbnet_perception.evaluation.dataset import Dataset, read_picture
from mbnet_perception.inference.detector import prepare_image
from mbnet_perception.inference.format import Metadata, ModelError, metadata_from

FLOAT, QUANTIZED = "fp32", "int8"

# Of a network's maps: convolutions, ReLU6 and residual sums.
OPERATORS = ("Conv", "Clip", "Add")

# Says that nothing is left to fold, or ONNX Runtime warns: export has folded all.
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def quantize_model(
    model: bytes, pictures: Iterable[NDArray[np.uint8]], calibrated_on: str, origin: str = "model"
) -> tuple[bytes, Metadata]:
    """Make an int8 model file of an fp32 one; height and width stay symbolic.

    Args:
        model: Content of the fp32 file.
        pictures: To calibrate on, (height, width, 3) uint8 BGR of any size. Each is prepared as
            the detector prepares it, at one of the model's resolutions, in turn.
        calibrated_on: What they are, for the metadata.
        origin: Name of the file, for messages.

    Returns:
        Content of the int8 file, and what it says of itself.

    Raises:
        ModelError: If the file is no fp32 model of mbnet_perception, or there are no pictures.
    """
    try:
        proto = onnx.load_from_string(model)
    except Exception as error:  # protobuf's own exception has no public name
        raise ModelError(f"{origin}: is no ONNX file: {error}") from error
    metadata = metadata_from({prop.key: prop.value for prop in proto.metadata_props}, origin)
    if metadata.precision != FLOAT:
        raise ModelError(
            f"{origin}: is {metadata.precision} already; expected the {FLOAT} model it came from"
        )
    nodes = nodes_to_quantize(proto.graph)
    if not nodes:
        raise ModelError(f"{origin}: expected a network of at least two convolutions")
    pictures = iter(pictures)
    first = next(pictures, None)
    if first is None:
        raise ModelError(f"{origin}: expected at least one picture to calibrate on, got none")
    helper.set_model_props(proto, PREPARED)
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(proto, source)
        quantize_static(
            str(source),
            str(target),
            _Reader(chain([first], pictures), metadata.resolutions),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_quantize=nodes,
        )
        quantized = onnx.load(target)
    metadata = replace(
        metadata,
        precision=QUANTIZED,
        trained_with=f"{metadata.trained_with}; calibrated on {calibrated_on}",
    )
    helper.set_model_props(quantized, metadata.as_props())
    onnx.checker.check_model(quantized, full_check=True)
    return quantized.SerializeToString(), metadata


def nodes_to_quantize(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that calculate maps: convolutions, their ReLU6, and residual sums.

    Left in float32 are the decoding of boxes, where sizes of all scales meet, and the first
    convolution: with three channels in, eight bits take longer (docs/decisions.md).
    """
    nodes = [node for node in graph.node if node.op_type in OPERATORS]
    first = next((node for node in nodes if node.op_type == "Conv"), None)
    maps: set[str] = set()
    names = []
    for node in nodes:
        # What it calculates with, apart from a convolution's input and the limits of ReLU6.
        needed = {"Conv": [], "Clip": node.input[:1], "Add": node.input}[node.op_type]
        if node is not first and maps.issuperset(needed):
            maps.update(node.output)
            names.append(node.name)
    return names


def spread_pictures(dataset: Dataset, count: int) -> Iterator[NDArray[np.uint8]]:
    """Decode so many pictures, evenly spread over a data set; all if it holds fewer.

    Raises:
        DatasetError: If a picture cannot be read.
    """
    count = min(count, len(dataset.pictures))
    places = np.linspace(0, len(dataset.pictures) - 1, count).astype(int).tolist()
    for place in tqdm(places, "calibrate", file=sys.stderr, mininterval=2, disable=None):
        yield read_picture(dataset.pictures[place])


class _Reader(CalibrationDataReader):
    """Network inputs, as ONNX Runtime asks for them."""

    def __init__(self, pictures: Iterable[NDArray[np.uint8]], resolutions: tuple[int, ...]) -> None:
        self._inputs = (
            {"image": prepare_image(Picture.of_bgr(picture), resolution)}
            for picture, resolution in zip(pictures, cycle(resolutions), strict=False)
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)
