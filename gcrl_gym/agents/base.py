"""OfflineAgent: everything agents share besides mathematics.

An agent subclasses it and writes four things: its hyperparameters (keyword arguments stored under
their own names), ``build`` (networks, targets, optimisers), ``update`` (one gradient step on a
batch) and ``act``. The rest is here, and the two training loops in ``loop`` and ``online``. One
timestep of ``learn`` is one gradient update, one of ``finetune`` is one environment step.
"""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from torch import Tensor, nn

from gcrl_gym.agents import archive, inputs, loop, online
from gcrl_gym.agents.experience import Experience, Memory
from gcrl_gym.agents.metrics import MetricMeans, Metrics
from gcrl_gym.agents.numerics import Numerics
from gcrl_gym.agents.policy import GoalPolicy
from gcrl_gym.agents.presets import load_preset
from gcrl_gym.agents.randomness import Generators
from gcrl_gym.agents.schedules import resolve_learning_rate
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.report import origin
from gcrl_gym.datasets.rewards import RewardTransform, transform_rewards
from gcrl_gym.datasets.samplers import Batch, BoundSampler, TransitionSampler
from gcrl_gym.errors import UserError

M = TypeVar("M", bound=nn.Module)


class OfflineAgent(BaseAlgorithm):
    """Base of all agents: Stable-Baselines3's BaseAlgorithm, trained from a dataset.

    Args:
        env: environment or id; carries the spaces and the evaluation, and is never stepped by
            ``learn``. ``None`` takes the spaces from the dataset.
        dataset: MinariDataset, OfflineDataset, dataset id or path.
        sampler: replaces the agent's own sampler (``gcrl_gym.datasets.samplers``).
        learning_rate: of every optimiser; a float, "lin_3e-4" to fall linearly to 0, "cos_3e-4"
            along a cosine, or a schedule of the remaining progress.
        batch_size: transitions per update.
        normalize: standardise observations and goals by the dataset's mean and deviation.
        reward_transform: convention for recorded rewards, such as "minus_one" for antmaze; rewards
            of relabelled goals are not changed.
        matmul: "auto": torch's faster float32 products where they are exact; "highest": unchanged.
        threads: torch threads while training; by default 1 for networks up to 256 wide.
        compile: True compiles the update; "auto" and False run it eagerly.
        seed: of all random numbers of the agent; the process-wide generators are never used.
        device: torch device, "auto" takes CUDA when available.
        verbose: 0 silent, 1 prints the log tables.
        tensorboard_log: folder for TensorBoard logs.

    Raises:
        UserError: unknown keyword, unsupported space, or a dataset that does not fit the env.
    """

    name: ClassVar[str]
    policy: GoalPolicy
    _means: MetricMeans  # since the last line of the log
    _updates_at_start: int
    sampler: Any = TransitionSampler()
    action_spaces: ClassVar[tuple[type, ...]] = (spaces.Box,)
    needs_actions: ClassVar[bool] = True
    needs_rewards: ClassVar[bool] = False
    needs_next_actions: ClassVar[bool] = False
    needs_goals: ClassVar[bool] = False
    needs_state_goals: ClassVar[bool] = False  # goals that are observations
    finetunes: ClassVar[bool] = False  # whether it learns online too
    exploration_noise: ClassVar[float] = 0.1  # of deterministic policies online; TD3's
    hidden_sizes: tuple[int, ...] = (256, 256)
    discount: float = 0.99
    num_actors: int = 1

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        sampler: Any = None,
        learning_rate: float | str | Schedule = 3e-4,
        batch_size: int = 256,
        normalize: bool = False,
        reward_transform: RewardTransform = "none",
        matmul: Literal["auto", "highest"] = "auto",
        threads: int | None = None,
        compile: bool | Literal["auto"] = "auto",
        seed: int | None = None,
        device: torch.device | str = "auto",
        verbose: int = 0,
        tensorboard_log: str | None = None,
        _spaces: tuple[spaces.Space[Any], spaces.Space[Any]] | None = None,
        **unknown: Any,
    ) -> None:
        self.batch_size = inputs.whole_number(batch_size, "batch_size")
        self.normalize, self.matmul = normalize, matmul
        self.threads, self.compile, self.reward_transform = threads, compile, reward_transform
        inputs.check_unknown(unknown, self.signature(), type(self).__name__)
        inputs.check_options(self, type(self), OfflineAgent)
        if sampler is not None:
            self.sampler = sampler
        self.optimizers: dict[str, torch.optim.Adam] = {}
        self.rates: dict[str, Any] = {}  # of the optimisers that have their own
        self.numerics: Numerics | None = None  # of the latest learn()
        self.stored_numerics: Numerics | None = None  # of the archive this agent came from
        self.trained_on: dict[str, Any] = {}  # where the data came from, for results
        self.online: Experience | None = None  # what finetune() has gathered
        self.dataset: OfflineDataset | None = inputs.resolve_dataset(dataset)
        if env is None:  # SB3's constructor takes the spaces from an env only
            _spaces = _spaces or inputs.dataset_spaces(self.dataset, type(self).__name__)
            self.observation_space, self.action_space = _spaces
            self.n_envs = 1
        super().__init__(
            policy=GoalPolicy,
            env=inputs.resolve_env(env, _spaces),
            learning_rate=resolve_learning_rate(learning_rate),
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
        )
        self._setup_model()
        if self.dataset is not None:
            self.set_dataset(self.dataset)

    _wrap_env = staticmethod(inputs.wrap_env)

    @abstractmethod
    def build(self) -> None:
        """Make networks, targets and optimisers with the ``add_*`` methods."""

    @abstractmethod
    def update(self, batch: Batch) -> Metrics:
        """Take one gradient step on a normalised batch and return detached scalar metrics."""

    @abstractmethod
    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return actions in [-1, 1], or action indices, for normalised inputs [B, D + G]."""

    def is_deterministic(self, actor: int) -> bool:
        """Return whether an actor has one action per state, which sampling returns as well."""
        return False

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the standard normal noise that an update needs, by name.

        Each name has its own generator: what a longer chain draws never shifts what others see.
        """
        return {}

    # What an agent uses --------------------------------------------------------------------

    @property
    def input_dim(self) -> int:
        """Width of the observation and goal, concatenated."""
        return self.policy.observation_dim + self.policy.goal_dim

    @property
    def action_dim(self) -> int:
        """Width of a continuous action, or the number of discrete actions."""
        if isinstance(self.action_space, spaces.Discrete):
            return int(self.action_space.n)
        return int(np.prod(self.action_space.shape or (1,)))

    def add_network(self, name: str, make: Callable[[], M]) -> M:
        """Make a network under its own seed and register it as a part of the policy."""
        network = self.generators.make(f"weights/{name}", make)
        self.policy.networks[name] = network.to(self.device)
        return network

    def add_target(self, name: str, network: M) -> M:
        """Register a copy of a network that gradients never reach."""
        target = copy.deepcopy(network).requires_grad_(False)
        self.policy.networks[name] = target
        return target

    def add_optimizer(self, name: str, *networks: nn.Module, rate: Any = None) -> torch.optim.Adam:
        """Make an Adam optimiser; ``rate``, a learning rate or schedule, replaces the agent's."""
        parameters = [p for network in networks for p in network.parameters()]
        if rate is not None:
            self.rates[name] = resolve_learning_rate(rate, f"learning rate of {name}")
        rate = self.rates.get(name, self.learning_rate)
        rate = rate(1.0) if callable(rate) else rate
        self.optimizers[name] = torch.optim.Adam(parameters, lr=rate, fused=True)
        return self.optimizers[name]

    # Data ----------------------------------------------------------------------------------

    def set_dataset(self, dataset: Any, statistics: bool = True) -> None:
        """Use a dataset for training.

        Args:
            dataset: MinariDataset, OfflineDataset, dataset id or path.
            statistics: set the normalisation from it (where ``normalize`` is on).

        Raises:
            UserError: its spaces are not those of the agent, or it has no actions.
        """
        resolved = inputs.resolve_dataset(dataset)
        assert resolved is not None
        inputs.check_dataset(resolved, self)
        rewarded = transform_rewards(resolved, self.reward_transform)
        self.dataset, self.trained_on = resolved, origin(rewarded.metadata)
        self._bound = self.bind_sampler(rewarded)
        inputs.check_rewards(resolved, self, self._bound.reward_rule)
        if self.normalize and statistics:
            self.policy.fit_statistics(resolved)

    def bind_sampler(self, dataset: OfflineDataset, online: bool = False) -> BoundSampler:
        """Return the agent's sampler, tied to offline data or to what ``finetune`` collected."""
        goal_env = None if self.env is None else self.env.envs[0]  # type: ignore[attr-defined]
        law = {"discount": self.discount, "device": self.device, "goal_env": goal_env}
        return self.sampler.bind(dataset, **law)  # type: ignore[no-any-return]

    def draw_batch(self) -> Batch:
        """Draw, normalise and return the next training batch, with its noise."""
        return self.prepare_batch(self._bound.sample(self.batch_size, self.generators.batches))

    def prepare_batch(self, batch: Batch, names: str = "") -> Batch:
        """Normalise a batch in place and add its noise, from generators so prefixed."""
        self.policy.normalize_batch(batch, self.normalize)
        for name, shape in self.noise_shapes(self.batch_size).items():
            batch.noise[name] = self.generators.randn(f"{names}noise/{name}", *shape)
        return batch

    # Training ------------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: float,
        callback: MaybeCallback = None,
        log_interval: int = 1000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train on the dataset.

        Args:
            total_timesteps: number of gradient updates; 1e6 is accepted.
            callback: Stable-Baselines3 callback(s), called after each update.
            log_interval: updates between two lines of the log; metrics are means over them.
            tb_log_name: name of the TensorBoard run, by default the agent's name.
            reset_num_timesteps: False continues the count of an earlier call.
            progress_bar: show a progress bar.

        Raises:
            UserError: no dataset, a number of updates that is not whole, or diverged training.
        """
        if self.dataset is None:
            raise UserError(f"{type(self).__name__} has no dataset; pass dataset=... to train.")
        total = inputs.whole_number(total_timesteps, "total_timesteps")
        options = (callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        loop.learn(self, total, *options)
        return self

    def dump_logs(self) -> None:
        """Write the mean of each metric since the last call to the logger.

        Raises:
            UserError: a metric is not a finite number.
        """
        loop.dump_logs(self)

    # Online --------------------------------------------------------------------------------

    finetune = online.finetune

    def explore(
        self, observation: Any, memory: Memory, moment: online.Moment
    ) -> tuple[Any, Memory]:
        """Return an action of online training and what to remember for the next one.

        Args:
            observation: of the environment.
            memory: what the last call returned, None at the start of an episode.
            moment: when this is, who acts, and a generator to draw from.
        """
        return online.explore(self, observation, memory, moment)

    def after_env_step(self, transition: online.Transition) -> dict[str, float]:
        """Do what is due after an environment step; return numbers to log under ``rollout/``."""
        return {}

    def online_update(self, batch: Batch) -> Metrics:
        """Take one gradient step of online training."""
        return self.update(batch)

    # Acting --------------------------------------------------------------------------------

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        actor: int = -1,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return the action for one observation or a batch; see ``GoalPolicy.predict``."""
        if not -self.num_actors <= actor < self.num_actors:
            raise UserError(f"actor is {actor}; this agent has actors 0 to {self.num_actors - 1}.")
        if self.policy.training:
            self.policy.eval()
        return self.policy.predict(observation, state, episode_start, deterministic, actor)

    def sampling_seed(self, seed: int) -> AbstractContextManager[None]:
        """Seed the noise of sampled actions for the block and put the generator back after."""
        return self.generators.seeded("act", seed)

    # Saving --------------------------------------------------------------------------------

    def save(self, path: Any, buffer: bool | None = None) -> None:  # type: ignore[override]
        """Write everything that training has changed to an archive (JSON and safetensors).

        Args:
            path: file name (``.zip`` is added without a suffix) or writable binary file.
            buffer: with the replay buffer of ``finetune``; None as was said there.
        """
        archive.save(self, path, buffer)

    @classmethod
    def load(  # type: ignore[override]
        cls, path: Any, env: Any = None, dataset: Any = None, **overrides: Any
    ) -> Self:
        """Read an agent written by ``save``; no code in the file is run.

        Args:
            path: file name or readable binary file.
            env: needed for evaluation callbacks and ``finetune``.
            dataset: needed to train on.
            **overrides: hyperparameters to replace, such as ``device``.

        Raises:
            UserError: archive of another agent, damaged, or for other spaces; unknown override.
        """
        return archive.load(cls, path, env, dataset, overrides)

    @classmethod
    def from_preset(
        cls, env: Any, dataset: Any = None, preset: str = "auto", **overrides: Any
    ) -> Self:
        """Make an agent with a preset ("auto" goes by the dataset); keywords override it."""
        return cls(env, dataset, **(load_preset(cls.name, preset, dataset) | overrides))

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Return the state dicts of the policy and of every optimiser, by name."""
        return archive.parameters(self)

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: Any = "auto"
    ) -> None:
        """Put weights back: from ``get_parameters`` or from an archive of the same agent."""
        archive.set_parameters(self, load_path_or_dict, exact_match, device)

    @classmethod
    def signature(cls) -> dict[str, inspect.Parameter]:
        """Return the agent's hyperparameters: its own keyword arguments, then the common ones."""
        return inputs.keyword_arguments(cls, OfflineAgent)

    # Set-up --------------------------------------------------------------------------------

    def _setup_model(self) -> None:
        inputs.check_spaces(self)
        self._setup_lr_schedule()
        self.generators = Generators(self.seed, self.device)
        self.policy = GoalPolicy(self.observation_space, self.action_space).to(self.device)
        self.policy.act = self.act
        self.build()
