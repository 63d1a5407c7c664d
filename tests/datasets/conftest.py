"""What the data tests share: a Minari root of their own, real data where there is any."""

import os
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from gcrl_gym.datasets import download

from .http_server import CONTENT, OTHER, serving

REPOSITORY = Path(__file__).parents[2]
EXCERPTS = REPOSITORY / "tests" / "data"


@pytest.fixture
def minari_root(tmp_path, monkeypatch):
    """An empty folder that Minari takes for its datasets."""
    root = tmp_path / "minari"
    root.mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    monkeypatch.delenv("GCRL_DATA_DIR", raising=False)
    return root


@pytest.fixture(scope="session")
def real_data():
    """Folder of full data files: $GCRL_DATA_DIR, or shared/data beside the repository."""
    folder = Path(os.environ.get("GCRL_DATA_DIR", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "ogbench").is_dir():
        pytest.skip(f"no full data files in {folder}; set GCRL_DATA_DIR")
    return folder


OBSERVATION = spaces.Box(-np.inf, np.inf, (3,), np.float64)
GOAL_SPACE = spaces.Dict(
    observation=OBSERVATION,
    achieved_goal=spaces.Box(-np.inf, np.inf, (2,), np.float64),
    desired_goal=spaces.Box(-np.inf, np.inf, (2,), np.float64),
)


def random_episode(space, action_space, steps, rng, **changes):
    """A whole-array episode with values of these spaces that float32 holds exactly."""

    def draw(leaf, rows):
        if isinstance(leaf, spaces.Dict):
            return {key: draw(sub, rows) for key, sub in leaf.items()}
        if isinstance(leaf, spaces.Discrete):
            return rng.integers(leaf.n, size=rows)
        if leaf.dtype == np.uint8:
            return rng.integers(256, size=(rows, *leaf.shape), dtype=np.uint8)
        return rng.standard_normal((rows, *leaf.shape), np.float32).astype(leaf.dtype)

    flags = np.zeros((2, steps), bool)
    flags[int(rng.integers(2)), -1] = True
    values = {
        "observations": draw(space, steps + 1),
        "actions": draw(action_space, steps),
        "rewards": rng.standard_normal(steps, np.float32).astype(np.float64),
        "terminations": flags[0],
        "truncations": flags[1],
        "infos": {"step": np.arange(steps + 1)},
    }
    return EpisodeBuffer(**{**values, **changes})


@pytest.fixture
def online(monkeypatch, no_downloads):
    """Downloads are allowed, wait little and take no proxy."""
    monkeypatch.delenv("GCRL_OFFLINE")
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(online):
    """A server that misbehaves by address; see http_server.py."""
    with serving(CONTENT, OTHER) as (server, address):
        server.address = address
        yield server
