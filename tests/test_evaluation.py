"""Evaluation: the numbers, their reproducibility, and that nothing outside is touched."""

import json
import random
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from gcrl_gym.errors import UserError
from gcrl_gym.evaluation import evaluate
from gcrl_gym.pools import EnvPool, NativePool, make_pool
from gcrl_gym.rollout import Episode, EpisodeLog, make_jobs, run_episodes

TASKS, LIMIT = 3, 12


class Line(gym.Env):
    """Walk on a line from 0 to the task's goal (2, 3, 4); one step of 1 per action > 0.

    Starts and noise come from the env's own generator, stray draws from NumPy's global one.
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    num_tasks = TASKS

    def __init__(self, stray=False):
        box = spaces.Box(-10, 10, (1,), np.float32)
        self.observation_space = spaces.Dict(
            {"observation": box, "achieved_goal": box, "desired_goal": box}
        )
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.stray = stray

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = float((options or {}).get("task_id", 1)) + 1
        self.x = 0.1 * float(self.np_random.random())
        if self.stray:
            self.x += 0.1 * np.random.random() + 0.1 * float(self.action_space.sample()[0])
        return self._obs(), {"success": 0.0}

    def step(self, action):
        self.x += float(np.clip(action[0], -1, 1))
        if self.stray:
            self.x += 0.01 * np.random.random()
        success = self.x >= self.goal
        return self._obs(), float(success), success, False, {"success": float(success)}

    def _obs(self):
        x, goal = np.float32([self.x]), np.float32([self.goal])
        return {"observation": x, "achieved_goal": x, "desired_goal": goal}


class Walker:
    """Goes right; a chain of two actors, of which actor 0 stands still and 1 samples its speed."""

    num_actors = 2

    def predict(self, obs, state=None, episode_start=None, deterministic=False, actor=-1):
        count = len(obs["observation"])
        if actor == 0:
            return np.zeros((count, 1)), None
        speed = np.ones(count) if deterministic else np.random.uniform(0.2, 1.0, count)
        return speed[:, None], None


class Counter:
    """Recurrent: moves only from the fourth step of an episode on, which ``state`` counts."""

    def predict(self, obs, state=None, episode_start=None, deterministic=False):
        count = len(obs["observation"])
        steps = np.zeros(count) if state is None else state
        steps = np.where(episode_start, 0, steps) + 1
        return (steps > 3).astype(float)[:, None], steps


@pytest.fixture(scope="module", autouse=True)
def line_ids():
    gym.register("Line-v0", Line, max_episode_steps=LIMIT)
    yield
    del gym.registry["Line-v0"]


def test_numbers_per_task_and_actor():
    result = evaluate(Walker(), gym.make("Line-v0"), episodes_per_task=4)
    assert result.success_rate == 1.0
    assert list(result.per_task) == [1, 2, 3]
    # The walk starts at 0 .. 0.1 and goes 1 per step: goal g is reached after g steps.
    assert [result.per_task[task]["mean_steps_to_goal"] for task in (1, 2, 3)] == [2, 3, 4]
    assert result.per_task[3]["mean_final_distance"] == pytest.approx(0.05, abs=0.05)
    rows = {(row["actor"], row["mode"]): row for row in result.per_actor}
    assert set(rows) == {(a, m) for a in (0, 1) for m in ("deterministic", "sampled")}
    still = rows[0, "deterministic"]
    assert (still["success_rate"], still["mean_return"]) == (0.0, 0.0)
    assert still["mean_steps_to_goal"] is None
    assert still["per_task"][2]["mean_final_distance"] == pytest.approx(2.95, abs=0.05)
    assert rows[1, "sampled"]["mean_steps_to_goal"] > result.per_actor[2]["mean_steps_to_goal"]
    assert result.per_task[1]["episodes"] == 4
    assert still["episodes"] == 12


def test_result_is_json_and_table():
    result = evaluate(Walker(), gym.make("Line-v0"), episodes_per_task=2)
    data = json.loads(json.dumps(result.to_dict()))
    assert data["per_actor"][3]["per_task"]["2"]["success_rate"] == 1.0
    assert data["seed"] == 0
    assert result.table().row_count == 4
    assert "1 sampled" in str(result)
    assert "episodes per task" in str(result)


def test_two_calls_agree_and_seeds_differ():
    env = gym.make("Line-v0", stray=True)
    first = evaluate(Walker(), env, episodes_per_task=5, seed=3)
    assert first == evaluate(Walker(), env, episodes_per_task=5, seed=3)
    assert first != evaluate(Walker(), env, episodes_per_task=5, seed=4)


def test_process_generators_are_untouched():
    env = gym.make("Line-v0", stray=True)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    np.random.randn()  # leaves a second gaussian pending in the generator
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    bit_generator = np.random.get_bit_generator()
    evaluate(Walker(), env, episodes_per_task=2)
    assert random.getstate() == before[0]
    assert repr(np.random.get_state()) == repr(before[1])
    assert np.random.get_bit_generator() is bit_generator
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("size", [1, 2, 7, 25])
def test_episodes_do_not_depend_on_the_batching(size):
    env = gym.make("Line-v0", stray=True)
    jobs = make_jobs([1, 2, 3], 4, seed=0)
    runs = []
    for copies in (size, 12):
        pool = EnvPool(env, copies)
        runs.append(run_episodes(Walker(), pool, jobs, actor=1, deterministic=True))
        pool.close()
    assert runs[0] == runs[1]


def test_every_episode_has_its_own_seed():
    pool = EnvPool(gym.make("Line-v0"))
    episodes = run_episodes(
        Walker(), pool, make_jobs([1, 2], 5, seed=0), actor=1, deterministic=True
    )
    assert len({episode.final_distance for episode in episodes}) == 10


def test_success_is_judged_at_the_last_step():
    left, stayed = EpisodeLog(1), EpisodeLog(1)
    for success in (0.0, 1.0, 0.0):
        left.add(0.5, {"success": success})
    assert left.finish({}, {"success": 0.0}) == Episode(1, 1.5, 3, False, None, None)
    for success in (False, True, True):
        stayed.add(0.0, {"is_success": success})
    done = stayed.finish({}, {"is_success": True, "distance_to_goal": 0.25})
    assert done == Episode(1, 0.0, 3, True, 2, 0.25)


def test_actors_do_not_depend_on_which_are_run():
    env = gym.make("Line-v0", stray=True)
    full = evaluate(Walker(), env, episodes_per_task=3)
    last = evaluate(Walker(), env, episodes_per_task=3, actors="last", modes=("sampled",))
    assert last.per_actor == [full.per_actor[3]]


def test_a_policy_with_one_action_is_run_once():
    class Steady:
        calls = 0

        def is_deterministic(self, actor):
            return True

        def predict(self, obs, state=None, episode_start=None, deterministic=False):
            Steady.calls += 1
            return np.full((len(obs["observation"]), 1), 0.7), None

    env = gym.make("Line-v0")
    once = evaluate(Steady(), env, episodes_per_task=1, modes=("deterministic",))
    calls, Steady.calls = Steady.calls, 0
    both = evaluate(Steady(), env, episodes_per_task=1)
    assert Steady.calls == calls
    first, second = both.per_actor
    assert (first["mode"], second["mode"]) == ("deterministic", "sampled")
    assert first | {"mode": ""} == second | {"mode": ""}
    assert once.per_actor == [first]


def test_recurrent_state_starts_anew_in_every_episode():
    # 3 tasks x 9 episodes on at most 25 copies: two copies run a second episode.
    result = evaluate(Counter(), gym.make("Line-v0"), episodes_per_task=9, modes=("deterministic",))
    assert [result.per_task[task]["mean_steps_to_goal"] for task in (1, 2, 3)] == [5, 6, 7]


def test_the_given_environment_is_not_stepped():
    env = gym.make("Line-v0")
    env.reset(options={"task_id": 2})
    evaluate(Walker(), env, episodes_per_task=2)
    assert (env.unwrapped.goal, env.unwrapped.x < 0.2) == (3.0, True)
    env.step(np.ones(1))


def test_environment_without_a_spec_runs_alone():
    alone = gym.wrappers.TimeLimit(Line(), LIMIT)
    assert alone.spec is None
    copies = evaluate(Walker(), gym.make("Line-v0"), episodes_per_task=3, modes=("deterministic",))
    assert evaluate(Walker(), alone, episodes_per_task=3, modes=("deterministic",)) == copies


def test_environment_without_tasks_or_success():
    class Balance:
        def predict(self, obs, state=None, episode_start=None, deterministic=False):
            return (obs[:, 2] + obs[:, 3] > 0).astype(int), None

    result = evaluate(
        Balance(), gym.make("CartPole-v1"), episodes_per_task=3, references=(0.0, 1000.0)
    )
    assert list(result.per_task) == ["default"]
    assert result.success_rate is None
    assert result.mean_return > 400
    assert result.normalized_score == pytest.approx(result.mean_return / 10)
    assert "score ↑" in str(result)
    assert f" {result.normalized_score:.1f} " in str(result)
    assert result.per_task["default"]["mean_final_distance"] is None


def test_references_of_the_agents_dataset_normalise_its_own_environment_only():
    agent = Walker()
    agent.dataset = SimpleNamespace(
        metadata={"env_spec": '{"id": "Line-v0"}', "ref_min_score": -1.0, "ref_max_score": 3.0}
    )
    result = evaluate(agent, gym.make("Line-v0"), episodes_per_task=1)
    assert result.normalized_score == 50.0  # return 1
    agent.dataset.metadata["env_spec"] = '{"id": "Other-v0"}'
    assert evaluate(agent, gym.make("Line-v0"), episodes_per_task=1).normalized_score is None


def test_stable_baselines_agents_and_wrappers():
    from stable_baselines3 import PPO
    from stable_baselines3.common.monitor import Monitor

    model = PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu", n_steps=64)
    first = evaluate(model, Monitor(gym.make("CartPole-v1")), episodes_per_task=5)
    torch.rand(1)  # sampled actions come from torch's global generator, seeded for the evaluation
    assert first == evaluate(model, model.get_env(), episodes_per_task=5)
    assert first.per_actor[1]["mode"] == "sampled"
    assert first.per_actor[0]["mean_return"] != first.per_actor[1]["mean_return"]


def test_ogbench_is_reproducible():
    ogbench = pytest.importorskip("ogbench")
    assert ogbench

    class East:
        def predict(self, obs, state=None, episode_start=None, deterministic=False):
            return np.tile([1.0, 0.3], (len(obs), 1)), None

    # Teleport mazes draw from NumPy's global generator in every step.
    env = gym.make("pointmaze-teleport-v0", max_episode_steps=60)
    pool = EnvPool(env)
    kwargs = {"episodes_per_task": 2, "modes": ("deterministic",)}
    first = evaluate(East(), pool, **kwargs)
    assert evaluate(East(), pool, **kwargs) == first
    assert evaluate(East(), env, **kwargs) == first
    assert list(first.per_task) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("tasks", "episodes", "message"),
    [([1, 9], 2, r"task \[9\].*\[1, 2, 3\]"), ("some", 2, "some"), ("all", 0, "at least 1")],
)
def test_wrong_arguments(tasks, episodes, message):
    with pytest.raises(UserError, match=message):
        evaluate(Walker(), gym.make("Line-v0"), tasks=tasks, episodes_per_task=episodes)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"modes": ("stochastic",)}, "modes is .*'deterministic', 'sampled'"),
        ({"modes": "sampled"}, "modes is 'sampled'"),
        ({"modes": ()}, "modes is"),
        ({"actors": "first"}, r"actors is \['first'\].*'all', 'last'"),
    ],
)
def test_wrong_choices(keywords, message):
    with pytest.raises(UserError, match=message):
        evaluate(Walker(), gym.make("Line-v0"), **keywords)


def test_wrong_environments():
    with pytest.raises(UserError, match=r"gym.make\('Line-v0'\)"):
        evaluate(Walker(), "Line-v0")
    with pytest.raises(UserError, match="SyncVectorEnv"):
        evaluate(Walker(), gym.make_vec("Line-v0", 2))
    agent = Walker()
    agent.observation_space = spaces.Box(-1, 1, (7,))
    with pytest.raises(UserError, match="expects observations"):
        evaluate(agent, gym.make("Line-v0"))


def test_endless_episode_is_reported(monkeypatch):
    monkeypatch.setattr("gcrl_gym.rollout.MAX_EPISODE_STEPS", 50)

    class Still(Walker):
        num_actors = 1

        def predict(self, obs, state=None, episode_start=None, deterministic=False, actor=-1):
            return np.zeros((len(obs["observation"]), 1)), None

    with pytest.raises(UserError, match="TimeLimit"):
        evaluate(Still(), Line(), episodes_per_task=1)


@pytest.mark.parametrize(
    ("env_id", "keywords"),
    [
        ("gcrl/Nav2D-v0", {"noise": 0.1}),
        ("gcrl/Nav2D-v0", {"maze": "procedural", "image_observation": True}),
        ("gcrl/Nav2DDiscrete-v0", {"maze": "open"}),
    ],
)
@pytest.mark.parametrize("size", [3, 100])
def test_native_vector_environments_give_the_same_episodes(env_id, keywords, size):
    env = gym.make(env_id, **keywords)

    class Wanderer:
        """Acts by what it sees, so that a wrong observation shows."""

        def predict(self, obs, state=None, episode_start=None, deterministic=False):
            gap = obs["desired_goal"] - obs["achieved_goal"]
            if isinstance(env.action_space, gym.spaces.Discrete):
                across = np.abs(gap[:, 0]) > np.abs(gap[:, 1])
                return np.where(across, 2 + (gap[:, 0] > 0), gap[:, 1] < 0), None
            seen = obs["observation"].reshape(len(gap), -1).mean(axis=1, keepdims=True)
            return np.clip(gap + np.sin(seen), -1, 1), None

    native, copies = make_pool(env, size), EnvPool(env, 4)
    assert isinstance(native, NativePool)
    jobs = make_jobs([1, 2, "default"], 4, seed=5)
    for _ in range(2):  # a pool is used again and again
        found, expected = (
            run_episodes(Wanderer(), pool, jobs, actor=0, deterministic=True)
            for pool in (native, copies)
        )
        assert found == expected
    assert len({episode.length for episode in found}) > 2
    native.close()


def test_environments_without_a_native_form_are_copied():
    assert isinstance(make_pool(gym.make("Line-v0")), EnvPool)
    wrapped = gym.wrappers.ClipAction(gym.make("gcrl/Nav2D-v0"))
    assert isinstance(make_pool(wrapped), EnvPool)
    limited = gym.make("gcrl/Nav2D-v0", max_episode_steps=7)
    pool = make_pool(limited)
    assert isinstance(pool, NativePool)

    class Still:
        def predict(self, obs, *_):
            return np.zeros((len(obs["achieved_goal"]), 2)), None

    episodes = run_episodes(Still(), pool, make_jobs([1], 2, 0), actor=0, deterministic=True)
    assert [episode.length for episode in episodes] == [7, 7]
