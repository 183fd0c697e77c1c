import os
import subprocess
import sys

import pytest
import torch
import yaml

from mbnet_perception.evaluation.synthetic import write_pictures
from mbnet_perception.training.checkpoints import read_checkpoint
from mbnet_perception.training.processes import join_processes

# What `mbnet train` does, and then each process leaves its weights behind.
SCRIPT = """
import os, sys
from pathlib import Path
import torch
from mbnet_perception.training import train as training
from mbnet_perception.training.recipe import read_recipe

made = []
make_optimizer = training.make_optimizer
training.make_optimizer = lambda model, recipe: made.append(model) or make_optimizer(model, recipe)
training.SETTLING_BATCHES = 1
folder = Path(sys.argv[1])
result = training.train(read_recipe(folder / "recipe.yaml"), folder / "run")
rank = os.environ["RANK"]
weights = dict(made[0].named_parameters())
torch.save({"weights": weights, "result": result is None}, folder / f"{rank}.pt")
"""


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes() as process:
        assert (process.rank, process.count, process.first) == (0, 1, True)
        model = torch.nn.Linear(1, 1)
        assert process.share(model) is model


def test_only_the_first_process_talks(monkeypatch, capsys):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes() as process:
        process.say("one")
        type(process)(1, 2, process.device).say("two")
    assert capsys.readouterr().err == "one\n"


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Folder of a run of two processes under torchrun."""
    folder = tmp_path_factory.mktemp("two")
    labels = str(write_pictures(folder / "data", 6, size=(96, 72)))
    recipe = {
        "train": [labels],
        "validation": labels,
        "alpha": 0.1,
        "epochs": 1,
        "batch_size": 4,
        "sizes": [64],
        "settling_sizes": [64],
        "warmup_steps": 1,
        "workers": 0,
        "threads": 1,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(folder / "script.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_processes_end_with_the_same_weights(two_processes):
    first, second = (torch.load(two_processes / f"{rank}.pt") for rank in (0, 1))
    for name, value in first["weights"].items():
        torch.testing.assert_close(value, second["weights"][name], rtol=0, atol=0)
    saved = read_checkpoint(two_processes / "run" / "last.pt")
    torch.testing.assert_close(
        saved["model"]["blocks.0.convs.0.0.weight"], first["weights"]["blocks.0.convs.0.0.weight"]
    )


def test_the_first_process_alone_writes_and_measures(two_processes):
    first, second = (torch.load(two_processes / f"{rank}.pt") for rank in (0, 1))
    assert (first["result"], second["result"]) == (False, True)  # whether it is None
    assert len((two_processes / "run" / "log.jsonl").read_text().splitlines()) == 1
    assert len(list((two_processes / "run" / "tensorboard").iterdir())) == 1
