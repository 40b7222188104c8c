"""Publishes a release to the Hub: two repositories, private by default, gated if malign."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bestiary.dataset.manifest import PARTS, list_part
from bestiary.dataset.schema import scan_config
from bestiary.dataset.verify import verify_release
from bestiary.errors import ReleaseError
from bestiary.release.links import link_tree
from bestiary.release.manifest import name_repositories, pin_manifest
from bestiary.store import disk_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPO_TYPES = {"dataset": "dataset", "organisms": "model"}
STALE = "*/*"
"""Deletes what earlier releases had in folders; pages at the top of a repository stay."""


def publish_release(
    folder: Path,
    *,
    dataset_repo: str,
    model_repo: str,
    private: bool = True,
    dry_run: bool = False,
    token: str | None = None,
) -> list[str]:
    """Upload a release, one commit per repository, and return the addresses of both commits.

    The release itself is never changed: cards and manifest that name the repositories are written
    in a staged copy. A dry run returns both trees as lines and touches no network. Raises
    ReleaseError if the release is damaged, if the Hub refuses, or if malign behaviors would become
    public in a repository that is not gated.
    """
    if dataset_repo == model_repo:
        raise ReleaseError(
            f"{dataset_repo!r} is named for both the dataset and the models, and each needs its "
            "own repository",
            "give the models another",
            code="repository-shared",
            repo=dataset_repo,
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
    with _stage(folder) as staged:
        name_repositories(staged, repos)
        revision = _upload(api, staged, "organisms", model_repo)
        pin_manifest(staged, model_repo=model_repo, revision=revision)
        pinned = _upload(api, staged, "dataset", dataset_repo)
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
        "malign" in scan_config(folder / "dataset", config).select("severity").collect()["severity"]
        for config in ("pairs", "controls", "withheld")
    )


@contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    """A copy of a release for the time of an upload, beside it so that files can be hard-linked."""
    with disk_errors(folder.parent, elsewhere="move the release to a folder that can be written"):
        staging = TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.publish-")
    with staging as root:
        staged = Path(root) / "release"
        with disk_errors(staged):
            for part in PARTS:
                link_tree(folder / part, staged / part)
        yield staged


def _list_tree(folder: Path, part: str, repo: str, access: str) -> Iterator[str]:
    yield f"{part}/ -> {repo} ({REPO_TYPES[part]} repository, {access})"
    for name, path in list_part(folder / part, part):
        yield f"  {name.removeprefix(part + '/')}  {path.stat().st_size:,} bytes"


def _prepare_repo(api: HfApi, repo: str, kind: str, *, private: bool, gated: bool) -> None:
    """Create the repository and restrict access before uploading anything.

    A gated repository stays private until the gate and the files are in place.
    """
    hidden = private or gated
    api.create_repo(repo, repo_type=kind, private=hidden, exist_ok=True)
    api.update_repo_settings(
        repo, repo_type=kind, private=hidden, gated="manual" if gated else None
    )


def _open_gated_repo(api: HfApi, repo: str, kind: str) -> None:
    """Make a repository public once the Hub confirms that it is gated."""
    if not api.repo_info(repo, repo_type=kind).gated:
        raise ReleaseError(
            f"{repo} holds malign behaviors and is not gated, so it stays private",
            "turn on access requests in its settings on the Hub, then publish again",
            code="repository-not-gated",
            repo=repo,
        )
    api.update_repo_settings(repo, repo_type=kind, private=False)


def _upload(api: HfApi, folder: Path, part: str, repo: str) -> str:
    """Upload one folder as it is; returns the commit that holds it."""
    with _hub_errors(repo), warnings.catch_warnings():
        # The client recommends another of its functions for large folders; users cannot act on it.
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
            f"{repo!r} is not a repository name ({cause})",
            "write it as OWNER/NAME",
            code="repository-name",
            repo=repo,
        ) from cause
    except LocalTokenNotFoundError as cause:
        raise ReleaseError(
            f"{repo}: no Hub token is set", _TOKEN_REMEDY, code="hub-token-missing", repo=repo
        ) from cause
    except HfHubHTTPError as cause:
        status = cause.response.status_code
        raise ReleaseError(
            f"{repo}: the Hub answered {status} ({cause})",
            _REMEDIES.get(status, "publish again later: what was uploaded is kept"),
            code="hub-refused",
            repo=repo,
            status=status,
        ) from cause
    except (httpx2.HTTPError, OSError) as cause:
        reason = f"{type(cause).__name__}: {cause}"
        raise ReleaseError(
            f"{repo}: the Hub cannot be reached ({reason})",
            "check the network and HF_ENDPOINT, then publish again: what was uploaded is kept",
            code="hub-unreachable",
            repo=repo,
            reason=reason,
        ) from cause


_TOKEN_REMEDY = "set HF_TOKEN to a token that may write to it, or run `hf auth login`"
_REMEDIES = {
    401: f"the token is missing or wrong: {_TOKEN_REMEDY}",
    403: "the token may not write there: check its permissions and the owner's name",
    404: "check the owner's name and that the token may see the repository",
    429: "too many requests: wait five minutes and publish again",
}
