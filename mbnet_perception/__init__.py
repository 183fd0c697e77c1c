"""Object detection for small robot cars: a ROS 2 node, its models, and how they are trained."""

import os

# From 1.29 on, ONNX Runtime tells Microsoft about models and computer and keeps a number for it in
# the user's folder, unless this is set before it is imported (its Privacy.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
