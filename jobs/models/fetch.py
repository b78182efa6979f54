"""A base model from a Hugging Face Hub, by name: pinned to a commit, verified, and in place only when it is whole and usable.

Plain HTTP, so that every byte can be resumed; only the files that `jobs.models.inspect` allows, never pickled weights or code.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import GraftError, UserError
from jobs.models.inspect import INDEX, ModelFacts, fetched, inspect_model
from jobs.models.origin import Origin, write_origin

COMMIT = re.compile(r"[0-9a-f]{40}")
SINGLE = "model.safetensors"
SHARDS = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
BLOCK_BYTES = 4 << 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository at a commit; the hub gives a sha256 for large files, and git's own hash for all."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit: what there is to fetch."""

    repository: str
    commit: str
    licence: str
    files: Sequence[RemoteFile]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def fetch_model(
    repository: str, out: Path, *, revision: str | None = None, endpoint: str | None = None, progress: Progress | None = None
) -> tuple[Origin, ModelFacts]:
    """Downloads a model into the new folder `out`; returns its origin and its facts.

    A branch or tag is resolved to its commit first, and only that commit is read. A download that broke off is resumed by the next
    call, from a folder beside `out`. The token is `HF_TOKEN` of the environment, if any. `progress(done, total)` counts bytes.
    Raises `UserError` (`download`, `hub_unreachable`, `model_unusable`), `GraftError("disk_full")`.
    """
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # read when huggingface_hub is imported
    if out.exists():
        raise UserError("download", reason=f"{out} exists already")
    with _plain_errors(repository, out, endpoint or _default_endpoint()):
        snapshot = resolve(repository, revision, endpoint)
        part = _part_folder(out, snapshot.commit)
        _download(snapshot, part, endpoint, progress)
        shutil.rmtree(part / ".cache", ignore_errors=True)  # the client's own notes on what is complete
        try:
            _verify(snapshot, part)
            facts = inspect_model(part)
        except UserError:
            shutil.rmtree(part)  # what is complete and wrong would be wrong again
            raise
        origin = Origin(repository, snapshot.commit, snapshot.licence, f"{(endpoint or _default_endpoint()).rstrip('/')}/{repository}")
        write_origin(part, origin)
        part.rename(out)
    return origin, facts


def resolve(repository: str, revision: str | None = None, endpoint: str | None = None) -> Snapshot:
    """The repository's files at a revision (the default branch where None), pinned to its commit. Raises `UserError`."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint, token=_token()).model_info(repository, revision=revision, files_metadata=True)
    if not info.sha or not COMMIT.fullmatch(info.sha):
        raise UserError("download", reason=f"the hub does not say which commit {revision or 'the default branch'} is")
    files = [_remote_file(sibling) for sibling in info.siblings or [] if fetched(sibling.rfilename)]
    names = {file.name for file in files}
    if SINGLE in names:  # a loader reads the single file where there are both
        files = [file for file in files if file.name != INDEX and not SHARDS.fullmatch(file.name)]
    if not names & {SINGLE, INDEX}:
        raise UserError(
            "model_unusable", reason=f"{repository} has no weights in safetensors; pickled weights can run code and are never loaded"
        )  # fmt: skip
    card = info.card_data
    licence = str((card.get("license") if card else None) or "")
    return Snapshot(repository, info.sha, licence, files)


def _remote_file(sibling: Any) -> RemoteFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    return RemoteFile(sibling.rfilename, int(sibling.size or 0), sha256, None if sibling.lfs else sibling.blob_id)


def _token() -> str | bool:
    """The token of the environment, never one that lies on this machine for another purpose."""
    return os.environ.get("HF_TOKEN") or False


def _default_endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _part_folder(out: Path, commit: str) -> Path:
    """The folder of a download in the making; one of another commit is of no more use."""
    part = out.with_name(f".{out.name}.{commit}.part")
    for old in out.parent.glob(f".{out.name}.*.part"):
        if old != part:
            shutil.rmtree(old)
    part.mkdir(parents=True, exist_ok=True)
    return part


def _download(snapshot: Snapshot, part: Path, endpoint: str | None, progress: Progress | None) -> None:
    """Fetches every file, largest last; huggingface_hub resumes a file that was cut, here five times and at the next call."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import tqdm

    before = 0

    class Bar(tqdm):
        """The client's progress bar, unseen: it reports to `progress` instead."""

        def __init__(self, *_: Any, **options: Any) -> None:
            self.done = int(options.get("initial") or 0)
            super().__init__(disable=True)  # type: ignore[no-untyped-call]
            self.tell()

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            self.tell()

        def tell(self) -> None:
            if progress:
                progress(min(before + self.done, snapshot.size), snapshot.size)

    for file in sorted(snapshot.files, key=lambda file: file.size):
        hf_hub_download(
            snapshot.repository, file.name, revision=snapshot.commit, local_dir=part, endpoint=endpoint, token=_token(), tqdm_class=Bar
        )  # fmt: skip
        before += file.size
        if progress:
            progress(before, snapshot.size)


def _verify(snapshot: Snapshot, part: Path) -> None:
    """Every file's size and hash against what the hub said of the commit; all of it on the disk."""
    for expected in snapshot.files:
        path = part / expected.name
        size = path.stat().st_size
        digest = hashlib.sha256() if expected.sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
            os.fsync(file.fileno())
        wanted = expected.sha256 or expected.git_sha1
        if size != expected.size or (wanted and digest.hexdigest() != wanted):
            raise UserError("download", reason=f"{expected.name} is not what the hub says it should be; nothing of it is kept")


@contextmanager
def _plain_errors(repository: str, out: Path, endpoint: str) -> Iterator[None]:
    """The client's errors in words of ours."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise UserError(
            "download", reason=f"{repository} is gated: accept its terms on the hub and give a token that may read it"
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise UserError("download", reason=f"there is no model {repository!r}, or it is private and the token may not read it") from None
    except errors.RevisionNotFoundError:
        raise UserError("download", reason=f"{repository} has no such revision") from None
    except errors.OfflineModeIsEnabled:
        raise UserError("download", reason="this machine is set to work offline (HF_HUB_OFFLINE)") from None
    except (httpx2.TransportError, errors.LocalEntryNotFoundError) as failure:
        raise UserError("hub_unreachable", endpoint=endpoint, reason=_first_line(failure)) from failure
    except (errors.HfHubHTTPError, httpx2.HTTPError) as failure:
        raise UserError("download", reason=_first_line(failure)) from failure
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GraftError("disk_full", path=out) from failure
        raise UserError("download", reason=_first_line(failure)) from failure


def _first_line(failure: BaseException) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0][:300]
