"""Environment specs written by other versions of Gymnasium."""

import json
import warnings

import gymnasium as gym
import numpy as np
import pytest

from gcrl_gym.datasets import OfflineDataset, load_dataset, make_env
from gcrl_gym.datasets.env_specs import read_env_spec
from gcrl_gym.datasets.minari_reader import open_minari
from gcrl_gym.errors import UserError

from .test_minari import write

SPEC = gym.spec("CartPole-v1")
OLD = {"autoreset": True, "apply_api_compatibility": False}  # in specs before Gymnasium 1.0


def old_text(**changes):
    return json.dumps(json.loads(SPEC.to_json()) | OLD | changes, separators=(",", ":"))


def test_known_fields_are_read_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_env_spec(SPEC.to_json()) == SPEC


def test_unknown_fields_are_dropped_with_one_warning():
    with pytest.warns(UserWarning, match="Ignoring apply_api_compatibility, autoreset") as caught:
        spec = read_env_spec(old_text())
    assert len(caught) == 1
    assert spec == SPEC


def test_wrappers_are_kept_and_may_be_missing():
    wrapper = {"name": "W", "entry_point": "a:W", "kwargs": {"x": 1}, "odd": 2}
    with pytest.warns(UserWarning, match="odd"):
        spec = read_env_spec(old_text(additional_wrappers=[wrapper]))
    assert [(w.name, w.kwargs) for w in spec.additional_wrappers] == [("W", {"x": 1})]
    assert read_env_spec('{"id": "CartPole-v1"}').id == "CartPole-v1"


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_what_is_no_spec_is_refused(text):
    with pytest.raises(ValueError):
        read_env_spec(text)


def write_with_specs(root, **specs):
    write("box")
    path = root / "test" / "box-v0" / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | specs))
    return path


def test_environment_of_an_old_dataset_is_recovered_with_one_warning(minari_root):
    path = write_with_specs(minari_root, env_spec=old_text(), eval_env_spec=old_text())
    before = path.read_bytes()
    with pytest.warns(UserWarning, match="Ignoring") as caught:
        dataset = open_minari("test/box-v0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = dataset.recover_environment()
        evaluation = make_env(dataset)
    assert len(caught) == 1
    assert env.spec.id == evaluation.spec.id == "CartPole-v1"
    assert dataset.total_episodes == 3
    assert path.read_bytes() == before


def test_old_dataset_loads_and_filters(minari_root):
    expected = OfflineDataset.from_minari(write("box", dataset_id="test/new-v0"))
    write_with_specs(minari_root, env_spec=old_text())
    with pytest.warns(UserWarning, match="Ignoring"):
        dataset = load_dataset("test/box-v0")
    loaded = OfflineDataset.from_minari(dataset)
    np.testing.assert_array_equal(loaded.observations, expected.observations)
    some = dataset.filter_episodes(lambda episode: len(episode) != 3)
    assert OfflineDataset.from_minari(some).num_episodes == 2


def test_broken_spec_is_one_clear_error(minari_root):
    write_with_specs(minari_root, env_spec="{}")
    with pytest.raises(UserError, match=r"Cannot open the Minari dataset in .*has no 'id'"):
        open_minari("test/box-v0")
