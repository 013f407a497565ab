"""Bundles on a model hub and in folders, by `huggingface_hub`.

model.save_pretrained("bundle")
model.push_to_hub("me/my-face")
model = a2f.Model.from_pretrained("me/my-face")
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from a2fjax.api import runs
from a2fjax.api.export import export
from a2fjax.bundle import manifest
from a2fjax.errors import InputError, WorkFailed

if TYPE_CHECKING:
    from a2fjax.api.model import Model
    from a2fjax.api.training import Run

T = TypeVar("T")


def fetch(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> Path:
    """Returns the folder of a bundle, downloaded if `name` is not a folder.

    Args:
      name: folder, or "owner/repository" on the hub.
      revision: branch, tag or commit; None for the newest.
      token: of the hub; None for the stored one.
      cache_dir: of downloads; None for the hub's default.
      local_files_only: use what was downloaded before.
      endpoint: URL of the hub; None for the default one.

    Raises:
      InputError: no such folder or repository, no permission, no network, or not a bundle.
    """
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        path = _hub(
            f"{name}: not a folder, and not on the hub",
            InputError,
            lambda: snapshot_download(
                str(name),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                endpoint=endpoint,
                library_name="a2fjax",
            ),
        )
        folder = Path(path)
    manifest.read(folder)
    return folder


def push(
    run: str | Path | Run | Model,
    repository: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
    message: str = "Upload a bundle of a2fjax",
    endpoint: str | None = None,
    **options: Any,
) -> str:
    """Uploads a run as a bundle, or a bundle as it is, and returns the URL of the commit.

    Args:
      run: folder of a run or a bundle, `Run` or `Model`.
      repository: "owner/repository"; made if it does not exist.
      private: whether a new repository is private.
      token: of the hub; None for the stored one.
      revision: branch; None for the main one.
      message: of the commit.
      endpoint: URL of the hub; None for the default one.
      **options: of `a2fjax.api.export.export`; not for a bundle, which is uploaded as it is.

    Raises:
      InputError: a changed bundle, or as `export`.
      WorkFailed: the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token, library_name="a2fjax")
    with tempfile.TemporaryDirectory() as temporary:
        chosen = runs.choose(run).run
        if manifest.is_bundle(chosen):
            if options:
                raise InputError(f"{chosen}: is a bundle, uploaded as it is; leave out {options}")
            manifest.verify(chosen)
            folder = chosen
        else:
            folder = export(run, Path(temporary) / "bundle", **options)

        def upload() -> str:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, revision=revision, commit_message=message
            )
            return str(commit.commit_url)

        return _hub(f"{repository}: could not be uploaded", WorkFailed, upload)


def _hub(what: str, kind: type[Exception], call: Callable[[], T]) -> T:
    """Returns what `call` does; the hub's errors become one line."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - clients of the hub fail in many ways
        why = " ".join(str(error).split())
        raise kind(f"{what} ({why[:300]})") from None
