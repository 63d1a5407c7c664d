"""A Minari folder of this test session with one small dataset."""

import pytest

from gcrl_gym.datasets.nav2d_io import write_nav2d

DATASET = "test/walks-v0"


@pytest.fixture(scope="session")
def minari_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        write_nav2d(DATASET, "noisy", "open", episodes=30, seed=0)
    return root


@pytest.fixture
def dataset_id(minari_root, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(minari_root))
    return DATASET
