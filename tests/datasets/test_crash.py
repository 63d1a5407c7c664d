"""Conversions that are killed: nothing half written is ever found, and later runs tidy up."""

import os
import signal
import subprocess
import sys

import pytest

from gcrl_gym.checkpoint import atomic_write, orphans
from gcrl_gym.datasets.d4rl_io import convert_d4rl
from tests.datasets.test_d4rl import MEDIUM

CONVERT = """
import sys
from gcrl_gym.datasets import {module} as module

def stop(*arguments):
    print("there", flush=True)
    sys.stdin.read()

module.{function} = stop
from gcrl_gym.datasets.d4rl_io import convert_d4rl
convert_d4rl(sys.argv[1], overwrite=True)
"""


def killed_at(module, function):
    """Convert in a process that is killed when it comes to this function."""
    process = subprocess.Popen(
        [sys.executable, "-c", CONVERT.format(module=module, function=function), str(MEDIUM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL


pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


@pytest.mark.parametrize("function", ["_describe", "_flush", "_put_in_place"])
def test_a_killed_conversion_leaves_nothing(minari_root, function):
    killed_at("minari_io", function)
    assert len(left := list(minari_root.glob(".gcrl-*.part"))) == 1
    assert not (minari_root / "d4rl" / "hopper-medium-v2").exists()
    assert convert_d4rl(MEDIUM).total_episodes == 3
    assert not left[0].exists()


def test_a_dataset_that_was_being_replaced_comes_back(minari_root):
    convert_d4rl(MEDIUM)
    target = minari_root / "d4rl" / "hopper-medium-v2"
    before = sorted(path.name for path in target.rglob("*"))
    # Killed between the two renames of the replacement.
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                             capture_output=True, text=True, check=True)  # fmt: skip
    replaced = minari_root / f".gcrl-{os.uname().nodename}-{process.stdout.strip()}.replaced"
    os.rename(target, replaced)
    convert_d4rl(MEDIUM, "d4rl/hopper-medium-v0")  # any later write
    assert not replaced.exists()
    assert sorted(path.name for path in target.rglob("*")) == before


def test_temporary_files_of_killed_writers_go(tmp_path):
    target = tmp_path / "file.json"
    script = (
        "import sys\nfrom gcrl_gym.checkpoint import atomic_write\n"
        f"with atomic_write({str(target)!r}) as path:\n"
        "    path.write_text('half'); print('there', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "there\n"
    with atomic_write(target) as path:  # the other one runs: its file stays
        path.write_text("mine")
    assert len(list(tmp_path.iterdir())) == 2
    process.kill()
    process.wait(30)
    assert len(orphans(tmp_path, ".file.json.", ".part")) == 1
    with atomic_write(target) as path:
        path.write_text("mine again")
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
