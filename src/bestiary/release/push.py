"""Publishes a release to the Hub: two repositories, private by default, gated where it must be."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.errors import ReleaseError
from bestiary.release.features import read_config
from bestiary.release.manifest import PARTS, list_part, name_repositories, pin_manifest
from bestiary.release.verify import verify_release

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPO_TYPES = {"dataset": "dataset", "organisms": "model"}
STALE = "*/*"
"""What older releases had in folders goes; a page that somebody put beside them stays."""


def publish_release(
    folder: Path,
    *,
    dataset_repo: str,
    model_repo: str,
    private: bool = True,
    dry_run: bool = False,
    token: str | None = None,
) -> list[str]:
    """Upload a release and return where its two parts lie.

    A dry run returns both trees as lines and touches no network. Raises ReleaseError when the
    release is damaged, when the Hub refuses, or when malign behaviors would become public in a
    repository that is not gated.
    """
    if dataset_repo == model_repo:
        raise ReleaseError(
            f"{dataset_repo!r} is named for both the dataset and the models; cards tell the two "
            "apart by name, so give the models another"
        )
    verify_release(folder)
    gated = holds_malign_rows(folder)
    repos = {"dataset": dataset_repo, "organisms": model_repo}
    if dry_run:
        access = ("private" if private else "public") + (", gated" if gated else "")
        return [line for part in PARTS for line in _list_tree(folder, part, repos[part], access)]

    from huggingface_hub import HfApi

    api = HfApi(token=token)
    for part in PARTS:
        with _hub_errors(repos[part]):
            _prepare_repo(api, repos[part], REPO_TYPES[part], private=private, gated=gated)
    name_repositories(folder, repos)
    revision = _upload(api, folder, "organisms", model_repo)
    pin_manifest(folder, model_repo=model_repo, revision=revision)
    pinned = _upload(api, folder, "dataset", dataset_repo)
    if gated and not private:
        for part in PARTS:
            with _hub_errors(repos[part]):
                _open_gated_repo(api, repos[part], REPO_TYPES[part])
    return [
        f"{api.endpoint}/datasets/{dataset_repo}/tree/{pinned}",
        f"{api.endpoint}/{model_repo}/tree/{revision}",
    ]


def holds_malign_rows(folder: Path) -> bool:
    """Whether a malign behavior is in a release, published or withheld."""
    return any(
        row["severity"] == "malign"
        for config in ("pairs", "controls", "withheld")
        for row in read_config(folder / "dataset", config)
    )


def _list_tree(folder: Path, part: str, repo: str, access: str) -> Iterator[str]:
    yield f"{part}/ -> {repo} ({REPO_TYPES[part]} repository, {access})"
    for name, path in list_part(folder / part, part):
        yield f"  {name.removeprefix(part + '/')}  {path.stat().st_size:,} bytes"


def _prepare_repo(api: HfApi, repo: str, kind: str, *, private: bool, gated: bool) -> None:
    """Make the repository and set who may see it, before anything is in it.

    What must be gated stays private until the gate is up and the files are there.
    """
    hidden = private or gated
    api.create_repo(repo, repo_type=kind, private=hidden, exist_ok=True)
    api.update_repo_settings(
        repo, repo_type=kind, private=hidden, gated="manual" if gated else None
    )


def _open_gated_repo(api: HfApi, repo: str, kind: str) -> None:
    """Make a repository public once the Hub itself says that it is gated."""
    if not api.repo_info(repo, repo_type=kind).gated:
        raise ReleaseError(
            f"{repo} holds malign behaviors and is not gated, so it stays private; turn on access "
            "requests in its settings on the Hub, then publish again"
        )
    api.update_repo_settings(repo, repo_type=kind, private=False)


def _upload(api: HfApi, folder: Path, part: str, repo: str) -> str:
    """Upload one folder as it is; returns the commit that holds it."""
    with _hub_errors(repo), warnings.catch_warnings():
        # The client advises another of its functions for large folders; nothing a user can act on.
        warnings.simplefilter("ignore", UserWarning)
        commit = api.upload_folder(
            repo_id=repo,
            repo_type=REPO_TYPES[part],
            folder_path=folder / part,
            delete_patterns=STALE,
            commit_message=f"Publish {part}",
        )
    return str(commit.oid)


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Turn the Hub's refusals into errors that say what to do."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        yield
    except HFValidationError as cause:
        raise ReleaseError(
            f"{repo!r} is no repository name ({cause}); write it as OWNER/NAME"
        ) from cause
    except LocalTokenNotFoundError as cause:
        raise ReleaseError(f"{repo}: no token of the Hub is set; {_TOKEN_REMEDY}") from cause
    except HfHubHTTPError as cause:
        status = cause.response.status_code
        remedy = _REMEDIES.get(status, "publish again later: what was uploaded is kept")
        raise ReleaseError(f"{repo}: the Hub answered {status} ({cause}); {remedy}") from cause
    except (httpx2.HTTPError, OSError) as cause:
        raise ReleaseError(
            f"{repo}: the Hub cannot be reached ({type(cause).__name__}: {cause}); check the "
            "network and HF_ENDPOINT, then publish again: what was uploaded is kept"
        ) from cause


_TOKEN_REMEDY = "set HF_TOKEN to a token that may write to it, or run `hf auth login`"
_REMEDIES = {
    401: f"the token is missing or wrong: {_TOKEN_REMEDY}",
    403: "the token may not write there: check its permissions and the owner's name",
    404: "check the owner's name and that the token may see the repository",
    429: "too many requests: wait five minutes and publish again",
}
