"""``gcrl play``, with a window that nobody sees and keys that nobody presses."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym
from gcrl_gym.cli import main, play
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.check import check_minari
from gcrl_gym.envs import window
from gcrl_gym.errors import UserError

ROOT = Path(gcrl_gym.__file__).parents[1]


@pytest.fixture
def player(tmp_path, monkeypatch, capsys):
    """Play with a script of keys: frame number -> what is pressed (+key) or released (-key)."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame = window.pygame_module()
    real_show = window.show
    frames = []

    def run(script, *arguments, expect=0):
        frames.clear()

        def show(owner, frame, fps):
            real_show(owner, frame, 100_000)  # no waiting
            for text in script.get(len(frames), "").split():
                if text == "close":
                    pygame.event.post(pygame.event.Event(pygame.QUIT))
                elif text == "ctrl-c":
                    raise KeyboardInterrupt
                else:
                    kind = pygame.KEYDOWN if text[0] == "+" else pygame.KEYUP
                    key = pygame.key.key_code(text[1:])
                    pygame.event.post(pygame.event.Event(kind, key=key))
            frames.append((frame, fps))
            assert len(frames) < 3000, "the game does not end"

        monkeypatch.setattr(window, "show", show)
        with pytest.raises(SystemExit) as stop:
            main(["play", *arguments])
        captured = capsys.readouterr()
        assert stop.value.code == expect, captured.err
        assert not pygame.display.get_init()
        run.frames, run.out, run.err = frames, captured.out, captured.err

    return run


def actions_of(loaded):
    return loaded.actions[loaded.step_rows].tolist()


def test_nav2d_moves_while_keys_are_held(player):
    script = {2: "+right", 5: "+w", 7: "-right -w", 9: "+a -a", 11: "+escape"}
    player(script, "gcrl/Nav2D-v0", "--set", "maze=open", "--dataset", "me/drive-v0", "--seed", "4")
    loaded = OfflineDataset.from_minari("me/drive-v0")
    # A key that is pressed and released between two frames is one step, too.
    expected = [[1, 0]] * 3 + [[1, 1]] * 2 + [[1, 1]] + [[-1, 0]]
    assert actions_of(loaded)[:5] == expected[:5]
    assert [-1, 0] in actions_of(loaded)
    assert len(actions_of(loaded)) <= len(expected)
    assert loaded.metadata["policy"] == "human"
    env = gym.make("gcrl/Nav2D-v0", maze="open")
    start = env.reset(seed=4)[0]
    assert np.array_equal(loaded.observations[0], start["observation"])
    assert np.array_equal(loaded.desired_goals[0], start["desired_goal"])
    assert "Arrow keys or WASD move" in player.out
    assert "stopped after" in player.out
    assert "me/drive-v0: 1 episodes" in player.out
    assert not loaded.terminated.any()  # unfinished: truncated


def test_replay_gives_the_same_episode(player, tmp_path):
    """Actions, rewards and ends are those of the environment; it loads and is sound."""
    script = {0: "+up", 40: "-up +down", 80: "-down +right", 120: "-right +left", 200: "+q"}
    flags = ["--set", "maze=u_maze", "goal_tolerance=2.0", "reward=penalty"]
    player(script, "gcrl/Nav2D-v0", "--episodes", "3", "--dataset", "me/b-v0", *flags)
    import minari

    dataset = minari.load_dataset("me/b-v0")
    env = dataset.recover_environment()
    assert check_minari(dataset, env) == []
    assert env.unwrapped.goal_tolerance == 2.0
    first = True
    for episode in dataset.iterate_episodes():
        observation, _ = env.reset(seed=0 if first else None)
        first = False
        for step, action in enumerate(episode.actions):
            stored = episode.observations["observation"][step]
            assert np.array_equal(stored, observation["observation"])
            observation, reward, terminated, *_ = env.step(action)
            assert (episode.rewards[step], episode.terminations[step]) == (reward, terminated)
        assert episode.truncations[-1] != episode.terminations[-1]


def test_restart_ends_and_outcome(player):
    script = {1: "+d", 4: "+r -r", 6: "-d", 12: "+d -d", 14: "close"}
    player(script, "gcrl/Nav2D-v0", "--dataset", "me/c-v0", "--fps", "7")
    loaded = OfflineDataset.from_minari("me/c-v0")
    assert loaded.num_episodes == 2
    assert {fps for _, fps in player.frames} == {7}
    assert "episode 2: stopped" in player.out


def test_the_number_of_episodes_and_success(player):
    keywords = ["start=[1.0, 5.0]", "goal=[3.0, 5.0]", "maze=open"]
    player({0: "+right"}, "gcrl/Nav2D-v0", "--episodes", "2", "--set", *keywords)
    assert player.out.count("success after 3 steps, return 1.00") == 2
    assert "episode 3" not in player.out
    shapes = {frame.shape for frame, _ in player.frames}
    assert len(shapes) == 1
    assert not np.array_equal(player.frames[0][0], player.frames[1][0])


def test_discrete_moves(player):
    script = {0: "+up -up", 2: "+s -s", 4: "+left -left", 6: "+d -d", 8: "+escape"}
    player(script, "gcrl/Nav2DDiscrete-v0", "--set", "maze=open", "--dataset", "me/d-v0")
    assert actions_of(OfflineDataset.from_minari("me/d-v0")) == [0, 1, 2, 3]


def car(continuous):
    if "gcrl/CarRacing-v0" not in gym.registry:
        pytest.skip("no car racing here")
    return gym.make("gcrl/CarRacing-v0", continuous=continuous)


def test_keys_of_the_car():
    keys = play.controls(car(True))
    assert keys.real_time
    assert keys.action(set()).tolist() == [0, 0, 0]
    assert keys.action({play.LEFT, play.UP}).tolist() == [-1, 1, 0]
    assert keys.action({play.RIGHT, play.DOWN}).tolist() == [1, 0, 1]
    keys = play.controls(car(False))
    moves = [keys.action(held) for held in (set(), {"right"}, {"left"}, {"up"}, {"down"})]
    assert moves == [0, 1, 2, 3, 4]
    assert keys.action({"up", "left"}) == 2
    assert keys.action({"up", "left", "down"}) == 4


def test_the_car_rolls_on_without_keys(player):
    car(True)
    script = {0: "+up", 3: "+left", 5: "-left -up", 10: "+escape"}
    player(script, "gcrl/CarRacing-v0", "--dataset", "me/e-v0", "--set", "mode=lap")
    loaded = OfflineDataset.from_minari("me/e-v0")
    actions = actions_of(loaded)
    assert actions[0] == [0, 1, 0]
    assert [-1, 1, 0] in actions
    assert actions[-1] == [0, 0, 0]
    assert len(actions) >= 8


def test_ctrl_c_still_writes(player):
    script = {0: "+right", 5: "ctrl-c"}
    player(script, "gcrl/Nav2D-v0", "--dataset", "me/f-v0", expect=130)
    assert OfflineDataset.from_minari("me/f-v0").num_steps == 5
    assert "Interrupted" in player.err


def test_nothing_driven_is_not_written(player, tmp_path):
    player({3: "+q"}, "gcrl/Nav2D-v0", "--dataset", "me/g-v0")
    assert "No step was taken" in player.err
    assert not list(tmp_path.glob("**/*.hdf5"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["gcrl/Nav3D-v0"], "Did you mean 'gcrl/Nav2D-v0'"),
        (["gcrl/Nav2D-v0", "--set", "maze=opn"], "'open'"),
        (["gcrl/Nav2D-v0", "--set", "maze"], "KEY=VALUE"),
        (["gcrl/Nav2D-v0", "--dataset", "no id"], "'no id' is not a dataset id"),
        (["gcrl/Nav2D-v0", "--fps", "0"], "--fps is 0"),
        (["CartPole-v1"], "no keys for CartPole-v1"),
    ],
)
def test_a_mistake_is_one_line(player, arguments, word):
    player({0: "+q"}, *arguments, expect=2)
    assert player.err.count("\n") == 1
    assert word in player.err
    assert not player.frames


def test_an_existing_dataset_is_refused_before_the_game(player):
    player({0: "+d", 3: "+q"}, "gcrl/Nav2D-v0", "--dataset", "me/h-v0")
    player({0: "+d", 3: "+q"}, "gcrl/Nav2D-v0", "--dataset", "me/h-v0", expect=2)
    assert "exists" in player.err
    assert not player.frames


def test_other_environments_that_move_in_a_plane():
    class Plane(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (2,))
        action_space = gym.spaces.Box(np.array([0.0, -2.0]), np.array([4.0, 6.0]))

    keys = play.controls(Plane())
    assert keys.action({"left", "up"}).tolist() == [0, 6]
    assert keys.action(set()).tolist() == [2, 2]
    assert keys.action({"left", "right"}).tolist() == [2, 2]
    Plane.action_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(UserError, match="no keys for Plane"):
        play.controls(Plane())


def environment(**changes):
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return kept | {"PYTHONPATH": str(ROOT)} | changes


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have a display")
@pytest.mark.parametrize("changes", [{}, {"SDL_VIDEODRIVER": "x11"}])
def test_without_a_display_it_is_one_sentence(changes):
    command = [sys.executable, "-m", "gcrl_gym.cli", "play", "gcrl/Nav2D-v0"]
    done = subprocess.run(command, env=environment(**changes), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("gcrl: gcrl play opens a window and needs a display (")
    assert done.stderr.count("\n") == 1
    assert "xvfb-run" in done.stderr


@pytest.mark.slow
def test_ctrl_c_in_a_real_process(tmp_path):
    """No key is pressed here, and nothing is written."""
    changes = {"SDL_VIDEODRIVER": "dummy", "MINARI_DATASETS_PATH": str(tmp_path)}
    command = [sys.executable, "-u", "-m", "gcrl_gym.cli", "play", "gcrl/Nav2D-v0"]
    process = subprocess.Popen(
        [*command, "--dataset", "me/x-v0"],
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "move" in process.stdout.readline()
    time.sleep(2)  # an interrupt may get lost while SDL starts; people press again
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in error
