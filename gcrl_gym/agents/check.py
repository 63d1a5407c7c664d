"""The contract that every agent keeps, as a public tool: ``check_agent`` for agents of your own.

Each check takes ``make(**keywords) -> agent``, which builds the agent with small networks, an
environment and a dataset; it raises AssertionError saying what does not hold.
"""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from gcrl_gym.agents import get_agent
from gcrl_gym.agents.base import OfflineAgent
from gcrl_gym.errors import UserError
from gcrl_gym.pools import single_env

Make = Callable[..., OfflineAgent]


def check_agent(make: Make) -> None:
    """Run every check.

    Args:
        make: builds the agent, with keywords (such as ``seed``) that override its own.

    Raises:
        AssertionError: the first property that does not hold.
    """
    for check in CHECKS:
        check(make)


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _observations(agent: OfflineAgent, count: int) -> Any:
    """Return a batch of observations from the agent's dataset."""
    dataset = agent.dataset
    assert dataset is not None
    rows = np.linspace(0, dataset.num_rows - 1, count).astype(int)
    if not isinstance(agent.observation_space, spaces.Dict):
        return np.ascontiguousarray(dataset.observations[rows])
    assert dataset.achieved_goals is not None
    goals = np.ascontiguousarray(dataset.achieved_goals[rows])
    return {
        "observation": np.ascontiguousarray(dataset.observations[rows]),
        "achieved_goal": goals,
        "desired_goal": goals[::-1].copy(),
    }


def _one(observations: Any, index: int) -> Any:
    if isinstance(observations, dict):
        return {key: value[index] for key, value in observations.items()}
    return observations[index]


def same_weights(a: OfflineAgent, b: OfflineAgent, prefix: str = "") -> bool:
    """Return whether all networks (whose names start with ``prefix``) are equal to the bit."""
    first, second = a.policy.state_dict(), b.policy.state_dict()
    names = [name for name in first if name.startswith(prefix)]
    return bool(names) and all(name in second and first[name].equal(second[name]) for name in names)


def check_predict(make: Make) -> None:
    """Single and batched predictions agree, stay in the action space, and sampling samples."""
    agent = make(seed=0).learn(5)
    batch = _observations(agent, 8)
    for actor in range(agent.num_actors):
        actions, state = agent.predict(batch, deterministic=True, actor=actor)
        _expect(state is None or actor >= 0, "predict must return (actions, state)")
        for index in range(8):
            single, _ = agent.predict(_one(batch, index), deterministic=True, actor=actor)
            _expect(
                agent.action_space.contains(single), f"{single} is outside {agent.action_space}"
            )
            _expect(np.allclose(single, actions[index], atol=1e-5), "batch and single differ")
        again, _ = agent.predict(batch, deterministic=True, actor=actor)
        _expect(np.array_equal(actions, again), "deterministic actions differ between calls")
        samples = [agent.predict(batch, deterministic=False, actor=actor)[0] for _ in range(20)]
        if agent.is_deterministic(actor):
            same = all(np.array_equal(actions, sample) for sample in samples)
            _expect(same, "a deterministic policy's samples differ from its action")
        else:
            _expect(any(not np.array_equal(samples[0], s) for s in samples), "samples do not vary")
        for action in np.concatenate(samples):
            _expect(agent.action_space.contains(action), f"sample {action} is outside the space")


def _load_and_predict(name: str, archive: str, inputs: str, mean: str, sample: str) -> None:
    """Load an agent and write its actions, deterministic and sampled, for stored observations."""
    agent = get_agent(name).load(archive)
    with np.load(inputs) as data:
        observations = dict(data) if "desired_goal" in data else data["observation"]
    np.save(mean, agent.predict(observations, deterministic=True)[0])
    np.save(sample, agent.predict(observations, deterministic=False)[0])


_NEW_PROCESS = (
    "import sys; from gcrl_gym.agents import check; check._load_and_predict(*sys.argv[1:])"
)


def check_save_load(make: Make, new_process: bool = True) -> None:
    """An archive read in a new process acts as the agent does, sampled actions included.

    Args:
        make: builds the agent.
        new_process: False reads it in this one, which is faster and sees less.
    """
    agent = make(seed=1).learn(7)
    batch = _observations(agent, 16)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / n) for n in ("agent.zip", "in.npz", "mean.npy", "sample.npy")]
        agent.save(paths[0])
        np.savez(paths[1], **(batch if isinstance(batch, dict) else {"observation": batch}))
        name = f"{type(agent).__module__}:{type(agent).__name__}"
        if new_process:
            subprocess.run([sys.executable, "-c", _NEW_PROCESS, name, *paths], check=True)
        else:
            _load_and_predict(name, *paths)
        expected = agent.predict(batch, deterministic=True)[0]
        _expect(np.array_equal(np.load(paths[2]), expected), "actions differ after load")
        sampled = agent.predict(batch, deterministic=False)[0]
        _expect(np.array_equal(np.load(paths[3]), sampled), "sampled actions differ after load")


class _StopAt(BaseCallback):
    """Ends training after so many updates."""

    def __init__(self, update: int) -> None:
        super().__init__()
        self.update = update

    def _on_step(self) -> bool:
        return self.num_timesteps < self.update


def check_resume(make: Make) -> None:
    """2N updates equal N, save, load, N - bit for bit."""
    whole = make(seed=2).learn(12)
    half = make(seed=2).learn(12, callback=_StopAt(6))  # interrupted: schedules run to 12
    buffer = io.BytesIO()
    half.save(buffer)
    buffer.seek(0)
    resumed = type(half).load(buffer, env=half.env, dataset=half.dataset)
    resumed.learn(6, reset_num_timesteps=False)
    _expect(resumed.num_timesteps == whole.num_timesteps == 12, "the count of updates is lost")
    _expect(same_weights(whole, resumed), "weights differ after save, load and learn")


def check_process_generators(make: Make) -> None:
    """Python's, NumPy's and torch's global generators are never touched."""

    def states() -> tuple[Any, ...]:
        numpy_state = np.random.get_state(legacy=True)  # noqa: NPY002 - the point of the check
        return random.getstate(), numpy_state[1].tobytes(), numpy_state[2], torch.get_rng_state()  # type: ignore[index]

    before = states()
    agent = make(seed=3).learn(3)
    agent.predict(_observations(agent, 4), deterministic=False)
    buffer = io.BytesIO()
    agent.save(buffer)
    buffer.seek(0)
    type(agent).load(buffer)
    after = states()
    _expect(before[:3] == after[:3], "Python's or NumPy's global generator was used")
    _expect(bool(torch.equal(before[3], after[3])), "torch's global generator was used")


class _Evaluate(BaseCallback):
    def _on_step(self) -> bool:
        assert isinstance(self.model, OfflineAgent)
        with self.model.sampling_seed(0):
            self.model.predict(_observations(self.model, 4), deterministic=False)
        return True


def check_reproducible(make: Make) -> None:
    """One seed gives one result, evaluated on the way or not, beside another agent or not."""
    plain = make(seed=4).learn(6)
    evaluated = make(seed=4)
    neighbour = make(seed=5)
    for done in (0, 2, 4):
        stop = _StopAt(done + 2)
        evaluated.learn(6 - done, callback=[_Evaluate(), stop], reset_num_timesteps=False)
        neighbour.learn(1, reset_num_timesteps=False)
    _expect(same_weights(plain, evaluated), "evaluation or another agent changed the result")
    _expect(not same_weights(plain, neighbour), "two seeds give the same weights")


def check_parameters_move(make: Make) -> None:
    """Every parameter of every trained network changes within 10 updates, and targets follow."""
    agent = make(seed=6)
    before = {name: value.clone() for name, value in agent.policy.networks.state_dict().items()}
    agent.learn(10)
    still = [
        name
        for name, value in agent.policy.networks.state_dict().items()
        if value.is_floating_point() and value.equal(before[name])
    ]
    _expect(not still, f"these did not change in 10 updates: {still}")


class _Recorder(KVWriter):
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.rows.append({k: v for k, v in key_values.items() if k.startswith("train/")})

    def close(self) -> None:
        pass


def check_metrics(make: Make) -> None:
    """Logged metrics are finite numbers under the same names each time."""
    recorder = _Recorder()
    agent = make(seed=7)
    agent.set_logger(Logger(None, [recorder]))
    agent.learn(30, log_interval=10)
    _expect(len(recorder.rows) == 3, f"{len(recorder.rows)} lines logged, expected 3")
    _expect(bool(recorder.rows[0]), "nothing under train/ was logged")
    for row in recorder.rows:
        _expect(row.keys() == recorder.rows[0].keys(), "metric names change between lines")
        bad = [name for name, value in row.items() if not np.isfinite(value)]
        _expect(not bad, f"not finite: {bad}")


def check_finetune(make: Make) -> None:
    """Online training changes weights, logs finite numbers and resumes to the bit, or says no."""
    agent = make(seed=10)
    if not agent.finetunes:
        try:
            agent.finetune(1)
        except UserError as error:
            _expect("does not learn online" in str(error), f"an unclear error: {error}")
            return
        raise AssertionError("finetune must raise UserError where finetunes is False")
    env = TimeLimit(single_env(agent.env), 15)
    before = {name: value.clone() for name, value in agent.policy.networks.state_dict().items()}
    recorder = _Recorder()
    agent.set_logger(Logger(None, [recorder]))
    agent.finetune(60, env, learning_starts=45, log_interval=60)
    _expect(agent.num_timesteps == 60, f"{agent.num_timesteps} timesteps counted, expected 60")
    _expect(agent._n_updates == 16, f"{agent._n_updates} updates in steps 45 to 60, expected 16")
    still = [
        name
        for name, value in agent.policy.networks.state_dict().items()
        if value.is_floating_point() and value.equal(before[name])
    ]
    _expect(not still, f"these did not change online: {still}")
    _expect("train/offline_share" in recorder.rows[-1], "the share of offline data is not logged")
    bad = [name for name, value in recorder.rows[-1].items() if not np.isfinite(value)]
    _expect(not bad, f"not finite: {bad}")
    half = make(seed=10).finetune(52, env, learning_starts=45)
    buffer = io.BytesIO()
    half.save(buffer)
    buffer.seek(0)
    resumed = type(half).load(buffer, env=env, dataset=half.dataset)
    resumed.finetune(8, learning_starts=45)
    _expect(same_weights(agent, resumed), "weights differ after save, load and finetune")


def check_archive(make: Make) -> None:
    """An archive holds JSON and tensors only, and no more than weights and optimiser states."""
    agent = make(seed=8).learn(3)
    buffer = io.BytesIO()
    agent.save(buffer)
    weights = sum(value.numel() * 4 for value in agent.policy.state_dict().values())
    # Adam keeps two numbers per trained parameter; names, JSON and generators fit in 100 kB.
    limit = 3 * weights + 100_000
    _expect(buffer.tell() <= limit, f"the archive has {buffer.tell()} bytes, expected <= {limit}")
    with zipfile.ZipFile(buffer) as archive:
        names = set(archive.namelist())
    _expect(names == {"agent.json", "tensors.safetensors"}, f"unexpected members: {names}")


def check_chain(make: Make) -> None:
    """Critics and earlier actors are the same to the bit whatever the chain's length."""
    agent = make(seed=9)
    weights = getattr(agent, "w2_weights", None)
    if weights is None or isinstance(agent.action_space, spaces.Discrete):
        return
    short = make(seed=9, w2_weights=tuple(weights)).learn(6)
    long = make(seed=9, w2_weights=(*weights, 0.3)).learn(6)
    _expect(long.num_actors == short.num_actors + 1, "a longer list must give a longer chain")
    for name in short.policy.networks:
        _expect(same_weights(short, long, f"networks.{name}."), f"{name} depends on later actors")


CHECKS: tuple[Callable[[Make], None], ...] = (
    check_predict,
    check_save_load,
    check_resume,
    check_process_generators,
    check_reproducible,
    check_parameters_move,
    check_metrics,
    check_finetune,
    check_archive,
    check_chain,
)
