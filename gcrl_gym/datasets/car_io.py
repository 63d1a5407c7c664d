"""Generated car-racing datasets: ``gcrl/carracing/[lap-]<kind>-v0``, and ``carracing-pixels``.

The drivers of ``car_drivers`` drive all episodes at once in the vector environment. Every dataset
is a function of its id and a seed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gcrl_gym.datasets.car_drivers import SKILLS, Driver
from gcrl_gym.datasets.minari_io import write_minari
from gcrl_gym.datasets.sources import Card, Source
from gcrl_gym.envs.car_batch import Mode, check_mode
from gcrl_gym.envs.car_vector import CarRacingPixelsVector, CarRacingVector
from gcrl_gym.errors import UserError, nearest
from gcrl_gym.progress import with_progress

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

_FAMILIES = {"carracing": "gcrl/CarRacing-v0", "carracing-pixels": "gcrl/CarRacingPixels-v0"}


@dataclass(frozen=True)
class Kind:
    """How much of what to record.

    Args:
        driver: name of the skill.
        episodes: number of episodes, and of episodes with pictures.
        length: steps after which an episode is cut.
        endless: whether to drive on at the goal, to the end of the episode.
    """

    driver: str
    episodes: tuple[int, int]
    length: int
    endless: bool = False


KINDS: dict[Mode, dict[str, Kind]] = {
    "goal": {
        "expert": Kind("expert", (1000, 40), 1000),
        "medium": Kind("medium", (1000, 25), 1000),
        "random": Kind("random", (500, 20), 400),
        "play": Kind("play", (500, 16), 500, endless=True),
    },
    "lap": {
        "expert": Kind("expert", (300, 12), 1000),
        "medium": Kind("medium", (300, 10), 1000),
        "random": Kind("random", (300, 10), 1000),
    },
}


def dataset_ids() -> list[str]:
    """Ids of every generated car-racing dataset."""
    return [
        f"gcrl/{family}/{'' if mode == 'goal' else f'{mode}-'}{kind}-v0"
        for family in _FAMILIES
        for mode, kinds in KINDS.items()
        for kind in kinds
    ]


def make_dataset(dataset_id: str, *, seed: int = 0, overwrite: bool = False) -> MinariDataset:
    """Generate a dataset by its id and write it as Minari dataset.

    Raises:
        UserError: unknown id, or one that exists.
    """
    if dataset_id not in dataset_ids():
        raise UserError(f"Unknown dataset {dataset_id!r}.{nearest(dataset_id, dataset_ids())}")
    _, family, name = dataset_id.split("/")
    mode, _, kind = name.removesuffix("-v0").rpartition("-")
    return write_car_racing(
        dataset_id,
        kind,
        check_mode(mode or "goal"),
        pixels=family == "carracing-pixels",
        seed=seed,
        overwrite=overwrite,
    )


def write_car_racing(
    dataset_id: str,
    kind: str,
    mode: Mode = "goal",
    *,
    pixels: bool = False,
    episodes: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> MinariDataset:
    """Drive episodes and write them as a Minari dataset.

    Args:
        dataset_id: id to write.
        kind: one of ``KINDS[mode]``.
        mode: ``goal`` or ``lap``.
        pixels: pictures as observations.
        episodes: number of episodes; the kind's own when None.
        seed: of everything drawn.
        overwrite: replace an existing dataset.

    Raises:
        UserError: an unknown kind or mode, or an id that exists.
    """
    buffers = car_episodes(kind, mode, pixels=pixels, episodes=episodes, seed=seed)
    keywords = {} if mode == "goal" else {"mode": mode}
    env_id = _FAMILIES["carracing-pixels" if pixels else "carracing"]
    evaluation = replace(gym.spec(env_id), kwargs=keywords)
    recorded = KINDS[mode][kind]
    own = replace(evaluation, max_episode_steps=recorded.length)
    if recorded.endless:
        own = replace(own, kwargs={**keywords, "terminate_at_goal": False})
    env = gym.make(evaluation)
    skill = asdict(SKILLS[recorded.driver]) | {"episodes": len(buffers)}
    return write_minari(
        dataset_id,
        with_progress(buffers, f"Writing {dataset_id}"),
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=own,
        eval_env_spec=evaluation,
        metadata={
            "source": "generated",
            "generator": {"name": "carracing", "kind": kind, "mode": mode, "seed": seed, **skill},
            "algorithm_name": f"scripted {kind}",
            "ref_min_score": REFERENCES[mode][0],
            "ref_max_score": REFERENCES[mode][1],
        },
        overwrite=overwrite,
    )


REFERENCES: dict[Mode, tuple[float, float]] = {"goal": (0.0, 1.0), "lap": (-60.0, 938.0)}
"""Returns that normalised scores 0 and 100 stand for: failure and success; and in lap mode, the
means of the random and the expert driver on tracks 0 .. 99 (``test_references``)."""


def car_episodes(
    kind: str,
    mode: Mode = "goal",
    *,
    pixels: bool = False,
    episodes: int | None = None,
    seed: int = 0,
) -> list[EpisodeBuffer]:
    """Drive episodes; arguments as in `write_car_racing`."""
    kinds = KINDS[check_mode(mode)]
    if kind not in kinds:
        hint = nearest(kind, kinds)
        raise UserError(f"Unknown kind of data {kind!r}; choose one of {', '.join(kinds)}.{hint}")
    recorded = kinds[kind]
    count = episodes or recorded.episodes[pixels]
    vector = CarRacingPixelsVector if pixels else CarRacingVector
    envs = vector(
        count,
        max_episode_steps=recorded.length,
        mode=mode,
        terminate_at_goal=not recorded.endless,
    )
    draws, driving = np.random.SeedSequence(seed).spawn(2)
    driver = Driver(SKILLS[recorded.driver], envs.cars, np.random.default_rng(driving))
    recording = _Recording()
    observation, _ = envs.reset(seed=[int(number) for number in draws.generate_state(count)])
    running = np.arange(count)
    recording.add(running, {"observations": observation})
    for _ in with_progress(range(recorded.length), f"Driving {kind}", unit=" steps"):
        actions = driver.act()
        observation, rewards, terminated, truncated, _ = envs.step(actions)
        columns = {
            "observations": observation,
            "actions": actions,
            "rewards": rewards.astype(np.float32),
            "terminations": terminated,
            "truncations": truncated,
        }
        recording.add(running, columns)
        # Copies that have ended begin anew, and nobody looks any more.
        running = running[~(terminated | truncated)[running]]
        if not len(running):
            break
    return recording.episodes(count)


class _Recording:
    """Rows of many copies, step by step; sorted into episodes at the end."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], list[NDArray[Any]]] = {}
        self._copies: dict[tuple[str, ...], list[NDArray[np.int64]]] = {}

    def add(self, copies: NDArray[np.int64], columns: dict[str, Any]) -> None:
        """Note the rows of these copies; columns hold a row for every copy."""
        for name, column in columns.items():
            parts = column if isinstance(column, dict) else {"": column}
            for key, part in parts.items():
                self._rows.setdefault((name, key), []).append(part[copies])
                self._copies.setdefault((name, key), []).append(copies)

    def episodes(self, count: int) -> list[EpisodeBuffer]:
        """Return an episode for each copy."""
        from minari.data_collector import EpisodeBuffer

        values: list[dict[str, Any]] = [{} for _ in range(count)]
        for (name, key), rows in self._rows.items():
            copies = np.concatenate(self._copies[name, key])
            order = np.argsort(copies, kind="stable")  # by copy, then by time
            ends = np.cumsum(np.bincount(copies, minlength=count))
            column = np.concatenate(rows)
            rows.clear()  # pictures are large
            for copy, some in enumerate(np.split(order, ends[:-1])):
                if key:
                    values[copy].setdefault(name, {})[key] = column[some]
                else:
                    values[copy][name] = column[some]
        return [EpisodeBuffer(**value) for value in values]


def _make(dataset_id: str, path: Path | None, overwrite: bool) -> MinariDataset:
    return make_dataset(dataset_id, overwrite=overwrite)


CARDS = (
    Card(
        "gcrl/carracing/*",
        "0-3 pose x, y, cos, sin; 4-6 speed forwards, to the left, yaw rate; 7 steering angle;"
        " 8-18 distances to the road's edge; 19-38 way ahead (lap: the same without the pose)",
        "pose x, y, cos, sin (lap: none)",
        "position within 2 m and heading within 20 degrees (lap: lap completed)",
        "1000",
        "MIT",
        "generated on first use: expert, medium, random and play drivers on track 0; lap-expert,"
        " lap-medium and lap-random on tracks 0-99",
    ),
    Card(
        "gcrl/carracing-pixels/*",
        "picture from above, 96 x 96 x 3 uint8, the car heading up",
        "pose x, y, cos, sin (lap: none)",
        "as gcrl/carracing",
        "1000",
        "MIT",
        "as gcrl/carracing, with 8,000 to 10,000 pictures each",
    ),
)

SOURCE = Source("generated", ids=dataset_ids, file=lambda dataset_id: None, make=_make, cards=CARDS)
