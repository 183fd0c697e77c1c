"""The package for colcon and for pip; package.xml holds the same needs under their rosdep keys."""

from glob import glob

from setuptools import find_packages, setup

NAME = "mbnet_perception"
SHARE = f"share/{NAME}"

# Plots, and bags read and written without ROS 2.
EVALUATE = ["matplotlib>=3.5", "mcap>=1.0", "rosbags>=0.11", "tqdm"]
TRAIN = [
    *EVALUATE,
    # Newer than 2.13: torchvision's build does not import beside a CPU-only torch, and a machine
    # may offer a CPU-only 2.13 next to the package index.
    "torch>2.13",
    "torchvision",
    "onnx>=1.16",
    # The last release under the MIT licence.
    "albumentations==2.0.8",
    "tensorboard",
]
# Every release of ruff and mypy finds something new, hence the fixed minor versions.
TEST = [
    "pytest>=8",
    "hypothesis>=6",
    "onnx>=1.16",
    "pycocotools>=2.0.7",  # that our metrics are held against
    "ruff==0.17.*",
    "mypy==2.4.*",
    "types-PyYAML",
    "types-tqdm",
]

setup(
    name=NAME,
    version="0.1.0",
    description="MobileNet SSDLite object detection on ROS 2 camera topics, for small robot cars",
    author="mbnet_perception maintainers",
    maintainer="mbnet_perception maintainers",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", glob("launch/*.launch.py")),
        (f"{SHARE}/config", [*glob("config/*.yaml"), *glob("config/*.xml")]),
        (f"{SHARE}/config/foxglove", glob("config/foxglove/*.json")),
        (f"{SHARE}/config/rviz", glob("config/rviz/*.rviz")),
        (f"{SHARE}/config/training", glob("config/training/*.yaml")),
        (f"{SHARE}/config/training/policies", glob("config/training/policies/*.yaml")),
        (
            f"{SHARE}/models",
            [*glob("models/*.onnx"), *glob("models/*.yaml"), *glob("models/*.md")],
        ),
    ],
    install_requires=[
        "numpy>=1.22",
        # Headless: the package opens no window, and a car needs no Qt. The apt package
        # python3-opencv gives the same `cv2`, and is what rosdep installs.
        "opencv-python-headless>=4.5",
        # 1.21.0 dies with an illegal instruction on a Raspberry Pi 4.
        "onnxruntime>=1.16,!=1.21.0",
        "PyYAML>=5.4",
    ],
    extras_require={"evaluate": EVALUATE, "train": TRAIN, "test": TEST},
    entry_points={
        "console_scripts": [
            "mbnet = mbnet_perception.cli:main",
            "detector_node = mbnet_perception.nodes.detector:main",
            "recorder_node = mbnet_perception.nodes.recorder:main",
            "replay_node = mbnet_perception.nodes.replay:main",
            "weather_node = mbnet_perception.nodes.weather:main",
        ]
    },
    zip_safe=True,
)
