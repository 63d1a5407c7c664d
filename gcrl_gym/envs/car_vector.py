"""Car racing, many copies in one NumPy program: what ``gym.make_vec`` makes."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from gcrl_gym.envs.car_batch import DRAWS, CarBatch
from gcrl_gym.envs.car_racing import (
    MAX_STEPS,
    CarRacing,
    CarRacingPixels,
    draw_frame,
    judge,
    observe,
    read_actions,
)
from gcrl_gym.envs.vector import Ahead, Autoreset, Copies, GoalVectorEnv, Infos

_BLOCK = 16  # starts drawn ahead at a time


class CarRacingVector(GoalVectorEnv):
    """``num_envs`` copies of ``CarRacing``.

        envs = gym.make_vec("gcrl/CarRacing-v0", num_envs=1024, mode="lap",
                            vectorization_mode="vector_entry_point")

    Args:
        num_envs: number of copies.
        max_episode_steps: steps after which a copy is truncated; None for no limit.
        autoreset_mode: see ``GoalVectorEnv``.
        keywords: of ``CarRacing``.
    """

    _single = CarRacing

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = MAX_STEPS,
        autoreset_mode: Autoreset | AutoresetMode = "next_step",
        **keywords: Any,
    ) -> None:
        single = self._single(**keywords)
        super().__init__(single, num_envs, max_episode_steps, autoreset_mode)
        self.cars = CarBatch(self.num_envs, single.mode, single.track, single.num_tracks)
        self._ahead = Ahead(np.random.Generator.random, self.num_envs, DRAWS, _BLOCK)
        self._trails: list[list[tuple[float, float]]] = [[] for _ in range(self.num_envs)]

    @property
    def _rules(self) -> CarRacing:
        return cast("CarRacing", self.single)

    def _seeded(self, copies: Copies) -> None:
        self._ahead.forget(copies)

    def _start(self, copies: Copies, options: dict[str, Any]) -> None:
        def draw(cars: Copies) -> NDArray[np.float64]:
            return self._ahead.take(self.generators, cars)

        self.cars.start(copies, options, draw, self._rules.is_success)
        for copy in copies if self.render_mode else ():
            self._trails[copy] = [self._position(copy)]

    def _advance(self, actions: NDArray[Any], copies: Copies | None) -> None:
        self.cars.step(actions)
        if self.render_mode:
            for copy, trail in enumerate(self._trails):
                trail.append(self._position(copy))

    def _observe(self) -> Any:
        return observe(self.cars, self._rules._sense(self.cars))

    def _judge(self) -> tuple[NDArray[np.float64], NDArray[np.bool_], Infos]:
        return judge(self._rules, self.cars)

    def _check_actions(self, actions: Any) -> NDArray[Any]:
        return read_actions(actions, self._rules.continuous, (self.num_envs,))

    def _frame(self, copy: int) -> NDArray[np.uint8]:
        success = bool(self._judge()[2]["is_success"][copy])
        trail = self._trails[copy]
        return draw_frame(self.cars, copy, trail, success, self._rules.goal_tolerance)

    def _position(self, copy: int) -> tuple[float, float]:
        x, y = self.cars.state[:2, copy].tolist()
        return x, y


class CarRacingPixelsVector(CarRacingVector):
    """``num_envs`` copies of ``CarRacingPixels``, whose pictures are drawn together."""

    _single = CarRacingPixels
