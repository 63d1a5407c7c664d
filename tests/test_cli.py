"""The command line, in real processes: what it prints, exit codes, one line per mistake."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gcrl_gym
from gcrl_gym.agents import GCBC
from gcrl_gym.cli import COMMANDS, main
from gcrl_gym.datasets.nav2d_io import write_nav2d

ROOT = Path(gcrl_gym.__file__).parents[1]
OGBENCH_FILE = ROOT / "tests" / "data" / "ogbench" / "pointmaze-medium-stitch-v0.npz"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with one Minari dataset and one trained run."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(home / "minari"))
        write_nav2d("test/walks-v0", "noisy", "open", episodes=20, seed=0)
    return home


def gcrl(home, *arguments, expect=0, **environment):
    variables = {
        key: value for key, value in os.environ.items() if key not in ("GCRL_DATA_DIR", "DISPLAY")
    }
    variables |= {"MINARI_DATASETS_PATH": str(home / "minari"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "gcrl_gym.cli", *arguments],
        cwd=home,
        env=variables | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == expect, done.stderr + done.stdout
    return done


@pytest.fixture
def here(home, monkeypatch, capsys):
    """The same as ``gcrl`` in this process: importing torch for every command takes minutes."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(home / "minari"))
    monkeypatch.delenv("GCRL_DATA_DIR", raising=False)

    def call(*arguments, expect=0):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        captured = capsys.readouterr()
        assert stop.value.code == expect, captured.err
        return SimpleNamespace(stdout=captured.out, stderr=captured.err)

    return call


TRAIN = ["train", "gcbc", "--dataset", "test/walks-v0", "--hidden-sizes", "16", "16"]
TRAIN += ["--steps", "100", "--eval-freq", "50", "--checkpoint-freq", "50"]
TRAIN += ["--eval-episodes", "1", "--video-episodes", "1"]


@pytest.mark.parametrize("arguments", [["--help"], ["envs", "--help"], ["data", "--help"], []])
def test_help_is_quick_and_imports_nothing_heavy(home, arguments):
    start = time.perf_counter()
    text = gcrl(home, *arguments).stdout
    assert time.perf_counter() - start < 5  # about 0.2 s alone; the machine may be busy
    assert text.startswith("usage: gcrl")
    script = (
        "import sys\n"
        "from gcrl_gym.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'minari', 'h5py', 'pygame', 'matplotlib', 'ogbench', 'mujoco'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, env=variables)


def test_overview_names_every_command_and_each_has_help(here):
    text = here("--help").stdout
    for command in COMMANDS:
        assert f"  {command}" in text
        assert here(command, "--help").stdout.startswith("usage: gcrl " + command)
    assert here("--version").stdout.startswith("gcrl_gym ")


def test_envs_lists_every_registered_environment(here):
    from gcrl_gym.envs import specs

    text = here("envs").stdout
    assert all(spec.id in text for spec in specs())
    assert "maze='four_rooms'" in text


def test_train_help_shows_the_agents_own_flags(here):
    text = here("train", "pogo", "--help").stdout
    for flag in ("--w2-weights", "--no-normalize", "--policy-freq", "--learning-rate", "--steps"):
        assert flag in text
    assert "--w2 {sinkhorn,exact}" in text
    assert "pogo" in here("train", "--help").stdout


def test_train_eval_and_record(home, here):
    out = gcrl(home, *TRAIN).stdout
    assert "0 deterministic" in out
    folder = home / "runs" / "test" / "walks-v0" / "gcbc" / "hidden_sizes=16-16" / "seed_0"
    assert (folder / "results.json").is_file()
    assert str(Path("runs") / "test") in out
    assert "already finished" in here(*TRAIN).stdout
    text = here("eval", str(folder), "--episodes", "2", "--tasks", "1", "3", "--json").stdout
    result = json.loads(text)
    assert set(result["per_task"]) == {"1", "3"}
    assert result["episodes_per_task"] == 2
    assert result["normalized_score"] == 100 * result["success_rate"]  # Nav2D's references
    table = here("eval", str(folder / "best_model.zip"), "--episodes", "1").stdout
    assert "0 sampled" in table
    moved = home / "moved.zip"
    moved.write_bytes((folder / "final_model.zip").read_bytes())
    assert "--env" in here("eval", str(moved), expect=2).stderr
    out = here("record", str(moved), "--env", "gcrl/Nav2D-v0", "--episodes", "1").stdout
    assert (home / out.strip()).stat().st_size > 1000


def test_progress_and_quiet(here):
    shown = here(*TRAIN, "--seed", "1").stderr
    assert "100/100" in shown
    assert "last success" in shown
    quiet = here(*TRAIN, "--seed", "2", "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_dry_run_shows_where_values_come_from(home, here):
    flags = ["--dataset", "x", "--steps", "1e5", "--K", "3", "--no-normalize", "--dry-run"]
    text = here("train", "pogo", "--preset", "quickstart", *flags).stdout
    assert "steps: 100000" in text
    assert "K = 3  (given)" in text
    assert "normalize = False  (given)" in text
    assert "w2 = 'exact'  (preset quickstart)" in text
    assert "blur = 0.05  (default)" in text
    assert not (home / "runs" / "x").exists()


@pytest.mark.slow
def test_quickstart_leaves_its_files(home):
    text = gcrl(home, "quickstart", "--steps", "8", "--folder", "first", "--quiet").stdout
    files = ("rollout.mp4", "learning_curve.png", "evaluations.csv", "results.json")
    for name in (*files, "final_model.zip"):
        assert str(Path("first") / name) in text
        assert (home / "first" / name).stat().st_size > 100
    protocol = json.loads((home / "first" / "results.json").read_text())["protocol"]
    assert (protocol["tasks"], protocol["episodes_per_task"]) == ([1, 2, 3, 4, 5], 20)


MISTAKES = [
    (["trian"], "'train'"),
    (["train"], "Name the agent first: gcrl train AGENT, one of"),
    (["train", "pog", "--dataset", "x", "--steps", "1"], "'pogo'"),
    (["train", "pogo", "--dataset", "x"], "--steps"),
    (["train", "pogo", "--dataset", "x", "--steps", "many"], "many"),
    (["train", "pogo", "--dataset", "x", "--steps", "1.5"], "whole number"),
    (["train", "pogo", "--dataset", "x", "--steps", "5", "--lerning-rate", "1"], "--learning-rate"),
    (["train", "pogo", "--dataset", "x", "--steps", "5", "--w2", "sinkhor"], "'sinkhorn'"),
    (["train", "pogo", "--dataset", "x", "--steps", "5", "--preset", "quick"], "quickstart"),
    (["train", "gcbc", "--dataset", "test/walk-v0", "--steps", "5"], "test/walks-v0"),
    (["train", "gcbc", "--dataset", "test/walks-v0", "--steps", "5", "--env", "No-v0"], "No-v0"),
    (
        ["train", "gcbc", "--dataset", "test/walks-v0", "--steps", "5", "--runs-dir", "/dev/null"],
        "/dev/null",
    ),
    (
        ["train", "gcbc", "--dataset", "test/walks-v0", "--steps", "5", "--env", "CartPole-v1"],
        "shape",
    ),
    (["eval", "nothing.zip"], "nothing.zip"),
    (["record", "nothing.zip"], "nothing.zip"),
    (["eval", "minari/test/walks-v0/data/main_data.hdf5"], "main_data.hdf5"),
    (["data"], "list, show, convert, collect"),
    (["data", "sow"], "'show'"),
    (["data", "show", "gcrl/nav2d/plya-v0"], "gcrl/nav2d/play-v0"),
    (["data", "show", "ogbench/pointmaze-large-navigate-v0"], "pointmaze-large-navigate-v0.npz"),
    (["data", "convert", "nothing.npz"], "nothing.npz"),
    (["data", "collect", "CartPol-v1", "--id", "me/x-v0"], "CartPole"),
    (["data", "collect", "CartPole-v1", "--id", "not an id"], "not an id"),
    (["data", "collect", "CartPole-v1", "--id", "test/walks-v0"], "exists"),
    (["data", "collect", "gcrl/Nav2D-v0", "--id", "me/x-v0", "--maze", "smal"], "smal"),
]


@pytest.mark.parametrize(("arguments", "word"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_one_line_and_exit_2(home, here, arguments, word):
    def files():
        return sorted(path for path in home.rglob("*") if "gcrl_cache" not in path.parts)

    before = files()
    check_one_line(here(*arguments, expect=2).stderr, word)
    assert files() == before


@pytest.mark.parametrize(("arguments", "word"), [MISTAKES[0], MISTAKES[7], MISTAKES[9]])
def test_mistakes_in_a_real_process(home, arguments, word):
    check_one_line(gcrl(home, *arguments, expect=2).stderr, word)


def check_one_line(message, word):
    assert message.startswith("gcrl: ")
    assert message.count("\n") == 1
    assert word in message


def test_debug_shows_the_traceback(home):
    done = gcrl(home, "eval", "nothing.zip", "--debug", expect=1)
    assert "Traceback" in done.stderr


def test_internal_errors_are_marked_as_such(home):
    broken = home / "broken.py"
    broken.write_text(
        "from gcrl_gym.agents import GCBC\n"
        "class Broken(GCBC):\n"
        "    def update(self, batch):\n"
        "        return 1 / 0\n"
    )
    flags = ["--dataset", "test/walks-v0", "--steps", "5"]
    path = os.pathsep.join([str(ROOT), str(home)])
    done = gcrl(home, "train", "broken:Broken", *flags, "--quiet", expect=1, PYTHONPATH=path)
    assert done.stderr.count("\n") == 1
    assert "ZeroDivisionError" in done.stderr


def test_data_list_show_and_collect(here):
    text = here("data", "list").stdout
    assert "test/walks-v0" in text
    assert "gcrl/nav2d/play-v0" in text
    assert "more need their source file" in text
    shown = here("data", "show", "test/walks-v0").stdout
    assert "20 episodes" in shown
    assert "noisy" in shown
    flags = ["--id", "me/random-v0", "--episodes", "3", "--seed", "4"]
    out = here("data", "collect", "CartPole-v1", *flags).stdout
    assert out.startswith("me/random-v0: 3 episodes")
    flags = ["--id", "me/expert-v0", "--episodes", "4", "--policy", "expert", "--maze", "u_maze"]
    assert "4 episodes" in here("data", "collect", "gcrl/Nav2D-v0", *flags).stdout


def test_data_collect_with_a_saved_agent(home, here):
    import gymnasium as gym

    agent = GCBC(gym.make("gcrl/Nav2D-v0"), hidden_sizes=(8,), seed=0)
    agent.save(home / "agent.zip")
    flags = ["--policy", "agent.zip", "--episodes", "2"]
    first = here("data", "collect", "gcrl/Nav2D-v0", "--id", "me/a-v0", *flags).stdout
    second = here("data", "collect", "gcrl/Nav2D-v0", "--id", "me/b-v0", *flags).stdout
    assert first.split(":")[1] == second.split(":")[1]
    import h5py

    columns = []
    for name in ("a", "b"):
        path = home / "minari" / "me" / f"{name}-v0" / "data" / "main_data.hdf5"
        with h5py.File(path) as file:
            columns.append(file["episode_0/actions"][()])
    assert (columns[0] == columns[1]).all()
    assert len(np.unique(columns[0])) > 10  # sampled actions


def test_data_convert(here):
    out = here("data", "convert", str(OGBENCH_FILE)).stdout
    assert out.startswith("ogbench/pointmaze-medium-stitch-v0: 5 episodes")
    again = here("data", "convert", str(OGBENCH_FILE), expect=2).stderr
    assert "exists" in again
    text = here("data", "list", "--data-dir", str(OGBENCH_FILE.parent)).stdout
    assert "puzzle-3x3-play-val-v0" in text


def test_data_convert_says_what_it_did(here):
    file = str(ROOT / "tests" / "data" / "d4rl" / "hopper_medium-v2.hdf5")
    text = here("data", "convert", file).stdout
    assert text.startswith("d4rl/hopper-medium-v2: ")
    for word in ("sha256", "NOT the official file", "reward sum", "largest state jump", "dropped"):
        assert word in text
    assert "official: False" in here("data", "show", "d4rl/hopper-medium-v2").stdout
    wrong = here("data", "convert", file, "--id", "d4rl/nothing-v2", expect=2).stderr
    assert "d4rl/nothing-v2" in wrong


def test_data_check_and_repair(home, here):
    import h5py

    source = ROOT / "tests" / "data" / "d4rl" / "door-v0_demos_clipped.hdf5"
    path = home / source.name
    shutil.copy(source, path)
    assert "sound" in here("data", "check", str(path)).stdout
    with h5py.File(path, "r+") as file:
        file["observations"][20, 3] = np.nan
    found = here("data", "check", str(path), "--repair", expect=1).stdout
    assert "observations holds NaN or infinity in row 20" in found
    repaired = home / "door-v0_demos_clipped.repaired.hdf5"
    with h5py.File(repaired) as file, h5py.File(source) as original:
        assert np.isfinite(file["observations"][()]).all()
        first = int(np.argmax(original["timeouts"][()] > 0)) + 1
        np.testing.assert_array_equal(file["actions"][()], original["actions"][first:])
        assert file["timeouts"][-1]
    text = here("data", "convert", str(repaired), "--id", "d4rl/door-human-v0").stdout
    assert text.startswith("d4rl/door-human-v0")
    assert "sound" in here("data", "check", "d4rl/door-human-v0").stdout


def test_data_check_fails_with_status_1(here):
    assert "sound" in here("data", "check", "test/walks-v0", "--env", "gcrl/Nav2D-v0").stdout
    flags = ["--env", "gcrl/Nav2DDiscrete-v0"]
    assert (
        "defect: actions is Box" in here("data", "check", "test/walks-v0", *flags, expect=1).stdout
    )
    assert "Unknown dataset" in here("data", "check", "nothing/here-v0", expect=1).stderr
    assert (
        "Unknown environment"
        in here("data", "check", "test/walks-v0", "--env", "gcrl/Nav3D-v0", expect=1).stderr
    )


def test_doctor(home):
    text = gcrl(home, "doctor").stdout
    for word in ("torch", "ogbench", "device", "compiler", "matmul", "CPU", "video"):
        assert word in text
    import torch

    assert torch.__version__.split("+")[0] in text


def test_a_warning_is_one_line_and_said_once(capsys):
    flags = ["--dataset", "gcrl/nav2d/play-v0", "--steps", "10", "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        main(["train", "iql", "--preset", "auto", *flags])
    assert not ended.value.code
    lines = capsys.readouterr().err.splitlines()
    ours = [line for line in lines if "published" in line]
    assert ours == [
        "gcrl: warning: No hyperparameters of iql are published for gcrl/nav2d/play-v0: its "
        "defaults are used."
    ]
