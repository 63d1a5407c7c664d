"""Generated Nav2D datasets: ``gcrl/nav2d/[<maze>-]<kind>-v0`` and ``gcrl/nav2d-discrete/...``.

Every dataset is a function of its id and a seed, bit for bit. The environment's action noise is 0
in all of them; clumsiness is part of the recorded actions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from gcrl_gym.datasets.minari_io import write_minari
from gcrl_gym.datasets.scripted import Actions, Cells, Positions, Walker, shortest_plans
from gcrl_gym.datasets.sources import Card, Source
from gcrl_gym.envs.mazes import LAYOUTS
from gcrl_gym.envs.nav2d import Nav2D, Nav2DDiscrete
from gcrl_gym.envs.nav2d_dynamics import move
from gcrl_gym.errors import UserError, nearest
from gcrl_gym.progress import with_progress

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

DEFAULT_MAZE = "four_rooms"
_NEARBY = 3  # moves on the cell graph
_PLAN_AGENTS = 200  # searched at once, to bound memory


@dataclass(frozen=True)
class Kind:
    """A way to behave.

    Args:
        target: where agents walk: to the episode's goal, to one place anywhere after another, or to
            one place after another within a few cells of the start.
        episodes: number of episodes.
        length: steps of an episode; None: the environment's limit, or until success.
        random_share: probability of a uniformly random action.
        spread: standard deviation of the noise on continuous actions.
    """

    target: Literal["goal", "anywhere", "nearby"]
    episodes: int
    length: int | None
    random_share: float
    spread: float


KINDS = {
    "expert": Kind("goal", episodes=5000, length=None, random_share=0.0, spread=0.0),
    "noisy": Kind("goal", episodes=3000, length=None, random_share=0.3, spread=0.5),
    "play": Kind("anywhere", episodes=500, length=200, random_share=0.1, spread=0.3),
    "random": Kind("goal", episodes=1000, length=None, random_share=1.0, spread=0.0),
    "stitch": Kind("nearby", episodes=2000, length=50, random_share=0.1, spread=0.3),
}


def dataset_ids() -> list[str]:
    """Ids of every generated Nav2D dataset."""
    mazes = ["" if maze == DEFAULT_MAZE else f"{maze}-" for maze in LAYOUTS]
    return [
        f"gcrl/{env}/{maze}{kind}-v0"
        for env in ("nav2d", "nav2d-discrete")
        for maze in mazes
        for kind in KINDS
    ]


def make_dataset(dataset_id: str, *, seed: int = 0, overwrite: bool = False) -> MinariDataset:
    """Generate a dataset by its id and write it as Minari dataset.

    Raises:
        UserError: unknown id, or one that exists.
    """
    if dataset_id not in dataset_ids():
        raise UserError(f"Unknown dataset {dataset_id!r}.{nearest(dataset_id, dataset_ids())}")
    _, family, name = dataset_id.split("/")
    maze, _, kind = name.removesuffix("-v0").rpartition("-")
    return write_nav2d(
        dataset_id,
        kind,
        maze or DEFAULT_MAZE,
        discrete=family == "nav2d-discrete",
        seed=seed,
        overwrite=overwrite,
    )


def write_nav2d(
    dataset_id: str,
    kind: str,
    maze: str = DEFAULT_MAZE,
    *,
    discrete: bool = False,
    episodes: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> MinariDataset:
    """Generate Nav2D episodes and write them as a Minari dataset.

    Args:
        dataset_id: id to write.
        kind: one of ``KINDS``.
        maze: layout.
        discrete: Nav2DDiscrete instead of Nav2D.
        episodes: number of episodes; the kind's own when None.
        seed: of everything drawn.
        overwrite: replace an existing dataset.

    Raises:
        UserError: an unknown kind or maze, or an id that exists.
    """
    buffers = nav2d_episodes(kind, maze, discrete=discrete, episodes=episodes, seed=seed)
    env = _make_env(kind, maze, discrete)
    evaluation = gym.spec(env.spec.id)  # type: ignore[union-attr]
    evaluation = replace(evaluation, kwargs={"maze": maze})
    parameters = asdict(KINDS[kind]) | {"episodes": len(buffers)}
    return write_minari(
        dataset_id,
        with_progress(buffers, f"Writing {dataset_id}"),
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        eval_env_spec=evaluation,
        overwrite=overwrite,
        metadata={
            "source": "generated",
            "generator": {"name": "nav2d", "kind": kind, "maze": maze, "seed": seed, **parameters},
            "algorithm_name": f"scripted {kind}",
            # Returns of the sparse reward: a failure and a success.
            "ref_min_score": 0.0,
            "ref_max_score": 1.0,
        },
    )


def nav2d_episodes(
    kind: str,
    maze: str = DEFAULT_MAZE,
    *,
    discrete: bool = False,
    episodes: int | None = None,
    seed: int = 0,
) -> list[EpisodeBuffer]:
    """Generate Nav2D episodes with a scripted policy; arguments as in `write_nav2d`."""
    if kind not in KINDS:
        hint = nearest(kind, KINDS)
        raise UserError(f"Unknown kind of data {kind!r}; choose one of {', '.join(KINDS)}.{hint}")
    env = _make_env(kind, maze, discrete)
    limit = env.spec.max_episode_steps  # type: ignore[union-attr]
    assert limit is not None  # every Nav2D spec has one
    unwrapped = cast("Nav2D | Nav2DDiscrete", env.unwrapped)
    run = _Run(KINDS[kind], unwrapped, limit, np.random.default_rng(seed))
    return list(run.episodes(episodes or KINDS[kind].episodes))


def _make_env(kind: str, maze: str, discrete: bool) -> gym.Env[dict[str, object], object]:
    """Environment in which a kind of data is recorded."""
    name = "gcrl/Nav2DDiscrete-v0" if discrete else "gcrl/Nav2D-v0"
    length = KINDS[kind].length
    if length is None:
        return gym.make(name, maze=maze)
    return gym.make(name, maze=maze, terminate_at_goal=False, max_episode_steps=length)


class _Run:
    """All episodes of a dataset, walked in parallel."""

    def __init__(
        self, kind: Kind, env: Nav2D | Nav2DDiscrete, limit: int, rng: np.random.Generator
    ) -> None:
        self.kind, self.env, self.limit, self.rng = kind, env, limit, rng
        self.maze = env.maze
        discrete = isinstance(env, Nav2DDiscrete)
        self.walker = Walker(env.maze, env.step_size, discrete, kind.random_share, kind.spread)

    def episodes(self, count: int) -> Iterator[EpisodeBuffer]:
        """Walk ``count`` episodes and yield them in order."""
        starts, goals = self._starts_and_goals(count)
        plans = None
        if self.walker.discrete and self.kind.random_share == 0:
            plans = self._plans(starts, goals)
        positions, actions = self._walk(starts, goals, plans)
        states = positions.astype(np.float32)  # (L + 1, N, 2), as the environment shows them
        desired = np.broadcast_to(goals, states.shape)
        rewards = np.asarray(self.env.compute_reward(states[1:], desired[1:]), np.float32)
        ends = np.asarray(self.env.compute_terminated(states[1:], desired[1:]))  # (L, N)
        for agent in range(count):
            hits = np.flatnonzero(ends[:, agent])
            length = int(hits[0]) + 1 if len(hits) else self.limit
            yield _buffer(
                states[: length + 1, agent],
                goals[agent],
                actions[:length, agent],
                rewards[:length, agent],
                terminated=len(hits) > 0,
            )

    def _starts_and_goals(self, count: int) -> tuple[Positions, npt.NDArray[np.float32]]:
        """Draw starts and goals as the environment's reset does: apart, uniform, off the walls.

        Starts are whole float32 numbers, so that the recorded one replays the episode exactly.
        """
        starts = self.maze.sample_free(self.rng, count).astype(np.float32).astype(np.float64)
        goals = self.maze.sample_free(self.rng, count).astype(np.float32)
        while True:
            close = np.flatnonzero(self.env.is_success(starts.astype(np.float32), goals))
            if len(close) == 0:
                return starts, goals
            goals[close] = self.maze.sample_free(self.rng, len(close)).astype(np.float32)

    def _plans(self, starts: Positions, goals: npt.NDArray[np.float32]) -> Cells:
        """Shortest plans as one array ``(limit, N)``, staying put after the goal."""
        actions = np.full((self.limit, len(starts)), 4)
        tolerance, step = self.env.goal_tolerance, self.walker.step_size
        for first in range(0, len(starts), _PLAN_AGENTS):
            some = slice(first, first + _PLAN_AGENTS)
            found = shortest_plans(starts[some], goals[some], tolerance, step, self.maze)
            for agent, plan in enumerate(found, start=first):
                actions[: len(plan), agent] = plan[: self.limit]
        return actions

    def _walk(
        self, starts: Positions, goals: npt.NDArray[np.float32], plans: Cells | None
    ) -> tuple[Positions, Actions]:
        """Return positions ``(L + 1, N, 2)`` and actions ``(L, N, ...)`` until all have arrived."""
        positions, actions = [starts], []
        targets, walking = goals.astype(np.float64), np.arange(len(starts))
        if self.kind.target != "goal":
            targets = self._draw_targets(starts)
        for step in range(self.limit):
            there = self.env.is_success(positions[-1].astype(np.float32), targets)
            if self.kind.target == "goal":
                walking = np.flatnonzero(~there)
                if len(walking) == 0:
                    break
            else:
                targets = np.where(there[:, None], self._draw_targets(starts), targets)
            places = positions[-1][walking]
            if plans is None:
                chosen = self.walker.act(places, targets[walking], self.rng)
            else:
                chosen = plans[step, walking]
            everybody = np.zeros((len(starts), *chosen.shape[1:]), chosen.dtype)
            everybody[walking] = chosen
            actions.append(everybody)
            positions.append(positions[-1].copy())
            positions[-1][walking] = move(places, self.walker.displacements(chosen), self.maze)
        return np.stack(positions), np.stack(actions)

    def _draw_targets(self, starts: Positions) -> Positions:
        """Draw a new target for each agent, uniform over the cells its kind allows."""
        maze = self.maze
        if self.kind.target == "anywhere":
            return maze.sample_free(self.rng, len(starts))
        cells = maze.cell_index[tuple(maze.cell_of(starts).T)]
        allowed = maze.distances[cells] <= _NEARBY  # (N, F)
        chosen = np.argmax(self.rng.random(allowed.shape) * allowed, axis=1)
        return maze.cell_center(maze.free_cells[chosen])


def _buffer(
    states: npt.NDArray[np.float32],
    goal: npt.NDArray[np.float32],
    actions: Actions,
    rewards: npt.NDArray[np.float32],
    *,
    terminated: bool,
) -> EpisodeBuffer:
    """Episode of an agent: T+1 states, T of everything else."""
    from minari.data_collector import EpisodeBuffer

    ends = np.zeros((2, len(actions)), bool)
    ends[0 if terminated else 1, -1] = True
    return EpisodeBuffer(
        observations={
            "observation": states,
            "achieved_goal": states,
            "desired_goal": np.tile(goal, (len(states), 1)),
        },
        actions=np.ascontiguousarray(actions),
        rewards=rewards,
        terminations=ends[0],
        truncations=ends[1],
    )


def _make(dataset_id: str, path: Path | None, overwrite: bool) -> MinariDataset:
    return make_dataset(dataset_id, overwrite=overwrite)


CARDS = (
    Card(
        "gcrl/nav2d/*, gcrl/nav2d-discrete/*",
        "0-1 position x, y in [0, 10]",
        "x, y",
        "x, y within the goal tolerance (0.5; discrete 0.75)",
        "200 (discrete 50)",
        "MIT",
        "generated on first use: expert, noisy, play, random and stitch walkers in five mazes",
    ),
)

SOURCE = Source("generated", ids=dataset_ids, file=lambda dataset_id: None, make=_make, cards=CARDS)
