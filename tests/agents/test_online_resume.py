"""Online training that is stopped and goes on ends with the same bits; OGBench's real maze."""

import io
import json
import warnings

import gymnasium as gym
import numpy as np
import pytest

from gcrl_gym.agents import FQL, GCIQL, POGO, TD3BC
from gcrl_gym.agents import load as load_agent
from gcrl_gym.checkpoint import read_archive, write_archive
from gcrl_gym.datasets import OfflineDataset, replay
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import GoalDict, make_goal_dict_env
from tests.agents.online import SMALL, Walk, marked_data, nav2d, nav2d_env, walker
from tests.agents.test_online_options import Own
from tests.contract.test_agents import env_and_data, roll_out


def archive_of(agent, **keywords):
    file = io.BytesIO()
    agent.save(file, **keywords)
    file.seek(0)
    return file


def assert_same(one, two):
    """Everything that an archive holds: weights, optimisers, generators, buffer, counters."""
    (header, tensors), (other, others) = (read_archive(archive_of(agent)) for agent in (one, two))
    assert header == other
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert tensor.equal(others[name]), name


def stop_at(step):
    return lambda local, _: local["agent"].num_timesteps < step


def interrupted(make, env, dataset, stops, total, **keywords):
    """Train with a new process, as it were, at each stop."""
    agent = make()
    for stop in stops:
        agent.finetune(total - agent.num_timesteps, callback=stop_at(stop), **keywords)
        assert agent.num_timesteps == stop
        agent = load_agent(archive_of(agent), env=env, dataset=dataset)
    return agent.finetune(total - agent.num_timesteps, **keywords)


@pytest.mark.parametrize("kind", [POGO, TD3BC, GCIQL])
@pytest.mark.parametrize("stops", [(7,), (22, 37), (45,), (44, 45, 46)])
def test_nav2d(kind, stops):
    """Stopped in the warm-up, in the middle of episodes (of 15 steps), and at the end of one."""
    agent = nav2d(kind)
    options = {"learning_starts": 20, "mix": 0.3, "learning_rate": "lin_1e-3"}
    whole = nav2d(kind).finetune(60, **options)
    parts = interrupted(lambda: agent, nav2d_env(), agent.dataset, stops, 60, **options)
    assert_same(whole, parts)
    assert whole.online.buffer.num_steps > 30


def test_noise_and_random_mazes_of_nav2d():
    """Randomness of the environment follows from the seed of the episode."""
    env = nav2d_env(noise=0.2, maze="procedural")
    data = OfflineDataset.from_episodes(roll_out(nav2d_env(maze="open"), 4))

    def make():
        return TD3BC(env, data, seed=0, **SMALL)

    whole = make().finetune(60, learning_starts=20)
    assert_same(whole, interrupted(make, env, data, (22, 37), 60, learning_starts=20))


def test_a_full_buffer_and_samplers_that_wait(monkeypatch):
    """The sampler goes on drawing from the episodes that it was last bound to."""
    monkeypatch.setattr(replay, "GROWTH", 1)  # only when the buffer has doubled

    def make():
        return walker(env=Walk(steps=7))

    options = {"learning_starts": 20, "buffer_size": 20}
    whole = make().finetune(95, **options)
    assert whole.online.buffer.published < len(whole.online.buffer.lengths)
    assert_same(whole, interrupted(make, Walk(steps=7), marked_data(), (38, 66), 95, **options))


class Shaky(Walk):
    """Draws from NumPy's process-wide generator, as some of OGBench's environments do."""

    def step(self, action):
        result = super().step(action)
        self.state = self.state + np.random.normal(size=3).astype(np.float32)
        return result


def test_environments_that_draw_from_the_process_wide_generator():
    def make():
        return walker(env=Shaky())

    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    whole = make().finetune(60, learning_starts=20)
    assert np.array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    assert_same(whole, interrupted(make, Shaky(), marked_data(), (27, 50), 60, learning_starts=20))


def test_what_an_agent_remembers():
    options = {"learning_starts": 10, "mix": "online"}
    whole = nav2d(Own).finetune(40, **options)
    half = nav2d(Own).finetune(22, **options)
    assert half.online.memory[0] == 6
    again = Own.load(archive_of(half), env=half.env, dataset=half.dataset)
    assert np.array_equal(again.online.memory[0], half.online.memory[0])
    again.epsilons = []
    again.finetune(18, **options)
    assert_same(whole, again)


def pointmaze():
    pytest.importorskip("ogbench")
    make_goal_dict_env("pointmaze-medium-v0").close()  # registers
    env = gym.make("pointmaze-medium-v0", render_mode=None, max_episode_steps=25)
    return GoalDict(env)


def pointmaze_data(env):
    """Goals are observations and judged by their rows, as in OGBench's sets."""
    episodes = roll_out(env, 3)
    for episode in episodes:
        episode["observations"] = episode["observations"]["observation"]
    return OfflineDataset.from_episodes(
        episodes,
        goal_is_observation=True,
        observation_space=env.observation_space,
        action_space=env.action_space,
    )


@pytest.mark.parametrize("kind", [GCIQL, FQL])
def test_pointmaze(kind):
    env = pointmaze()
    data = pointmaze_data(env)

    def make():
        return kind(env, data, seed=0, **SMALL)

    options = {"learning_starts": 30}
    np.random.seed(1)
    whole = make().finetune(80, **options)
    np.random.seed(2)  # OGBench draws from this one
    before = np.random.get_state()[1].copy()
    parts = interrupted(make, pointmaze(), data, (37, 62), 80, **options)
    assert_same(whole, parts)
    assert np.array_equal(np.random.get_state()[1], before)
    buffer = whole.online.buffer
    assert buffer.layout.achieved_dim == 0  # observations are stored once
    assert whole._bound.reward_rule == "index"


def test_pointmaze_is_not_trained_on_its_evaluation_tasks():
    class Spy(gym.Wrapper):
        """Has no recorded arguments, so it is not copied."""

        tasks = ()

        def reset(self, **keywords):
            result = super().reset(**keywords)
            info = self.unwrapped.cur_task_info
            self.tasks += ((self.unwrapped.cur_task_id, info["init_ij"], info["goal_ij"]),)
            return result

    env = Spy(pointmaze())
    agent = TD3BC(env, pointmaze_data(pointmaze()), seed=0, **SMALL)
    agent.finetune(200, learning_starts=500)
    assert len(env.tasks) == 8
    assert {task for task, _, _ in env.tasks} == {None}
    of_tasks = {info[key] for info in env.unwrapped.task_infos for key in ("init_ij", "goal_ij")}
    assert not {cell for _, *pair in env.tasks for cell in pair} & of_tasks
    assert len({pair for _, *pair in map(tuple, env.tasks) for pair in [tuple(pair)]}) > 4


def test_nav2d_is_not_trained_on_its_evaluation_tasks():
    class Spy(gym.Wrapper):
        options = ()

        def reset(self, *, seed=None, options=None):
            self.options += (options,)
            return super().reset(seed=seed, options=options)

    env = Spy(nav2d_env())
    agent = nav2d().finetune(60, env, learning_starts=500)
    assert env.options == (None,) * 4
    starts = agent.online.buffer.dataset().observations[[0, 16, 32, 48]]
    assert len(np.unique(starts, axis=0)) == 4
    maze = env.unwrapped.maze
    tasks = [env.reset(options={"task_id": task})[0]["observation"] for task in range(1, 6)]
    assert np.linalg.norm(starts[:, None] - np.array(tasks)[None], axis=2).min() > 0.05
    assert maze is not None


class Restless(Walk):
    """Does not do the same again."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None)


def test_an_episode_that_cannot_be_repeated():
    env = Restless(steps=10)
    half = walker(env=env).finetune(25, learning_starts=15)
    again = TD3BC.load(archive_of(half), env=env, dataset=half.dataset)
    with pytest.warns(UserWarning, match="could not be repeated") as caught:
        again.finetune(15, learning_starts=15)
    assert sum("repeated" in str(warning.message) for warning in caught) == 1
    data = again.online.buffer.dataset()
    assert data.columns.lengths.tolist() == [10, 10, 5, 10]  # what was seen is kept, cut off
    assert not data.terminated.any()
    assert again.num_timesteps == 40


def test_a_buffer_that_is_not_saved(tmp_path):
    agent = nav2d().finetune(40, learning_starts=20, save_buffer=False)
    agent.save(tmp_path / "without.zip")
    agent.save(tmp_path / "with.zip", buffer=True)
    names = read_archive(tmp_path / "without.zip")[1]
    assert not any(name.startswith("online") for name in names)
    assert "online/rows" in read_archive(tmp_path / "with.zip")[1]
    env, data = nav2d_env(), agent.dataset
    again = TD3BC.load(tmp_path / "without.zip", env=env, dataset=data)
    with pytest.warns(UserWarning, match="No replay buffer was saved"):
        again.finetune(19, learning_starts=20)
    assert again.online.episodes == 5  # other episodes than before
    assert again._n_updates == agent._n_updates  # the warm-up begins again
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        TD3BC.load(tmp_path / "with.zip", env=env, dataset=data).finetune(5)


def test_an_archive_is_small_without_and_known_with_a_buffer(tmp_path):
    agent = nav2d()
    agent.save(tmp_path / "never.zip")
    agent.finetune(3000, learning_starts=4000)
    agent.save(tmp_path / "online.zip")
    agent.save(tmp_path / "plain.zip", buffer=False)
    never, online, plain = (
        (tmp_path / f"{name}.zip").stat().st_size for name in ("never", "online", "plain")
    )
    rows = 3000 + 3000 / 15
    assert plain - never < 12_000  # states of generators
    assert online - plain == pytest.approx(rows * 10 * 4, rel=0.05)  # ten floats a row


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("buffer", {"running": 99}),
        ("buffer", {"published": 99}),
        ("buffer", {"layout": {}}),
        ("env_steps", "many"),
        ("recent", [[1]]),
    ],
)
def test_damaged_experience_is_an_error(part, change, tmp_path):
    header, tensors = read_archive(archive_of(nav2d().finetune(40, learning_starts=20)))
    header = json.loads(json.dumps(header))
    if part == "buffer":
        header["online"]["buffer"] |= change
    else:
        header["online"][part] = change
    header.pop("format_version")
    write_archive(tmp_path / "damaged.zip", header, tensors)
    with pytest.raises(UserError, match="damaged"):
        TD3BC.load(tmp_path / "damaged.zip")


def test_archives_from_before_there_was_online_training():
    _, data = env_and_data("gcrl/Nav2D-v0")
    agent = nav2d().learn(3)
    header, tensors = read_archive(archive_of(agent))
    header["batch_generator"] = header.pop("numpy_generators")["batches"]
    header.pop("format_version")
    file = io.BytesIO()
    write_archive(file, header, tensors)
    file.seek(0)
    again = TD3BC.load(file, env=nav2d_env(), dataset=data)
    assert_same(agent.learn(3), again.learn(3))
