"""Environments of today with the observations of D4RL's data.

The entry points of the environment specs that are stored with converted D4RL datasets.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from gcrl_gym.errors import UserError, nearest
from gcrl_gym.wrappers.mujoco_joints import import_robotics

Floats = NDArray[np.float64]

_RADIUS = 0.5  # of success, in D4RL's mazes
_BODY_COLUMNS = 27
_FORCE_COLUMNS = 84

# D4RL's layouts: '#' wall, 'G' goal of evaluation. antmaze-umaze has its goal in the last row.
_LAYOUTS = {
    "umaze": ("#####", "#GOO#", "###O#", "#OOO#", "#####"),
    "medium": (
        "########",
        "#OO##OO#",
        "#OO#OOO#",
        "##OOO###",
        "#OO#OOO#",
        "#O#OO#O#",
        "#OOO#OG#",
        "########",
    ),
    "large": (
        "############",
        "#OOOO#OOOOO#",
        "#O##O#O#O#O#",
        "#OOOOOO#OOO#",
        "#O####O###O#",
        "#OO#O#OOOOO#",
        "##O#O#O#O###",
        "#OO#OOO#OGO#",
        "############",
    ),
}
_GOAL_CELLS = {"umaze": (1, 1), "medium": (6, 6), "large": (7, 9)}
_ANT_START, _ANT_UMAZE_GOAL = (1, 1), (3, 1)
_MAZES = {"antmaze": "AntMaze_UMaze-v5", "maze2d": "PointMaze_UMaze-v3"}
_POINT_NOISE = 0.1  # of the start: reach of its position, standard deviation of its velocity

_PEN_HEIGHT, _DROPPED = 26, 0.075  # column of the pen's height; below, D4RL ends the episode


class D4RLMaze(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A maze of Gymnasium-Robotics with the coordinates, goal, reward and flat states of D4RL.

    The reward is judged at the state after the step: 1 within 0.5 of the goal and else 0, or
    ``exp(-distance)``. antmaze terminates at the goal, maze2d goes on. The info has ``success``
    and ``goal``. ``compute_reward`` takes batches of goals, for hindsight relabelling.

    Args:
        env: the maze, laid out so that its coordinates differ from the data's by a shift only.
        shift: added to x and y of the maze, ``(2,)``.
        goal: of evaluation, in the coordinates of the data, ``(2,)``.
        cells: the maze's own ``goal_cell`` and, where episodes start in one, ``reset_cell``.
        spread: the goal of an episode is ``goal`` plus, in x and in y, a uniform number between 0
            and each of these.
        starts: where the point starts, one of these in the coordinates of the data, ``(N, 2)``,
            plus noise; None leaves the start to the maze.
        goals: Dict observations (observation, achieved and desired goal) instead of flat ones.
        dense: the dense reward.
        ant: antmaze instead of maze2d.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        *,
        shift: Floats,
        goal: Floats,
        cells: dict[str, Any],
        spread: tuple[float, ...],
        starts: Floats | None,
        goals: bool,
        dense: bool,
        ant: bool,
    ) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._maze: Any = env.unwrapped
        self._shift, self._base, self._cells, self._spread = shift, goal, cells, spread
        self._starts = starts
        self._goals, self._dense, self._ant = goals, dense, ant
        self._goal = goal.copy()
        width = 2 + _BODY_COLUMNS if ant else 4
        box: gym.Space[Any] = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        if goals:
            xy = spaces.Box(-np.inf, np.inf, (2,), np.float32)
            box = spaces.Dict({"observation": box, "achieved_goal": xy, "desired_goal": xy})
        self.observation_space = box

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode: antmaze in D4RL's start cell, maze2d in any; options are not used."""
        _, info = self.env.reset(seed=seed, options=self._cells)
        if self._starts is not None:
            self._place_point(self._starts)
        noise = [self._maze.np_random.uniform(0.0, size, 2) for size in self._spread]
        self._goal = self._base + np.sum(noise, axis=0) if noise else self._base.copy()
        self._maze.goal = self._goal - self._shift
        self._maze.update_target_site_pos()  # of the rendered marker
        state = self._state()
        return self._observation(state), {**info, **self._success(state)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        _, _, _, truncated, info = self.env.step(action)
        state = self._state()
        success = self._success(state)
        reward = float(self.compute_reward(state[:2], self._goal))
        terminated = self._ant and bool(success["is_success"])
        return self._observation(state), reward, terminated, truncated, {**info, **success}

    def compute_reward(self, achieved: Any, desired: Any, info: Any = None) -> Any:
        """Return the reward of states at ``achieved`` for the goals ``desired``, ``(..., 2)``."""
        distance = np.linalg.norm(np.asarray(achieved) - np.asarray(desired), axis=-1)
        return np.exp(-distance) if self._dense else (distance <= _RADIUS).astype(np.float32)

    def compute_terminated(self, achieved: Any, desired: Any, info: Any = None) -> Any:
        """Return whether an episode terminates at ``achieved``, ``(..., 2)``."""
        distance = np.linalg.norm(np.asarray(achieved) - np.asarray(desired), axis=-1)
        return (distance <= _RADIUS) & self._ant

    def _place_point(self, starts: Floats) -> None:
        """Start as D4RL's point does: in every free cell, the goal's too, and already moving."""
        generator = self._maze.np_random
        start = starts[generator.integers(len(starts))] - self._shift
        start = start + generator.uniform(-_POINT_NOISE, _POINT_NOISE, 2)
        self._maze.point_env.set_state(start, generator.normal(0.0, _POINT_NOISE, 2))

    def _state(self) -> Floats:
        """Positions and velocities, in the coordinates of the data."""
        data = (self._maze.ant_env if self._ant else self._maze.point_env).data
        state: Floats = np.concatenate([data.qpos, data.qvel])
        state[:2] += self._shift
        return state

    def _success(self, state: Floats) -> dict[str, Any]:
        near = bool(np.linalg.norm(state[:2] - self._goal) <= _RADIUS)
        return {"success": float(near), "is_success": near, "goal": self._goal.copy()}

    def _observation(self, state: Floats) -> Any:
        flat = state.astype(np.float32)
        if not self._goals:
            return flat
        goal = self._goal.astype(np.float32)
        return {"observation": flat, "achieved_goal": flat[:2].copy(), "desired_goal": goal}


class AntForces(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Ant-v5 with the 111 numbers of D4RL's ant: the forces on 14 bodies instead of on 13.

    Gymnasium leaves out the world, on which the forces are always 0. Versions of MuJoCo from the
    time of D4RL recorded no contact forces at all, hence the option to show zeros.

    Args:
        env: Ant-v5.
        contact_forces: whether forces are shown, or zeros.
    """

    def __init__(self, env: gym.Env[Any, Any], contact_forces: bool) -> None:
        RecordConstructorArgs.__init__(self, contact_forces=contact_forces)
        super().__init__(env)
        self._forces = contact_forces
        width = _BODY_COLUMNS + _FORCE_COLUMNS
        self.observation_space = spaces.Box(-np.inf, np.inf, (width,), np.float64)

    def observation(self, observation: Any) -> Floats:
        """Return the body's state and the forces, world first."""
        wide = np.zeros(_BODY_COLUMNS + _FORCE_COLUMNS)
        wide[:_BODY_COLUMNS] = observation[:_BODY_COLUMNS]
        if self._forces:
            forces = observation[_BODY_COLUMNS:]
            wide[-len(forces) :] = forces
        return wide


class D4RLHand(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A hand of Gymnasium-Robotics with D4RL's reward and end of episodes.

    The -v1 environments of Gymnasium-Robotics add a tenth of the distance from the palm to the
    handle, hammer or ball to the reward; D4RL (and -v2) subtract it. D4RL ends an episode when the
    pen is dropped, and Gymnasium-Robotics goes on.

    Args:
        env: a hand environment with the dense reward.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        # Not env.spec: wrappers keep the first spec they are asked for, and another one is to come.
        spec = env.unwrapped.spec
        name, _, version = spec.id.partition("-") if spec else ("", "", "")
        self._task = name.removeprefix("AdroitHand")
        self._inverted = version == "v1"

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        state, reward, terminated, truncated, info = self.env.step(action)
        if self._inverted:
            reward = float(reward) - 0.2 * self._reach(state)
        if self._task == "Pen":
            terminated = bool(state[_PEN_HEIGHT] < _DROPPED)
        return state, float(reward), terminated, truncated, info

    def _reach(self, state: Floats) -> float:
        """Distance from the palm to what it shall grasp; 0 for the pen, which lies in the hand."""
        if self._task == "Door":
            return float(np.linalg.norm(state[35:38]))
        if self._task == "Hammer":
            return float(np.linalg.norm(state[33:36] - state[36:39]))
        return float(np.linalg.norm(state[30:33])) if self._task == "Relocate" else 0.0


def make_ant_env(
    contact_forces: bool, render_mode: str | None = None, **kwargs: Any
) -> gym.Env[Any, Any]:
    """Make Ant-v5 with D4RL's observations.

    Args:
        contact_forces: see `AntForces`.
        render_mode: passed on.
        **kwargs: passed on.
    """
    env = gym.make("Ant-v5", max_episode_steps=-1, render_mode=render_mode, **kwargs)
    return AntForces(env, contact_forces)


def make_adroit_env(
    env_id: str, render_mode: str | None = None, **kwargs: Any
) -> gym.Env[Any, Any]:
    """Make a hand environment of Gymnasium-Robotics with D4RL's reward, see `D4RLHand`.

    Args:
        env_id: such as ``AdroitHandDoor-v1``; -v2 stands in where -v1 is no longer there.
        render_mode: passed on.
        **kwargs: passed on.

    Raises:
        UserError: Gymnasium-Robotics is not installed, or has no such environment.
    """
    return D4RLHand(make_robotics_env(env_id, render_mode, **kwargs))


def make_maze_env(
    family: Literal["antmaze", "maze2d"],
    size: str,
    *,
    frame: Literal["d4rl", "robotics"] = "d4rl",
    goals: bool = False,
    dense: bool = False,
    render_mode: str | None = None,
    **kwargs: Any,
) -> D4RLMaze:
    """Make a maze of Gymnasium-Robotics with D4RL's layout, goal and observations.

    Args:
        family: which body.
        size: ``umaze``, ``medium`` or ``large``.
        frame: whose coordinates: D4RL's, which begin at a corner, or those of data recorded with
            Gymnasium-Robotics, which are centred. They differ by mirroring, so the maze itself is
            laid out anew: a shift is all that is left to do.
        goals: Dict observations with goals.
        dense: the dense reward, ``exp(-distance)``.
        render_mode: passed on.
        **kwargs: passed on.

    Raises:
        UserError: Gymnasium-Robotics is not installed, or an unknown size.
    """
    if size not in _LAYOUTS:
        raise UserError(f"Unknown maze {size!r}; choose one of {', '.join(_LAYOUTS)}.")
    ant = family == "antmaze"
    cell = _ANT_UMAZE_GOAL if ant and size == "umaze" else _GOAL_CELLS[size]
    walls = np.array([[int(tile == "#") for tile in row] for row in _LAYOUTS[size]])
    shift = np.zeros(2)
    start, target = _ANT_START, cell
    if frame == "d4rl":
        walls, shift, start, target = _as_d4rl(walls, start, target, ant)
    env = make_robotics_env(_MAZES[family], render_mode, maze_map=walls.tolist(), **kwargs)
    maze: Any = env.unwrapped
    maze.position_noise_range = 0.025 if ant else 0.1  # of a cell: 0.1 in both, as in D4RL
    goal = maze.maze.cell_rowcol_to_xy(target) + shift
    if frame == "d4rl" and not ant:
        goal = np.array(cell, np.float64)  # D4RL counts cells, whose middle is at -0.2
    cells = {"goal_cell": target, **({"reset_cell": start} if ant else {})}
    spread = (1.0, 0.5) if ant and frame == "d4rl" else ()
    starts = None
    if frame == "d4rl" and not ant:
        tiles = np.array([list(row) for row in _LAYOUTS[size]])
        starts = np.argwhere(tiles != "#").astype(np.float64)  # counted as the goal is
    return D4RLMaze(
        env,
        shift=shift,
        goal=goal,
        cells=cells,
        spread=spread,
        starts=starts,
        goals=goals,
        dense=dense,
        ant=ant,
    )


def _as_d4rl(
    walls: NDArray[Any], start: tuple[int, int], target: tuple[int, int], ant: bool
) -> tuple[NDArray[Any], Floats, tuple[int, int], tuple[int, int]]:
    """Lay a maze out so that Gymnasium-Robotics' axes run as D4RL's do.

    ::

        Robotics            x = column - middle      y = middle - row
        D4RL antmaze        x = 4 (column - 1)       y = 4 (row - 1)       rows upside down
        D4RL maze2d         x = row - 0.2            y = column - 0.2      transposed as well

    Returns:
        The walls, the shift of x and y, and the start and target cells in the new layout.
    """
    rows, columns = walls.shape
    if ant:
        middle = np.array([columns, rows]) / 2
        flipped = [(rows - 1 - i, j) for i, j in (start, target)]
        return walls[::-1], 4.0 * (middle - 1.5), flipped[0], flipped[1]
    middle = np.array([rows, columns]) / 2
    turned = [(columns - 1 - j, i) for i, j in (start, target)]
    return walls.T[::-1], middle - 0.7, turned[0], turned[1]


def make_robotics_env(env_id: str, render_mode: str | None, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make an environment of Gymnasium-Robotics without its time limit; the spec has D4RL's."""
    try:
        robotics = import_robotics()
    except ImportError as error:
        raise UserError(
            f"Environment {env_id!r} needs Gymnasium-Robotics: pip install 'gcrl-gym[robotics]'."
        ) from error
    gym.register_envs(robotics)
    if env_id not in gym.registry and env_id.startswith("AdroitHand"):
        later = env_id.replace("-v1", "-v2")  # of Gymnasium-Robotics after 1.4.2
        env_id = later if later in gym.registry else env_id
    if env_id not in gym.registry:
        raise UserError(
            f"Gymnasium-Robotics has no environment {env_id!r}.{nearest(env_id, gym.registry)}"
        )
    return gym.make(env_id, max_episode_steps=-1, render_mode=render_mode, **kwargs)
