"""Online fine-tuning: the one mechanism of every agent that says ``finetunes = True``.

    act        a sample of the policy; a deterministic one with Gaussian noise
    record     whole episodes (`ReplayBuffer`), which the agent's own sampler is bound to as it is
               to offline data: the same hindsight goals, next actions, rewards and statistics
    update     after the warm-up, ``updates_per_step`` times per environment step, on batches of
               which the share ``mix`` comes from the offline data

Symmetric sampling is Ball et al. 2023 (RLPD). As in Stable-Baselines3's HerReplayBuffer only
episodes that have ended are sampled. Learning rates are constant: a schedule of the agent stands at
its beginning again, because one that has fallen to 0 would freeze what is to be learned.
``num_timesteps`` goes on from the updates of ``learn`` by one per environment step.

Everything random has generators of its own ("online/.."), so ``learn`` is what it would be without.
An agent may override how it explores (``explore``), what it does after a step (``after_env_step``),
its sampler (``bind_sampler``) and its gradient step (``online_update``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule

from gcrl_gym.agents import inputs, loop
from gcrl_gym.agents.experience import WINDOW, Experience, Memory
from gcrl_gym.agents.online_env import TrainingEnv, TrainOptions, recordable
from gcrl_gym.agents.online_setup import Settings, make_buffer, prepare, reward_spread
from gcrl_gym.agents.schedules import online_rates
from gcrl_gym.datasets.rewards import convert
from gcrl_gym.datasets.samplers import BoundSampler
from gcrl_gym.rollout import success_of
from gcrl_gym.wrappers.training_tasks import training_options

if TYPE_CHECKING:
    from gcrl_gym.agents.base import OfflineAgent

AgentType = TypeVar("AgentType", bound="OfflineAgent")
BatchType = TypeVar("BatchType")


@dataclass(frozen=True)
class Moment:
    """What an exploring agent may know.

    Attributes:
        actor: of a chain; -1 is the last.
        noise: standard deviation of the noise on actions scaled to [-1, 1].
        env_steps: environment steps so far, over all calls of ``finetune``.
        remaining: share of the environment steps of this call that is left, from 1 to 0.
        start: whether an episode begins.
        untrained: the agent has taken no gradient update yet.
        rng: to draw from.
    """

    actor: int
    noise: float
    env_steps: int
    remaining: float
    start: bool
    untrained: bool
    rng: np.random.Generator


@dataclass(frozen=True)
class Transition:
    """One environment step; the reward is the environment's own."""

    observation: Any
    action: Any
    reward: float
    next_observation: Any
    terminated: bool
    truncated: bool
    info: dict[str, Any]


def finetune(
    agent: AgentType,
    total_timesteps: float,
    env: Any = None,
    dataset: Any = None,
    mix: Literal["symmetric", "online"] | float = "symmetric",
    callback: MaybeCallback = None,
    progress_bar: bool = False,
    *,
    learning_starts: int = 1000,
    updates_per_step: int = 1,
    buffer_size: int = 1_000_000,
    exploration_noise: float | None = None,
    actor: int = -1,
    learning_rate: float | str | Schedule | None = None,
    train_options: TrainOptions | None = None,
    seed: int | None = None,
    save_buffer: bool = True,
    reset_num_timesteps: bool = False,
    log_interval: int = 1000,
    tb_log_name: str | None = None,
) -> AgentType:
    """Go on training in an environment; a later call, also of a loaded agent, goes on from there.

    Normalisation stays as it was fitted offline; an agent that never saw data fits it once, to what
    the warm-up has collected. Rewards follow ``reward_transform``. Evaluation tasks are not used.

    Args:
        agent: which agent, ``self``.
        total_timesteps: number of environment steps; 1e5 is accepted.
        env: where to train, by default the agent's env; a copy is stepped where it can be made.
        dataset: offline data, by default the agent's.
        mix: "symmetric": half of each batch is offline data; or its share; "online": none.
        callback: Stable-Baselines3 callback(s), called after each environment step.
        progress_bar: show a progress bar.
        learning_starts: environment steps before the first update, which also waits for the first
            episode to end. An agent without any update acts at random until then.
        updates_per_step: gradient updates per environment step.
        buffer_size: most transitions kept of those collected.
        exploration_noise: standard deviation of the noise on actions scaled to [-1, 1]; by default
            the agent's where its policy is deterministic, else none.
        actor: which actor of a chain acts; -1 is the last. All of them learn.
        learning_rate: of every optimiser, a number or a schedule over this call; by default each
            has what it began offline with.
        train_options: reset options of a training episode, as a function of (env, generator); by
            default `gcrl_gym.wrappers.training_tasks.training_options`.
        seed: of all that is random online; by default it follows from the agent's.
        save_buffer: the agent's archives hold what was collected, so that resuming is exact.
        reset_num_timesteps: count timesteps from 0.
        log_interval: environment steps between two lines of the log.
        tb_log_name: name of the TensorBoard run, by default the agent's name.

    Raises:
        UserError: an agent that does not learn online, no environment or one with other spaces, no
            data to mix with, a number out of range, observations that are no finite numbers, or
            diverged training.
    """
    total = inputs.whole_number(total_timesteps, "total_timesteps")
    settings = Settings.of(
        agent, mix, learning_starts=learning_starts, updates_per_step=updates_per_step,
        buffer_size=buffer_size, exploration_noise=exploration_noise, actor=actor,
        learning_rate=learning_rate, seed=seed, log_interval=log_interval,
    )  # fmt: skip
    single = prepare(agent, settings, env, dataset)
    agent.online = experience = agent.online or Experience()
    experience.saved = save_buffer
    if experience.buffer is None:
        experience.buffer = make_buffer(agent, single, settings.buffer_size)
        if experience.env_steps:
            text = "No replay buffer was saved with the agent: it begins with an empty one."
            warnings.warn(text, stacklevel=2)
        experience.collected, experience.memory = 0, None
    experience.buffer.capacity = settings.buffer_size
    training_env = TrainingEnv(single, train_options or training_options)
    target, callback = loop.begin(agent, total, callback, reset_num_timesteps, tb_log_name)
    with contextlib.closing(training_env), contextlib.ExitStack() as after:
        online = _Online(agent, training_env, settings, target)
        callback.on_training_start(locals(), globals())
        after.callback(online_rates, agent.optimizers, agent.rates, agent.learning_rate)
        assert agent.numerics is not None, "begin() has chosen them"
        with agent.numerics.applied(), loop.bar_of(agent, target, "step", progress_bar) as bar:
            going = True
            while going and agent.num_timesteps < target:
                going = online.advance(callback)
                bar.update()
        callback.on_training_end()
    return agent


class _Online:
    """One call of ``finetune``."""

    def __init__(
        self, agent: OfflineAgent, env: TrainingEnv, settings: Settings, target: int
    ) -> None:
        assert agent.online is not None
        assert agent.online.buffer is not None
        self.agent, self.env, self.settings, self.target = agent, env, settings, target
        self.experience, self.buffer = agent.online, agent.online.buffer
        self.names = "online/" if settings.seed is None else f"online/{settings.seed}/"
        self.recordable = recordable(agent.action_space)
        self.spread = reward_spread(agent)
        self.unfitted = agent.normalize and not agent.policy.has_statistics
        self.step = loop.compiled(agent, agent.online_update)
        self.bound: BoundSampler | None = None
        self.observation: Any = None
        self.extra: dict[str, list[float]] = {}
        if agent.num_timesteps == 0:
            self.experience.began = self.experience.env_steps
        if agent.ep_info_buffer is None:
            agent.ep_info_buffer = deque(maxlen=WINDOW)
            agent.ep_success_buffer = deque(maxlen=WINDOW)
        if self.buffer.published:
            self._bind(self.buffer.dataset())
        if self.buffer.running >= 0:
            self._replay()
        online_rates(agent.optimizers, agent.rates, agent.learning_rate, settings.rate)

    # Acting --------------------------------------------------------------------------------

    def advance(self, callback: BaseCallback) -> bool:
        """Take one environment step, learn, and return whether to go on."""
        agent, experience = self.agent, self.experience
        if self.buffer.running < 0:
            self._begin_episode()
            callback.on_rollout_start()
        transition = self._act()
        experience.env_steps += 1
        experience.collected += 1
        agent.num_timesteps += 1
        for name, value in agent.after_env_step(transition).items():
            self.extra.setdefault(name, []).append(value)
        done = transition.terminated or transition.truncated
        if done:
            self._end_episode(transition.info)
        if experience.collected >= self.settings.learning_starts and self._can_draw():
            for _ in range(self.settings.updates_per_step):
                self._update()
        if agent.num_timesteps % self.settings.log_interval == 0:
            self._log()
        rewards, infos = np.array([transition.reward]), [transition.info]
        seen = {"dones": np.array([done]), "rewards": rewards, "infos": infos}
        callback.update_locals(seen | {"transition": transition})
        if done:
            callback.on_rollout_end()
        return callback.on_step()

    def _begin_episode(self) -> None:
        experience = self.experience
        seed = self.agent.generators.sequence(f"{self.names}episodes", experience.episodes)
        self.observation = self.env.start(seed)
        self.buffer.begin(self.observation)
        experience.episodes += 1
        experience.memory, experience.episode_return = None, 0.0

    def _act(self) -> Transition:
        """Choose an action, take it and record what it gave."""
        agent, experience = self.agent, self.experience
        moment = Moment(
            actor=self.settings.actor,
            noise=self.settings.noise,
            env_steps=experience.env_steps,
            remaining=self._remaining(),
            start=self.buffer.running == 0,
            untrained=agent._n_updates == 0,
            rng=agent.generators.numpy(f"{self.names}exploration"),
        )
        with agent.generators.standing_in("act", f"{self.names}act"):
            action, memory = agent.explore(self.observation, experience.memory, moment)
        action = self.recordable(action)
        observation, reward, terminated, truncated, info = self.env.take(action)
        learned = convert(np.float32(reward), agent.reward_transform, self.spread)
        self.buffer.add(action, learned, terminated, observation)
        experience.memory = memory
        experience.episode_return += reward
        before, self.observation = self.observation, observation
        return Transition(before, action, reward, observation, terminated, truncated, info)

    def _end_episode(self, info: dict[str, Any]) -> None:
        assert self.agent.ep_info_buffer is not None
        assert self.agent.ep_success_buffer is not None
        length = self.buffer.finish()
        self.agent.ep_info_buffer.append({"r": self.experience.episode_return, "l": length})
        success = success_of(info)
        if success is not None:
            self.agent.ep_success_buffer.append(success)
        if self.buffer.stale:
            self._bind(self.buffer.publish())

    def _replay(self) -> None:
        """Bring the environment to where the running episode was left."""
        buffer = self.buffer
        seed = self.agent.generators.sequence(f"{self.names}episodes", self.experience.episodes - 1)
        self.observation = self.env.start(seed)
        same = buffer.agrees(0, self.observation)
        for step, action in enumerate(buffer.actions()):
            if not same:
                break
            self.observation, _, *ends, _ = self.env.take(self.recordable(action))
            same = buffer.agrees(step + 1, self.observation) and not any(ends)
        if not same:
            warnings.warn(
                "The running episode could not be repeated exactly (another or a random "
                "environment): it is cut off there, and a new one begins.", stacklevel=4
            )  # fmt: skip
            buffer.finish()

    # Learning ------------------------------------------------------------------------------

    def _bind(self, dataset: Any) -> None:
        # A sampler of next actions needs an episode of two steps.
        if getattr(self.agent.sampler, "next_actions", False) and max(self.buffer.lengths) < 2:
            return
        self.bound = self.agent.bind_sampler(dataset, online=True)

    def _can_draw(self) -> bool:
        return self.bound is not None or self.settings.share == 1.0

    def _update(self) -> None:
        agent, experience = self.agent, self.experience
        if self.unfitted:
            agent.policy.fit_statistics(self.buffer.dataset())
            self.unfitted = False
        offline = self.settings.offline_rows(experience.updates, agent.batch_size)
        batch = agent.prepare_batch(self._draw(offline), self.names)
        if not agent.policy.training:  # acting switches it off
            agent.policy.train()
        if self.settings.rate is not None:
            rates = agent.optimizers, agent.rates, agent.learning_rate, self.settings.rate
            online_rates(*rates, self._remaining())
        metrics = self.step(batch)
        share = torch.tensor(offline / agent.batch_size)
        agent._means.add(metrics | {"offline_share": share})
        agent._n_updates += 1
        experience.updates += 1

    def _draw(self, offline: int) -> Any:
        """Return a batch with so many transitions of the offline data, the others collected."""
        agent, parts = self.agent, []
        if offline:
            rng = agent.generators.numpy(f"{self.names}offline")
            parts.append(agent._bound.sample(offline, rng))
        if offline < agent.batch_size:
            assert self.bound is not None
            rng = agent.generators.numpy(f"{self.names}batches")
            parts.append(self.bound.sample(agent.batch_size - offline, rng))
        return parts[0] if len(parts) == 1 else concatenate(*parts)

    def _remaining(self) -> float:
        """Share of the steps of this call that is left; the same in a resumed one."""
        done = self.experience.env_steps - self.experience.began
        whole = done + self.target - self.agent.num_timesteps
        return 1.0 - done / whole

    def _log(self) -> None:
        agent, experience, log = self.agent, self.experience, self.agent.logger
        if agent.ep_info_buffer:
            log.record("rollout/ep_rew_mean", np.mean([e["r"] for e in agent.ep_info_buffer]))
            log.record("rollout/ep_len_mean", np.mean([e["l"] for e in agent.ep_info_buffer]))
        if agent.ep_success_buffer:
            log.record("rollout/success_rate", np.mean(agent.ep_success_buffer))
        for name, values in self.extra.items():
            log.record(f"rollout/{name}", np.mean(values))
        self.extra.clear()
        log.record("rollout/buffer_size", self.buffer.num_steps)
        log.record("time/env_steps", experience.env_steps)
        log.record("time/episodes", experience.episodes - (self.buffer.running >= 0))
        agent.dump_logs()


def explore(
    agent: OfflineAgent, observation: Any, memory: Memory, moment: Moment
) -> tuple[Any, Memory]:
    """Return a sample of the policy, with noise where asked for; see ``OfflineAgent.explore``."""
    space, rng = agent.action_space, moment.rng
    if isinstance(space, spaces.Discrete):
        if moment.untrained:
            return space.start + rng.integers(space.n), memory
    elif isinstance(space, spaces.Box) and moment.untrained:
        return rng.uniform(space.low, space.high), memory
    starts = np.array([moment.start])
    action, memory = agent.predict(observation, memory, starts, False, moment.actor)
    if moment.noise > 0.0 and isinstance(space, spaces.Box):
        half = (space.high - space.low) / 2.0
        action = action + moment.noise * half * rng.standard_normal(space.shape)
    return action, memory


def concatenate(first: BatchType, second: BatchType) -> BatchType:
    """Return two batches of the same kind as one; parts that neither has stay None."""
    parts = {}
    for item in dataclasses.fields(first):  # type: ignore[arg-type]
        one, two = getattr(first, item.name), getattr(second, item.name)
        if isinstance(one, torch.Tensor):
            parts[item.name] = torch.cat([one, two])
    return dataclasses.replace(first, **parts)  # type: ignore[type-var]
