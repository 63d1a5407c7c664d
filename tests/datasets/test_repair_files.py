"""Repaired source files pass the check, convert, and keep all that is sound; the rest is said."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from gcrl_gym.datasets.check_files import check_file
from gcrl_gym.datasets.d4rl_io import convert_d4rl
from gcrl_gym.datasets.ogbench_io import convert_ogbench
from gcrl_gym.datasets.repair_files import repair_file, repaired_name
from gcrl_gym.errors import UserError
from tests.datasets.conftest import EXCERPTS
from tests.datasets.damage import FOREIGN, put
from tests.datasets.test_d4rl import ANT, DOOR, MAZE, REPLAY, edit, read_all

NPZ = EXCERPTS / "ogbench" / "pointmaze-medium-stitch-v0.npz"
STITCH = "ogbench/pointmaze-medium-stitch-v0"


def changed_npz(tmp_path, **changes):
    """A copy with some arrays changed; returns its path and the arrays of the original."""
    with np.load(NPZ) as archive:
        arrays = {name: archive[name] for name in archive}
    new = {name: change(arrays.get(name)) for name, change in changes.items()}
    path = tmp_path / NPZ.name
    np.savez(path, **{k: v for k, v in (arrays | new).items() if v is not None})
    return path, arrays


def changed_hdf5(tmp_path, source, **changes):
    path = tmp_path / source.name
    shutil.copy(source, path)
    raw = read_all(path)
    return edit(path, {key: change(raw.get(key)) for key, change in changes.items()})


def repaired(path):
    """Repair a file that check refuses; the copy passes and the original stays."""
    before, found = path.read_bytes(), check_file(path)
    assert found.defects
    target, done = repair_file(path)
    assert target == repaired_name(path)
    assert path.read_bytes() == before
    assert check_file(target).defects == []
    assert not any("tells no dataset" in note for note in check_file(target).notes)
    assert done
    return target, done


def regular(arrays):
    """The arrays as OGBench's loader returns them."""
    ends = arrays["terminals"] > 0
    changed = {key: array[~ends] for key, array in arrays.items()}
    changed["next_observations"] = arrays["observations"][1:][~ends[:-1]]
    changed["terminals"] = np.append(ends[1:], True)[~ends]
    return changed


# ---------------------------------------------------------------------------------------- OGBench


def test_npz_loses_bad_episodes_only(tmp_path, minari_root):
    path, arrays = changed_npz(tmp_path, observations=put(3, np.nan))
    target, done = repaired(path)
    assert target.name == "pointmaze-medium-stitch-v0.repaired.npz"
    assert done == ["episodes with NaN or infinity in observations left out, first row 3"]
    first_end = int(np.argmax(arrays["terminals"]))
    with np.load(target) as archive:
        for name in arrays:
            np.testing.assert_array_equal(archive[name], arrays[name][first_end + 1 :])
    dataset = convert_ogbench(target, STITCH)
    assert dataset.total_episodes == int(arrays["terminals"].sum()) - 1


MENDED = {
    "short": ({"actions": lambda a: a[:-7]}, "cut to 998 rows, the length of the shortest array"),
    "open": ({"terminals": put(-1, False)}, "row 1004, the last, marked as the end"),
    "scaled flags": ({"terminals": lambda a: a * 0.5}, "terminals holds 0.5 where it should be 1"),
    "nan flag": ({"terminals": lambda a: put(3, np.nan)(a * 1.0)}, "NaN in terminals left out"),
    "flat": ({"terminals": lambda a: a[:, None]}, "terminals reshaped from (1005, 1)"),
    "single": (
        {"terminals": put(201, True)},
        "1 episode(s) of a single row left out, first row 201",
    ),
    "infos": ({"qpos": lambda a: np.array([None] * len(a))}, "qpos left out: it is no plain array"),
    "scalar infos": ({"qpos": lambda a: np.float32(1)}, "qpos left out: it is a single number"),
    "overflow": ({"observations": lambda a: put(3, 1e300)(a.astype(float))}, "first row 3"),
}


@pytest.mark.parametrize("case", MENDED)
def test_npz_is_mended_and_it_is_said(tmp_path, minari_root, case):
    changes, sentence = MENDED[case]
    path, _ = changed_npz(tmp_path, **changes)
    target, done = repaired(path)
    assert any(sentence in text for text in done), done
    convert_ogbench(target, STITCH)


def test_regular_npz(tmp_path, minari_root):
    _, arrays = changed_npz(tmp_path)
    values = regular(arrays)
    values["observations"] = put(5, 0)(values["observations"])
    path = tmp_path / NPZ.name
    np.savez(path, **values)
    target, done = repaired(path)
    assert "next_observations is not the next row left out, first row 4" in done[0]
    assert convert_ogbench(target, STITCH).total_episodes == 4


def test_npz_with_valids(tmp_path, minari_root):
    _, arrays = changed_npz(tmp_path)
    ends = arrays["terminals"] > 0
    before = np.append(ends[1:], False)
    path = tmp_path / NPZ.name
    bad = put((7, 0), np.nan)(arrays["observations"])
    np.savez(path, **(arrays | {"terminals": ends | before, "valids": ~ends, "observations": bad}))
    target, _ = repaired(path)
    assert convert_ogbench(target, STITCH).total_episodes == 4
    np.savez(path, **(arrays | {"valids": np.arange(1005) % 2}))
    with pytest.raises(UserError, match="terminals and valids disagree in row"):
        repair_file(path, overwrite=True)


def test_unknown_keys_of_an_npz(tmp_path):
    """They cut nothing; a row of them goes where its state goes."""
    rows = np.arange(1005)
    path, _ = changed_npz(
        tmp_path,
        observations=put(3, np.nan),
        short=lambda a: np.arange(7),
        scalar=lambda a: np.float32(3),
        step=lambda a: rows,
        thing=lambda a: np.array([None]),
    )
    target, done = repaired(path)
    assert "thing left out: it is no plain array" in done
    with np.load(target) as archive:
        assert archive["short"].tolist() == list(range(7))
        assert archive["scalar"] == 3
        np.testing.assert_array_equal(archive["step"], rows[201:])


REFUSED = {
    "no ends": ({"terminals": np.zeros_like}, "terminals ends no episode"),
    "several numbers": ({"terminals": lambda a: put(3, 0.1)(a * 1.0)}, "several numbers besides 0"),
    "text": (
        {"terminals": lambda a: a.astype(str)},
        r"terminals has no rows of numbers \(dtype <U5",
    ),
    "no rows": ({"observations": lambda a: a[:0]}, "observations has no rows of numbers"),
    "scalar": ({"actions": lambda a: np.float32(1)}, "actions has no rows of numbers"),
    "objects": ({"actions": lambda a: np.array([None] * len(a))}, "it is no plain array"),
    "missing": ({"actions": lambda a: None}, "it has no 'actions'; download it again"),
    "nothing": ({"observations": lambda a: a * np.nan}, "no episode is sound"),
    "width": ({"actions": lambda a: a[:, :1]}, "There is nothing in .* that can be repaired"),
    "width and nan": (
        {"actions": lambda a: a[:, :1], "observations": put(3, np.nan)},
        "even in the copy, actions is float32 with rows of shape",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_mended_is_refused(tmp_path, case):
    changes, message = REFUSED[case]
    path, _ = changed_npz(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as caught:
        repair_file(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("source", [NPZ, REPLAY])
@pytest.mark.parametrize("damage", FOREIGN)
def test_foreign_files_are_named(tmp_path, source, damage):
    path = tmp_path / source.name
    shutil.copyfile(source, path)
    change, message = FOREIGN[damage]
    change(path)
    with pytest.raises(UserError, match=message.replace("is damaged", "it is damaged")) as caught:
        repair_file(path)
    assert "synchronously" not in str(caught.value)


def test_an_existing_copy_stays(tmp_path):
    path, _ = changed_npz(tmp_path, observations=put(3, np.nan))
    target = repaired_name(path)
    target.write_text("mine")
    with pytest.raises(UserError, match="exists; delete it, or pass --overwrite"):
        repair_file(path)
    assert target.read_text() == "mine"
    repair_file(path, overwrite=True)
    assert check_file(target).defects == []


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from gcrl_gym.datasets import repair_files
    repair_files.reader_of = lambda *a: lambda path: os.kill(os.getpid(), signal.SIGKILL)
    repair_files.repair_file(Path(sys.argv[1]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_what_a_killed_repair_left_is_removed(tmp_path):
    path, _ = changed_npz(tmp_path, observations=put(3, np.nan))
    code = [sys.executable, "-c", textwrap.dedent(KILLED), str(path)]
    process = subprocess.run(code, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert list(tmp_path.glob(".*.part"))
    running = f".{repaired_name(path).name}.{platform.node()}-{os.getppid()}.part"
    (tmp_path / running).write_text("")
    repair_file(path)
    assert [file.name for file in tmp_path.glob(".*.part")] == [running]


# ------------------------------------------------------------------------------------------- D4RL


def test_hdf5_loses_bad_episodes_only(tmp_path, minari_root):
    path = changed_hdf5(tmp_path, DOOR, observations=put((20, 3), np.nan))
    target, _ = repaired(path)
    original, kept = read_all(DOOR), read_all(target)
    first = int(np.flatnonzero(original["timeouts"])[0]) + 1
    for key in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(kept[key], original[key][first:])
    assert convert_d4rl(target, "d4rl/door-human-v0").total_episodes == 2


HDF5 = {
    "flags moved": (DOOR, {"timeouts": lambda a: np.roll(a, 1)}, "moved by one row"),
    "no flags": (
        DOOR,
        {"timeouts": lambda a: None},
        "timeouts, which the file lacks, set in 3 rows",
    ),
    "single": (DOOR, {"timeouts": put(50, True)}, "single row left out, first row 50"),
    "scaled": (REPLAY, {"terminals": lambda a: a * 2}, "terminals holds 2 where it should be 1"),
    "next": (
        REPLAY,
        {"next_observations": put(20, 5.0)},
        "is not the next row left out, first row 20",
    ),
    "next shape": (REPLAY, {"next_observations": lambda a: a[:, :4]}, "next_observations left out"),
    "infos": (REPLAY, {"infos/qpos": lambda a: a[:9]}, "infos/qpos left out: it has 9 of 500 rows"),
    "state infos": (REPLAY, {"infos/qpos": put(8, np.nan)}, "infinity in infos/qpos left out"),
    "short": (REPLAY, {"rewards": lambda a: a[:-1]}, "cut to 499 rows"),
    "goal": (MAZE, {"infos/goal": put(20, np.nan)}, "only rows 21 to 399 kept"),
    "ant": (ANT, {"timeouts": np.zeros_like}, "without a flag added where the state jumps"),
}


@pytest.mark.parametrize("case", HDF5)
def test_hdf5_is_mended_and_it_is_said(tmp_path, minari_root, case):
    source, changes, sentence = HDF5[case]
    path = changed_hdf5(tmp_path, source, **changes)
    _, done = repaired(path)
    assert any(sentence in text for text in done), done


def test_every_changed_flag_is_said(tmp_path):
    path = changed_hdf5(tmp_path, DOOR, timeouts=lambda a: np.roll(a, 1))
    target, done = repaired(path)
    before, after = read_all(path)["timeouts"] > 0, read_all(target)["timeouts"] > 0
    assert f"timeouts changed in {int((before != after).sum())} rows, first row 49" in done


def test_a_moved_terminal_leaves_no_second_end(tmp_path, minari_root):
    path = changed_hdf5(
        tmp_path,
        DOOR,
        timeouts=np.zeros_like,
        terminals=lambda a: np.roll(read_all(DOOR)["timeouts"], 1),
    )
    target, _ = repaired(path)
    dataset = convert_d4rl(target, "d4rl/door-human-v0")
    assert dataset.total_episodes == 3
    assert [bool(e.terminations[-1]) for e in dataset] == [True, True, False]


def test_maze2d_keeps_the_changes_of_its_goal(tmp_path, minari_root):
    path = changed_hdf5(tmp_path, MAZE, observations=put((20, 1), np.nan))
    target, done = repaired(path)
    original, kept = read_all(MAZE), read_all(target)
    for key in ("timeouts", "terminals", "observations", "infos/goal"):
        np.testing.assert_array_equal(kept[key], original[key][21:])
    assert "only rows 21 to 399 kept, the longest sound stretch" in done


def test_what_is_no_row_is_kept(tmp_path):
    """Metadata, and an unknown key of any length, which cuts nothing."""
    path = changed_hdf5(tmp_path, REPLAY, observations=put((7, 1), np.nan))
    with h5py.File(path, "a") as file:
        file.attrs["made"] = "by me"
        file["extra"] = np.arange(7)
        file["infos/gone"] = h5py.SoftLink("/nowhere")
    with pytest.raises(UserError):
        convert_d4rl(path)
    target, done = repaired(path)
    original, kept = read_all(REPLAY), read_all(target)
    assert kept["metadata/algorithm"] == original["metadata/algorithm"]
    assert kept["extra"].tolist() == list(range(7))
    assert "infos/gone left out: it leads nowhere" in done
    with h5py.File(target) as file:
        assert file.attrs["made"] == "by me"


HDF5_REFUSED = {
    "no ends": (lambda raw: {k: a[60:300] for k, a in raw.items()}, "so no episode ends"),
    "3d": (lambda raw: {"observations": raw["observations"][:, None]}, "expected .rows, width"),
    "no rows": (lambda raw: {k: a[:0] for k, a in raw.items()}, "no rows of numbers"),
    "text": (lambda raw: {"rewards": raw["rewards"].astype("S8")}, "no rows of numbers .dtype .S8"),
    "width": (
        lambda raw: {"actions": raw["actions"][:, :2], "rewards": raw["rewards"][:-1]},
        "even in the copy, actions is 2 wide, but door has 28",
    ),
}


@pytest.mark.parametrize("case", HDF5_REFUSED)
def test_what_cannot_be_mended_in_hdf5_is_refused(tmp_path, case):
    change, message = HDF5_REFUSED[case]
    path = tmp_path / DOOR.name
    shutil.copy(DOOR, path)
    edit(path, change(read_all(path)))
    with pytest.raises(UserError, match=message) as caught:
        repair_file(path)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_shifted_next_observations_are_not_trusted(tmp_path):
    path = changed_hdf5(tmp_path, REPLAY, next_observations=lambda a: a[::-1])
    with pytest.raises(UserError, match="neither array can be trusted"):
        repair_file(path)


def test_a_file_of_another_name_needs_its_id(tmp_path):
    path = changed_hdf5(tmp_path, DOOR, observations=put((20, 3), np.nan))
    path = path.rename(tmp_path / "mine.hdf5")
    with pytest.raises(UserError, match="say which it is with --id"):
        repair_file(path)
    target, _ = repair_file(path, "d4rl/door-human-v0")
    assert check_file(target, dataset_id="d4rl/door-human-v0").defects == []


def test_a_table_is_not_repaired(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("observation_0\n1\n")
    with pytest.raises(UserError, match=r"only \.npz and \.hdf5 files can"):
        repair_file(path)
