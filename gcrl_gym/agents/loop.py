"""The offline training loop, and what it shares with the online one in ``online.py``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger
from tqdm.auto import tqdm

from gcrl_gym.agents import archive
from gcrl_gym.agents.metrics import MetricMeans, Metrics
from gcrl_gym.agents.numerics import Numerics
from gcrl_gym.agents.schedules import set_rates
from gcrl_gym.datasets.samplers import Batch

if TYPE_CHECKING:
    from gcrl_gym.agents.base import OfflineAgent

Update = Callable[[Batch], Metrics]


def learn(
    agent: OfflineAgent,
    total: int,
    callback: MaybeCallback,
    log_interval: int,
    tb_log_name: str | None,
    reset_num_timesteps: bool,
    progress_bar: bool,
) -> None:
    """Take gradient updates on an agent's dataset; see ``OfflineAgent.learn``."""
    total, callback = begin(agent, total, callback, reset_num_timesteps, tb_log_name)
    callback.on_training_start(locals(), globals())
    step = compiled(agent, agent.update)
    assert agent.numerics is not None, "begin() has chosen them"
    with agent.numerics.applied(), bar_of(agent, total, "update", progress_bar) as bar:
        while agent.num_timesteps < total:
            if not agent.policy.training:  # evaluation in a callback switches it off
                agent.policy.train()
            agent._update_current_progress_remaining(agent.num_timesteps, total)
            remaining = agent._current_progress_remaining
            set_rates(agent.optimizers, agent.rates, agent.learning_rate, remaining)
            agent._means.add(step(agent.draw_batch()))
            agent.num_timesteps += 1
            agent._n_updates += 1
            if agent.num_timesteps % log_interval == 0:
                agent.dump_logs()
            bar.update()
            if not callback.on_step():
                break
    callback.on_training_end()


def begin(
    agent: OfflineAgent,
    total: int,
    callback: MaybeCallback,
    reset_num_timesteps: bool,
    tb_log_name: str | None,
) -> tuple[int, BaseCallback]:
    """Prepare counters, metrics, logger, speed settings and callbacks.

    Stable-Baselines3's own ``_setup_learn`` resets the environment and draws from its generators.

    Returns:
        The count of timesteps to stop at, and the callbacks as one.
    """
    agent.start_time = time.time_ns()
    if reset_num_timesteps:
        agent.num_timesteps = 0
    else:
        total += agent.num_timesteps
    agent._total_timesteps = total
    agent._num_timesteps_at_start = agent.num_timesteps
    agent._updates_at_start = agent._n_updates
    agent._means = MetricMeans()
    if not agent._custom_logger:
        name = tb_log_name or agent.name
        agent._logger = configure_logger(
            agent.verbose, agent.tensorboard_log, name, reset_num_timesteps
        )
    widest = max(agent.hidden_sizes, default=0)
    agent.numerics = Numerics.choose(agent.device, agent.matmul, agent.threads, widest)
    archive.warn_changed_numerics(agent)
    return total, agent._init_callback(callback)


def compiled(agent: OfflineAgent, update: Update) -> Update:
    """Return an update, compiled where the user asked for it and a compiler works."""
    if agent.compile is not True:
        return update
    from gcrl_gym.agents.compilation import compiled

    return compiled(update)


def bar_of(agent: OfflineAgent, total: int, unit: str, shown: bool) -> tqdm:
    """Return a progress bar over timesteps, each of them a ``unit``."""
    return tqdm(
        total=total, initial=agent.num_timesteps, disable=not shown, desc=agent.name, unit=unit
    )


def dump_logs(agent: OfflineAgent) -> None:
    """Write the mean of each metric since the last call to the logger.

    Raises:
        UserError: a metric is not a finite number.
    """
    for name, value in agent._means.pop(f"{agent.name}, update {agent.num_timesteps}").items():
        agent.logger.record(f"train/{name}", value)
    elapsed = max(time.time_ns() - agent.start_time, 1) / 1e9
    done = agent._n_updates - agent._updates_at_start
    agent.logger.record("time/updates_per_second", done / elapsed)
    agent.logger.record("time/gradient_steps", agent._n_updates, exclude="tensorboard")
    agent.logger.dump(step=agent.num_timesteps)
