"""Damaged D4RL files are one clear error each and leave nothing behind."""

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from gcrl_gym.datasets.d4rl_io import convert_d4rl
from gcrl_gym.datasets.d4rl_reader import read_d4rl
from gcrl_gym.errors import UserError
from tests.datasets.damage import FOREIGN, put
from tests.datasets.test_d4rl import (
    MEDIUM,
    REPLAY,
    edit,
    read_all,
)


def changed(**changes):
    def damage(path):
        raw = read_all(path)
        edit(path, {key: change(raw[key]) for key, change in changes.items()})

    return damage


def shortened(rows):
    return lambda path: edit(
        path, {key: a[:rows] for key, a in read_all(path).items() if not key.startswith("meta")}
    )


def no_ends(path):
    raw = {key: array[:100] for key, array in read_all(path).items() if array.shape}
    edit(path, raw | {"terminals": np.zeros(100, bool), "timeouts": np.zeros(100, bool)})


def make_group(path):
    with h5py.File(path, "a") as file:
        del file["actions"]
        file.create_group("actions")


def make_objects(path):
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file.create_dataset("rewards", (500,), h5py.string_dtype())


def flip(path):
    """Change bytes in the middle of the compressed observations."""
    with h5py.File(path) as file:
        info = file["observations"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    for offset in range(20, 60):
        content[info.byte_offset + offset] ^= 0xFF
    path.write_bytes(bytes(content))


DAMAGES = {
    **FOREIGN,
    "flipped bits": (flip, "is damaged or incomplete at 'observations'"),
    "zip": (lambda path: path.write_bytes(b"PK\x03\x04"), "is a zip file, not an HDF5 file"),
    "no key": (changed(rewards=lambda a: None), r"has no \['rewards'\]; it holds"),
    "group": (make_group, "actions is a group"),
    "objects": (make_objects, "rewards has dtype object"),
    "no rows": (shortened(0), "observations has 0 rows"),
    "one row": (shortened(1), "observations has 1 row;"),
    "lengths": (changed(actions=lambda a: a[:-1]), r"actions has shape \(499, 3\)"),
    "flag lengths": (changed(timeouts=lambda a: a[:-1]), r"timeouts has shape \(499,\)"),
    "infos lengths": (changed(**{"infos/qpos": lambda a: a[:-1]}), "infos/qpos has shape"),
    "flat": (changed(observations=lambda a: a[:, 0]), r"observations has shape \(500,\)"),
    "integers": (changed(actions=lambda a: a.astype(int)), "actions has dtype int64"),
    "nan": (changed(observations=put((7, 1), np.nan)), "observations holds NaN or .* in row 7"),
    "inf": (changed(rewards=put(9, np.inf)), "rewards holds NaN or infinity in row 9"),
    "nan next": (changed(next_observations=put(8, np.nan)), "next_observations holds NaN .* row 8"),
    "width": (changed(actions=lambda a: a[:, :2]), "actions is 2 wide, but hopper has 3"),
    "states": (changed(next_observations=lambda a: a[:, :2]), "next_observations has shape"),
    "shifted": (changed(next_observations=lambda a: a[::-1]), "row 0 is not the observation of"),
    "no ends": (no_ends, "so no episode ends; set timeouts to 1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_clear_error_and_leaves_nothing(minari_root, tmp_path, damage):
    path = tmp_path / REPLAY.name
    shutil.copy(REPLAY, path)
    change, message = DAMAGES[damage]
    change(path)
    with pytest.raises(UserError, match=message) as caught:
        convert_d4rl(path)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in re.sub(r"\(.*\)", "", text)
    assert list(minari_root.rglob("*")) == []


def test_optional_keys_may_be_missing(tmp_path):
    path = tmp_path / MEDIUM.name
    shutil.copy(MEDIUM, path)
    optional = {key: None for key in read_all(path) if "/" in key}
    arrays = read_d4rl(edit(path, {**optional, "timeouts": None, "next_observations": None}))
    assert arrays.timeouts is arrays.next_observations is None
    assert arrays.infos == {}
    assert arrays.unread == ()
    assert arrays.terminals.dtype == bool


@pytest.mark.parametrize("key", ["terminals", "timeouts"])
@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, np.nan])
def test_flags_are_0_or_1(tmp_path, key, value):
    path = Path(shutil.copy(REPLAY, tmp_path))
    flags = read_all(path)[key].astype(np.float32)
    flags[30] = value
    with pytest.raises(UserError, match=rf"{key} holds .* in row 30"):
        read_d4rl(edit(path, {key: flags}))


@pytest.mark.parametrize("key", ["observations", "rewards"])
def test_what_float32_cannot_hold_is_refused(minari_root, tmp_path, key):
    """A float64 file may hold numbers that are infinite to every agent."""
    path = Path(shutil.copy(REPLAY, tmp_path))
    array = read_all(path)[key].astype(np.float64)
    array[9] = 1e300
    with pytest.raises(UserError, match=f"{key} holds NaN or infinity in row 9"):
        convert_d4rl(edit(path, {key: array}))


def test_a_few_wrong_next_observations_are_not_taken_for_ends(minari_root, tmp_path):
    path = Path(shutil.copy(REPLAY, tmp_path))
    following = read_all(path)["next_observations"].copy()
    following[[100, 200]] += 50.0
    with pytest.raises(UserError, match=r"row 100 is not the observation of row 101 \(2 such"):
        convert_d4rl(edit(path, {"next_observations": following}))


def test_bad_infos_are_kept_and_said(minari_root, tmp_path):
    path = Path(shutil.copy(REPLAY, tmp_path))
    qpos = put((40, 2), np.nan)(read_all(path)["infos/qpos"])
    dataset = convert_d4rl(edit(path, {"infos/qpos": qpos}))
    said = dataset.storage.metadata["report"]["repaired"]
    assert "infos/qpos holds NaN or infinity (first: row 40): kept as stored" in said


def test_both_flags_in_one_row(minari_root, tmp_path):
    path = Path(shutil.copy(REPLAY, tmp_path))
    raw = read_all(path)
    ends = raw["terminals"] > 0
    dataset = convert_d4rl(edit(path, {"timeouts": (raw["timeouts"] > 0) | ends}))
    assert any(
        "taken as terminated" in text for text in dataset.storage.metadata["report"]["repaired"]
    )
    assert sum(e.terminations[-1] for e in dataset.iterate_episodes()) == ends.sum()
    assert not any(e.terminations[-1] and e.truncations[-1] for e in dataset.iterate_episodes())


def test_a_claim_of_more_than_the_memory(tmp_path):
    path = Path(shutil.copy(REPLAY, tmp_path))
    with h5py.File(path, "a") as file:
        del file["observations"]
        file.create_dataset("observations", (2**46, 11), np.float32, chunks=(1024, 11))
    with pytest.raises(UserError, match="observations does not fit into memory"):
        read_d4rl(path)
