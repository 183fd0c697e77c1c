import importlib.util
import json
import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "ros_env" / "environment.py"

on_wheel_machines = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="ROS 2 exists as wheels for x86_64 only"
)


@pytest.fixture
def environment(monkeypatch):
    """The tool as a module, in a process where no ROS 2 is sourced."""
    spec = importlib.util.spec_from_file_location("environment", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    return module


def run_tool(*arguments, **variables):
    """Run the tool as `make` does on a machine where no ROS 2 is sourced."""
    inherited = {k: v for k, v in os.environ.items() if k in ("HOME", "PATH", "TMPDIR")}
    return subprocess.run(
        [getattr(sys, "_base_executable", sys.executable), TOOL, *map(str, arguments)],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
    )


def assert_one_line(result, *parts):
    """The tool failed with one line that holds every part."""
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr


@pytest.mark.parametrize(
    ("interface", "expected"),
    [
        pytest.param(
            "vision_msgs/msg/Detection2DArray",
            "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
            id="Detection2DArray",
        ),
        pytest.param(
            "vision_msgs/msg/LabelInfo",
            "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
            id="LabelInfo",
        ),
        pytest.param(
            "statistics_msgs/msg/MetricsMessage",
            "RIHS01_36a67fb499fc2a11b8b9ff9ac735ed76e8d5a1f7775d6d5b97b625188ec68e20",
            id="MetricsMessage",
        ),
    ],
)
def test_interfaces_have_the_type_hashes_of_the_released_packages(interface, expected):
    packages = pytest.importorskip("ament_index_python.packages")
    package, _, name = interface.partition("/")
    description = Path(packages.get_package_share_directory(package), f"{name}.json")
    if not description.exists():
        pytest.skip("this ROS 2 is older than type hashes (Iron)")
    hashes = json.loads(description.read_text())["type_hashes"]
    found = {entry["type_name"]: entry["hash_string"] for entry in hashes}
    assert found[interface] == expected


@pytest.mark.skipif(
    not Path(sys.prefix, "mbnet_env.json").exists(), reason="not in an environment of the tool"
)
@pytest.mark.parametrize("name", ["mbnet", "detector_node", "replay_node"])
def test_executables_are_in_bin_and_where_ros2_run_looks(name):
    packages = pytest.importorskip("ament_index_python.packages")
    prefix = Path(packages.get_package_prefix("mbnet_perception"))
    linked = prefix / "lib" / "mbnet_perception" / name
    assert os.access(linked, os.X_OK)
    assert linked.resolve() == Path(sys.prefix, "bin", name).resolve()


@on_wheel_machines
def test_missing_build_tools_are_named_with_their_packages(tmp_path):
    result = run_tool("--venv", tmp_path / "venv", PATH=str(tmp_path))
    assert_one_line(result, "not found: CMake, make, a C compiler, a C++ compiler", "apt install")
    assert "cmake make gcc g++" in result.stderr
    assert not (tmp_path / "venv").exists()


@on_wheel_machines
def test_missing_python_headers_are_named(environment, monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    expected = r"^not found: the headers of Python \(Python.h\); .* apt install python3\.\d+-dev$"
    with pytest.raises(environment.SetupError, match=expected):
        environment.check_machine("jazzy")


@on_wheel_machines
def test_no_network_is_one_line_and_the_next_run_starts_over(tmp_path):
    offline = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
    }
    for _ in range(2):
        result = run_tool("--venv", tmp_path / "venv", **offline)
        assert_one_line(result, "pip could not install ROS 2 jazzy; check the network")
        assert str(tmp_path / "venv" / "mbnet_env.log") in result.stderr


def test_unknown_distribution_lists_the_known(tmp_path):
    result = run_tool("--venv", tmp_path / "venv", "--distro", "foxy")
    assert_one_line(result, "foxy", "jazzy and kilted only")


@on_wheel_machines
def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("kept")
    result = run_tool("--venv", tmp_path)
    assert_one_line(result, f"{tmp_path} was not made by environment.py")
    assert (tmp_path / "precious").read_text() == "kept"


def fake_ros(folder, *modules):
    """Modules that import like a sourced ROS 2, and the variables that sourcing sets."""
    for module in modules:
        path = folder / "python" / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("__version__ = '1.26.4'\n")
    return {"AMENT_PREFIX_PATH": str(folder), "PYTHONPATH": str(folder / "python")}


def test_sourced_ros_without_vision_msgs_says_what_to_install(tmp_path):
    variables = fake_ros(tmp_path, "rclpy", "numpy")
    result = run_tool("--venv", tmp_path / "venv", ROS_DISTRO="lyrical", **variables)
    assert_one_line(result, "No module named 'vision_msgs'", "ros-lyrical-vision-msgs")


def test_sourced_ros_is_used_and_nothing_is_built(environment, monkeypatch, tmp_path):
    variables = fake_ros(tmp_path, "rclpy", "numpy", "vision_msgs/msg")
    for name, value in {**variables, "ROS_DISTRO": "lyrical"}.items():
        monkeypatch.setenv(name, value)
    installed = []
    monkeypatch.setattr(environment, "pip_install", lambda *a: installed.append(a[-1]))
    monkeypatch.setattr(environment, "link_files", lambda venv: None)
    monkeypatch.setattr(environment, "check_machine", pytest.fail)
    monkeypatch.setattr(environment, "build_interfaces", pytest.fail)
    venv = tmp_path / "venv"
    environment.make_environment(venv, "lyrical", {"evaluate"})
    assert "include-system-site-packages = true" in (venv / "pyvenv.cfg").read_text()
    constraints = venv / environment.CONSTRAINTS
    project = f"{environment.PROJECT}[evaluate]"
    assert installed == [["--constraint", str(constraints), "--editable", project]]
    assert constraints.read_text() == "numpy==1.26.4\n"


def test_an_environment_of_this_tool_does_not_count_as_sourced(environment, monkeypatch, tmp_path):
    ours, ros = tmp_path / "ours", tmp_path / "ros"
    ours.mkdir()
    (ours / "pyvenv.cfg").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{ours}{os.pathsep}{ros}")
    assert environment.sourced_prefixes() == [str(ros)]


@pytest.fixture
def installs(environment, monkeypatch):
    """The steps that `make_environment` takes, recorded instead of taken."""
    steps = []
    monkeypatch.setattr(environment, "link_files", lambda venv: None)
    monkeypatch.setattr(
        environment,
        "install_ros",
        lambda venv, *_: (venv.mkdir(exist_ok=True), steps.append("ros")),
    )
    monkeypatch.setattr(
        environment, "install_project", lambda venv, extras, sourced: steps.append(extras)
    )
    return steps


def test_nothing_is_installed_when_nothing_has_changed(environment, installs, tmp_path):
    venv = tmp_path / "venv"
    environment.make_environment(venv, "jazzy", {"test"})
    environment.make_environment(venv, "jazzy", {"test"})
    assert installs == ["ros", ["test"]]


def test_extras_are_added_and_stay(environment, installs, tmp_path):
    venv = tmp_path / "venv"
    environment.make_environment(venv, "jazzy", {"evaluate"})
    environment.make_environment(venv, "jazzy", {"train", "test"})
    environment.make_environment(venv, "jazzy", {"evaluate"})
    assert installs == ["ros", ["evaluate"], ["evaluate", "test", "train"]]


def test_another_distribution_starts_over(environment, installs, tmp_path):
    venv = tmp_path / "venv"
    environment.make_environment(venv, "jazzy", {"test"})
    environment.make_environment(venv, "kilted", set())
    assert installs == ["ros", ["test"], "ros", []]


def test_an_edited_interface_starts_over(environment, monkeypatch, tmp_path):
    message = tmp_path / "interfaces" / "vision_msgs" / "msg" / "Point2D.msg"
    message.parent.mkdir(parents=True)
    message.write_text("float64 x\n")
    (tmp_path / "environment.py").touch()
    monkeypatch.setattr(environment, "HERE", tmp_path)
    monkeypatch.setattr(environment, "PROJECT", tmp_path)
    before = environment.ros_digest(tmp_path / "venv", "jazzy", [])
    message.write_text("float64 x\nfloat64 y\n")
    assert environment.ros_digest(tmp_path / "venv", "jazzy", []) != before
