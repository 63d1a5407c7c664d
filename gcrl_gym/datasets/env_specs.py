"""Environment specs of datasets written by other versions of Gymnasium."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec
    from minari import MinariDataset

_KEYS = ("env_spec", "eval_env_spec")


def read_env_spec(json_text: str) -> EnvSpec:
    """Return the EnvSpec of a JSON text, ignoring fields this Gymnasium does not know.

    Fields such as ``autoreset`` were in the specs of earlier versions; one warning names those
    that are dropped.

    Args:
        json_text: what some version's ``EnvSpec.to_json`` wrote.

    Raises:
        ValueError: not JSON, or no environment id in it.
    """
    spec, unknown = _read(json_text)
    _warn(unknown)
    return spec


def open_lenient(folder: Path) -> MinariDataset:
    """Open a Minari data folder, with specs as `read_env_spec` reads them, and one warning.

    Raises:
        ValueError, KeyError, TypeError, AssertionError, OSError: Minari cannot read it.
    """
    import minari
    from minari.dataset.minari_storage import MinariStorage

    storage = MinariStorage.read(folder)
    raw = MinariStorage.read_raw_metadata(folder)
    found = {key: _read(raw[key]) for key in _KEYS if raw.get(key) is not None}
    unknown = sorted({name for _, names in found.values() for name in names})
    if not unknown:
        return minari.MinariDataset(storage)
    _warn(unknown)
    specs = {key: spec.to_json() for key, (spec, _) in found.items()}
    return minari.MinariDataset(_with_metadata(storage, specs))


def _read(json_text: str) -> tuple[EnvSpec, list[str]]:
    """Return the spec and the names of the fields that were dropped."""
    from gymnasium.envs.registration import EnvSpec, WrapperSpec

    given = json.loads(json_text)
    if not isinstance(given, dict) or "id" not in given:
        raise ValueError(f"{json_text!r} is not the JSON of an EnvSpec: it has no 'id'")
    unknown: set[str] = set()

    def known(fields: dict[str, Any], kind: type[EnvSpec] | type[WrapperSpec]) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(kind) if field.init}
        unknown.update(fields.keys() - names)
        return {name: value for name, value in fields.items() if name in names}

    kept = known(given, EnvSpec)
    wrappers = [known(wrapper, WrapperSpec) for wrapper in kept.get("additional_wrappers") or ()]
    kept["additional_wrappers"] = wrappers
    return EnvSpec.from_json(json.dumps(kept)), sorted(unknown)


def _warn(unknown: list[str]) -> None:
    if unknown:
        warnings.warn(
            f"Ignoring {', '.join(unknown)} in the environment spec of the dataset: this version "
            "of Gymnasium does not know them.",
            stacklevel=3,
        )


def _with_metadata(storage: Any, changes: dict[str, str]) -> Any:
    """Return a storage like this one whose metadata reads differently; the file stays as it is."""
    base = type(storage)

    class Changed(base):  # type: ignore[misc, valid-type]
        @property
        def metadata(self) -> dict[str, Any]:
            return {**super().metadata, **changes}

    return Changed(
        Path(storage.data_path),
        storage.observation_space,
        storage.action_space,
        jpeg_encoding=storage.jpeg_encoding,
    )
