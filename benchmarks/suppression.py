"""Suppression inside the model file against outside, in Python.

Appends ONNX's NonMaxSuppression to a model, runs both ways on the pictures of a synthetic drive,
and prints milliseconds (median) of everything behind the network's two outputs.

    python benchmarks/suppression.py [--threshold 0.4] [--pictures 60]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mbnet_perception.core.detections import Selection, select_detections
from mbnet_perception.core.images import Picture
from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.inference.detector import make_session, prepare_image
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

SIZE = (640, 480)


def append_suppression(model: bytes, threshold: float, iou: float) -> bytes:
    """The model with a third output: (K, 3) int64 batch, class, box."""
    proto = onnx.load_from_string(model)
    graph = proto.graph
    graph.node.append(helper.make_node("Transpose", ["scores"], ["by_class"], perm=[0, 2, 1]))
    for name, value in (
        ("nms_max", np.array([100], np.int64)),
        ("nms_iou", np.array([iou], np.float32)),
        ("nms_score", np.array([threshold], np.float32)),
    ):
        graph.initializer.append(numpy_helper.from_array(value, name))
    graph.node.append(
        helper.make_node(
            "NonMaxSuppression",
            ["boxes", "by_class", "nms_max", "nms_iou", "nms_score"],
            ["selected"],
        )
    )
    graph.output.append(helper.make_tensor_value_info("selected", TensorProto.INT64, ["k", 3]))
    return proto.SerializeToString()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threshold", type=float, default=Selection.score_threshold)
    parser.add_argument("--pictures", type=int, default=60)
    args = parser.parse_args()
    library, point = ModelLibrary(), OperatingPoint()
    model = library.read(library.find(point))
    selection = Selection(score_threshold=args.threshold)
    scene = DrivingScene(58, SIZE)
    pictures = [
        prepare_image(Picture.of_bgr(scene.render(i / 6)[0]), point.resolution)
        for i in range(args.pictures)
    ]
    size = pictures[0].shape[1:3]
    plain = make_session(model, size, 1, "plain")
    inside = make_session(
        append_suppression(model, args.threshold, selection.iou_threshold), size, 1, "inside"
    )
    mask = np.ones(11, bool)
    network, outside, whole, found = [], [], [], []
    for picture in pictures * 3:
        start = time.perf_counter()
        boxes, scores = plain.run(["boxes", "scores"], {"image": picture})
        middle = time.perf_counter()
        detections = select_detections(boxes[0], scores[0], SIZE[::-1], selection, mask)
        end = time.perf_counter()
        inside.run(["boxes", "scores", "selected"], {"image": picture})
        whole.append(time.perf_counter() - end)
        network.append(middle - start)
        outside.append(end - middle)
        found.append(len(detections))
    ms = 1e3 * statistics.median(network)
    print(f"network alone            {ms:7.3f} ms   ({statistics.mean(found):.1f} objects)")
    print(f"suppression outside adds {1e3 * statistics.median(outside):7.3f} ms")
    print(f"suppression inside adds  {1e3 * statistics.median(whole) - ms:7.3f} ms")


if __name__ == "__main__":
    main()
