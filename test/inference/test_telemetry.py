import os
import subprocess
import sys


def test_onnx_runtime_leaves_no_trace_of_the_user(tmp_path):
    # Where its telemetry is on, it makes a number for the user's folder as it is imported. It is
    # off in any case where a variable says that this is CI, or ours comes from elsewhere.
    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    subprocess.run(
        [sys.executable, "-c", "from mbnet_perception.inference import detector"],
        env=environment,
        check=True,
        timeout=60,
    )
    assert list(tmp_path.rglob("*")) == []
