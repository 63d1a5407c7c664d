"""Files over HTTP: mirrors, resume, checks, one process at a time, no half-written file.

::

    name.part, name.part.json   received so far, and of which version; kept for the next try
    .name.lock                  held while a process downloads
    name                        appears only when complete and checked
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from filelock import FileLock, Timeout

from gcrl_gym.datasets.signatures import damage
from gcrl_gym.datasets.transfer import Partial, TransferError, Wanted, check_scheme, receive
from gcrl_gym.errors import UserError

logger = logging.getLogger(__name__)

ATTEMPTS = 4
"""Requests to one address in a row that bring less than a mebibyte before the next mirror."""
BACKOFF = 0.5
"""Seconds before the second request; doubled for each further one."""

_PROGRESS = 2**20  # bytes; so many more than ever before make a failed request a useful one


def download(
    urls: Sequence[str],
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    accept_other_bytes: bool = False,
    offline: bool | None = None,
    timeout: float = 30,
    progress: bool = True,
) -> Path:
    """Download a file unless it is there, continuing what an earlier try has received.

    Args:
        urls: addresses of the same file, tried in this order.
        target: where to put it; its suffix tells which format to insist on.
        size: published bytes.
        sha256: published checksum in hexadecimal.
        accept_other_bytes: warn, instead of failing, where size or checksum are others.
        offline: fail instead of using the network; by default where GCRL_OFFLINE is set.
        timeout: seconds to connect, and seconds without a byte, before a request is given up.
        progress: show a bar (on a terminal).

    Returns:
        The target.

    Raises:
        UserError: offline; every address failed, with the reason of each; a folder that cannot be
            written or is full; an existing target that is not the published file.
    """
    job = _Job(tuple(urls), Path(target), size, sha256, accept_other_bytes)
    job.check_urls()
    if not job.target.is_file():
        if is_offline(offline):
            raise UserError(
                f"{job.target.name} is not here, and being offline it is not downloaded from "
                f"{' or '.join(job.urls)}; put it at {job.target} by hand or in a folder named "
                "with --data-dir or GCRL_DATA_DIR, or allow the network (unset GCRL_OFFLINE)."
            )
        with _disk(job.target), _locked(job.target):
            if not job.target.is_file():  # else another process has just downloaded it
                job.run(timeout, progress)
                return job.target
    reason = job.defect(job.target)
    if reason is not None:
        raise UserError(f"{job.target} {reason}; delete it to download it again.")
    return job.target


@dataclass(frozen=True)
class _Job:
    urls: tuple[str, ...]
    target: Path
    size: int | None
    sha256: str | None
    accept_other_bytes: bool

    def check_urls(self) -> None:
        if not self.urls:
            raise UserError(f"No address to download {self.target.name} from; pass at least one.")
        for url in self.urls:
            try:
                check_scheme(url)
            except TransferError as error:
                raise UserError(f"Cannot download {self.target.name}: {error}.") from error

    def run(self, timeout: float, progress: bool) -> None:
        """Try the addresses in order; the first that gives the file ends it."""
        part = Partial(self.target)
        size = None if self.accept_other_bytes else self.size
        wanted = Wanted(self.target.name, size, self.sha256 is not None, timeout, progress)
        reasons = []
        with requests.Session() as session:
            for url in self.urls:
                try:
                    self._fetch(session, url, part, wanted)
                except TransferError as error:
                    logger.info("%s: %s", url, error)
                    reasons.append(f"{url} {error}")
                else:
                    _finish(part, self.target)
                    return
        kept = f" ({part.length:,} bytes are kept for it)" if part.length else ""
        raise UserError(
            f"Could not download {self.target.name}: {'; '.join(reasons)}. Run it again later"
            f"{kept}, or put the file at {self.target} by hand."
        )

    def defect(self, path: Path) -> str | None:
        """Say how a complete file is not the published one; warn only, where that is accepted."""
        broken = damage(path, self.target.name)
        if broken is not None:
            return broken
        reason = None
        length = path.stat().st_size
        if self.size is not None and length != self.size:
            reason = f"has {length} bytes, the published file has {self.size}"
        elif self.sha256 is not None:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != self.sha256.lower():
                reason = f"has SHA-256 {found}, the published file has {self.sha256}"
        if reason is None:
            return None
        if self.accept_other_bytes:
            warnings.warn(f"{self.target.name} {reason}; accepted as asked.", stacklevel=4)
            return None
        return f"{reason} (--accept-other-bytes takes it nevertheless)"

    def _fetch(self, session: requests.Session, url: str, part: Partial, wanted: Wanted) -> None:
        """Request one address until the file is complete and good."""
        failures, most = 0, part.length
        while True:
            try:
                resumed = receive(session, url, part, wanted)
                self._check(part, resumed)
                return
            except TransferError as error:
                # A bad line that brings a bit each time does get there.
                failures = 1 if part.length >= most + _PROGRESS else failures + 1
                most = max(most, part.length)
                if not error.retry or failures >= ATTEMPTS:
                    raise
                logger.info("%s: %s; trying again", url, error)
                time.sleep(BACKOFF * 2 ** (failures - 1))

    def _check(self, part: Partial, resumed: bool) -> None:
        version = part.version
        # A continued file may be of two versions: then accepting other bytes accepts rubbish.
        strict = _Job(self.urls, self.target, self.size, self.sha256, False) if resumed else self
        reason = strict.defect(part.path)
        if reason is not None:
            part.discard()
            untold = version is None or version.total is None  # the server may have broken off
            raise TransferError(reason, retry=resumed or untold)


def _finish(part: Partial, target: Path) -> None:
    with open(part.path, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part.path, target)
    part.forget()


def is_offline(offline: bool | None = None) -> bool:
    """Whether the network is not to be used: as said, else as GCRL_OFFLINE says."""
    if offline is not None:
        return offline
    return os.environ.get("GCRL_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


@contextmanager
def _disk(target: Path) -> Iterator[None]:
    """Turn errors of the file system into one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot write {error.filename or target} ({error.strerror or error}); free some "
            "space, or name a folder that can be written with --data-dir or GCRL_DATA_DIR."
        ) from error


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of a target; the system frees that of a process that dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("Waiting for another process that downloads %s.", target)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
