"""The README is true: its tables come from the code and its Python runs."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_code():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert tables.render(README) == README, "run `make docs`"
    assert tables.CARDS.read_text(encoding="utf-8") == tables.cards(), "run `make docs`"


def test_files_it_links_to_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_api_example_runs_as_written(tmp_path):
    """Only the number of updates is cut, from 2e4 to 2e2."""
    code = re.search(r"## The API\n\n```python\n(.*?)```", README, re.DOTALL).group(1)
    assert "learn(2e4" in code
    code = code.replace("learn(2e4", "learn(2e2")
    environment = os.environ | {"MINARI_DATASETS_PATH": str(tmp_path / "minari")}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "rollout.mp4").stat().st_size > 1000
    assert (tmp_path / "pogo.zip").exists()


def test_import_is_silent_and_light(tmp_path):
    code = (
        "import gymnasium, time, sys; t = time.perf_counter(); import gcrl_gym\n"
        "heavy = {'torch', 'minari', 'pygame', 'h5py', 'matplotlib', 'stable_baselines3'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'gcrl/Nav2D-v0' in gymnasium.registry"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_gym_make_needs_no_import_before_it():
    code = "import gymnasium; print(gymnasium.make('gcrl_gym:gcrl/Nav2D-v0').spec.id)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "gcrl/Nav2D-v0"
