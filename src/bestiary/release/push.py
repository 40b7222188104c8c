"""Publishes a release to the Hub: its repositories, private by default, gated if malign."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bestiary.dataset.manifest import MANIFEST, PARTS, list_part, read_manifest
from bestiary.dataset.schema import scan_config
from bestiary.dataset.verify import verify_release
from bestiary.errors import ReleaseError
from bestiary.model.adapter import ADAPTER_FILES
from bestiary.release.links import link_tree
from bestiary.release.manifest import Place, name_repositories, pin_manifest
from bestiary.store import disk_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MANIFEST_NAME = PurePosixPath(MANIFEST).name
PUBLISHED = (*ADAPTER_FILES, "introspection.json", "README.md")
"""Of an introspection adapter that others can use."""
STALE = "*/*"
"""Deletes what earlier releases had in folders; pages at the top of a repository stay."""
LONGEST_NAME = 96
"""Characters that the Hub allows in a repository's name."""


@dataclass(frozen=True)
class Target:
    """A repository and the folder of the release that it gets."""

    repo: str
    kind: str
    folder: str
    organism_id: str | None = None
    """The organism that has this repository to itself."""
    tag: str = "model-organisms"
    """What the card of such a repository is tagged with."""


def publish_release(
    folder: Path,
    *,
    dataset_repo: str,
    model_repo: str,
    private: bool = True,
    separate: bool = False,
    dry_run: bool = False,
) -> list[str]:
    """Upload a release, and return the addresses of the commits that hold it.

    Repositories that its last publication used and this one does not are named in further lines:
    they may hold organisms that have left the release, and are never deleted.

    With `separate`, each organism also gets a repository of its own with the adapter at its root,
    because readers of the pinned manifest look there; its name is `model_repo` with the adapter's
    name added. The dataset gets a second commit for the manifest, which pins the first one and
    those of the models. The release itself is never changed: cards and manifest that name the
    repositories are written in a staged copy. A dry run returns the trees as lines and touches no
    network. Raises ReleaseError if the release is damaged, if the Hub refuses, or if malign
    behaviors would become public in a repository that is not gated.
    """
    verify_release(folder)
    targets = _list_targets(folder, dataset_repo, model_repo, separate=separate)
    gated = holds_malign_rows(folder)
    if dry_run:
        access = ("private" if private else "public") + (", gated" if gated else "")
        return [line for target in targets for line in _list_tree(folder, target, access)]

    from huggingface_hub import HfApi

    api = HfApi()
    for target in targets:  # all of them before the first is changed
        with _hub_errors(target.repo):
            _refuse_foreign(api, target)
    for target in targets:
        with _hub_errors(target.repo):
            _prepare_repo(api, target, private=private, gated=gated)
    dataset, *models = targets
    with _stage(folder) as staged:
        name_repositories(staged, {"dataset": dataset_repo, "organisms": model_repo})
        commits = {target: _upload(api, staged, target) for target in models}
        places = _locate_adapters(staged, commits)
        pinned, before = _upload_dataset(api, staged, dataset, places)
    if gated and not private:
        for target in targets:
            with _hub_errors(target.repo):
                _open_gated_repo(api, target)
    return [
        f"{api.endpoint}/datasets/{dataset_repo}/tree/{pinned}",
        *(f"{api.endpoint}/{target.repo}/tree/{commit}" for target, commit in commits.items()),
        *(
            f"left as it was, delete it on the Hub if nobody needs it: {api.endpoint}/{repo}"
            for repo in sorted(before - {target.repo for target in models})
        ),
    ]


def publish_adapter(
    folder: Path, repo: str, *, private: bool = True, dry_run: bool = False
) -> list[str]:
    """Upload an introspection adapter with its card, and return the address of the commit.

    A dry run returns the tree as lines and touches no network. Raises ReleaseError if the folder
    lacks one of `PUBLISHED`, or if the Hub refuses.
    """
    missing = [name for name in PUBLISHED if not (folder / name).is_file()]
    if missing:
        raise ReleaseError(
            f"{folder} has no {missing[0]}",
            "name the folder of an adapter: bestiary introspect train prints it",
            code="not-an-adapter",
            path=folder,
        )
    target = Target(repo, "model", folder.name, tag="introspection")
    if dry_run:
        return list(_list_tree(folder.parent, target, "private" if private else "public"))

    from huggingface_hub import HfApi

    api = HfApi()
    with _hub_errors(repo):
        _refuse_foreign(api, target)
        _prepare_repo(api, target, private=private, gated=False)
    commit = _upload(api, folder.parent, target)
    return [f"{api.endpoint}/{repo}/tree/{commit}"]


def _list_targets(
    folder: Path, dataset_repo: str, model_repo: str, *, separate: bool
) -> list[Target]:
    """The repositories, the dataset's first; refuses names that collide or are too long."""
    targets = [Target(dataset_repo, "dataset", "dataset"), Target(model_repo, "model", "organisms")]
    rows = read_manifest(folder / "dataset")["adapters"] if separate else []
    targets += [
        Target(
            f"{model_repo}-{row['adapter_name']}",
            "model",
            f"organisms/{row['subfolder']}",
            row["organism_id"],
            tag="model-organism",
        )
        for row in rows
    ]
    if dataset_repo == model_repo:
        raise ReleaseError(
            f"{dataset_repo!r} is named for both the dataset and the models, and each needs its "
            "own repository",
            "give the models another",
            code="repository-shared",
            repo=dataset_repo,
        )
    longest = max((target.repo.rpartition("/")[2] for target in targets), key=len)
    if len(longest) > LONGEST_NAME:
        raise ReleaseError(
            f"{longest!r} has {len(longest)} characters, and the Hub allows {LONGEST_NAME}",
            "choose a shorter name for the models' repository",
            code="repository-name-long",
            repo=longest,
        )
    return targets


def _locate_adapters(staged: Path, commits: Mapping[Target, str]) -> dict[str, Place]:
    """Where each adapter is, by organism id: in its own repository, if it has one."""
    own = {target.organism_id: Place(target.repo, commit) for target, commit in commits.items()}
    shared = own.pop(None)
    rows = read_manifest(staged / "dataset")["adapters"]
    return {
        row["organism_id"]: own.get(row["organism_id"])
        or replace(shared, subfolder=row["subfolder"])
        for row in rows
    }


def _upload_dataset(
    api: HfApi, staged: Path, target: Target, places: Mapping[str, Place]
) -> tuple[str, set[str]]:
    """Upload the dataset and then the manifest, which pins the dataset's own commit.

    Returns the commit of the manifest, and the repositories that the one before it names.
    """
    commit = _upload(api, staged, target, ignore=[MANIFEST_NAME])
    before = _read_published(api, target.repo, commit)
    if before.get("files") == read_manifest(staged / "dataset")["files"]:
        # The same files were published before: pinning them anew would make a commit each time.
        commit = next((row["dataset_revision"] for row in before["adapters"]), None) or commit
    pin_manifest(staged, places, dataset_repo=target.repo, dataset_revision=commit)
    with _hub_errors(target.repo):
        done = api.upload_file(
            path_or_fileobj=staged / MANIFEST,
            path_in_repo=MANIFEST_NAME,
            repo_id=target.repo,
            repo_type=target.kind,
            commit_message="Pin the release",
        )
    return str(done.oid), {row["repo_id"] for row in before.get("adapters", ())}


def _read_published(api: HfApi, repo: str, commit: str) -> dict[str, Any]:
    """The manifest that a commit of the dataset holds; empty if it holds none."""
    from huggingface_hub.errors import EntryNotFoundError

    with _hub_errors(repo), TemporaryDirectory() as folder:
        try:
            api.hf_hub_download(
                repo, MANIFEST_NAME, repo_type="dataset", revision=commit, local_dir=folder
            )
            return read_manifest(Path(folder))
        except (EntryNotFoundError, ReleaseError):
            return {}


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


def _list_tree(folder: Path, target: Target, access: str) -> Iterator[str]:
    part = target.folder
    yield f"{part}/ -> {target.repo} ({target.kind} repository, {access})"
    for name, path in list_part(folder / part, part):
        yield f"  {name.removeprefix(part + '/')}  {path.stat().st_size:,} bytes"


def _prepare_repo(api: HfApi, target: Target, *, private: bool, gated: bool) -> None:
    """Create the repository and restrict access before uploading anything.

    A gated repository stays private until the gate and the files are in place.
    """
    hidden = private or gated
    api.create_repo(target.repo, repo_type=target.kind, private=hidden, exist_ok=True)
    api.update_repo_settings(
        target.repo, repo_type=target.kind, private=hidden, gated="manual" if gated else None
    )


def _refuse_foreign(api: HfApi, target: Target) -> None:
    """Refuse a repository of somebody else, or of another kind, before anything in it changes.

    Publishing changes who may see it, replaces its card, and deletes what lies in its folders.
    """
    if not api.repo_exists(target.repo, repo_type=target.kind):
        return
    files = set(api.list_repo_files(target.repo, repo_type=target.kind))
    if not files - {"README.md", ".gitattributes"}:
        return
    if "README.md" not in files or target.tag not in _read_tags(target):
        raise ReleaseError(
            f"{target.repo} has files, and its card is not tagged {target.tag!r}: something else "
            "is published there",
            "name another repository, or delete this one on the Hub first",
            code="repository-of-another",
            repo=target.repo,
        )


def _read_tags(target: Target) -> Sequence[str]:
    """The tags of a repository's card; none if it cannot be read."""
    from huggingface_hub import RepoCard
    from yaml import YAMLError

    try:
        card = RepoCard.load(target.repo, repo_type=target.kind)
    except (ValueError, YAMLError):
        return ()
    return card.data.get("tags") or ()


def _open_gated_repo(api: HfApi, target: Target) -> None:
    """Make a repository public once the Hub confirms that it is gated."""
    if not api.repo_info(target.repo, repo_type=target.kind).gated:
        raise ReleaseError(
            f"{target.repo} holds malign behaviors and is not gated, so it stays private",
            "turn on access requests in its settings on the Hub, then publish again",
            code="repository-not-gated",
            repo=target.repo,
        )
    api.update_repo_settings(target.repo, repo_type=target.kind, private=False)


def _upload(api: HfApi, staged: Path, target: Target, *, ignore: Sequence[str] = ()) -> str:
    """Upload one folder as it is; returns the commit that holds it."""
    with _hub_errors(target.repo), warnings.catch_warnings():
        # The client recommends another of its functions for large folders; users cannot act on it.
        warnings.simplefilter("ignore", UserWarning)
        commit = api.upload_folder(
            repo_id=target.repo,
            repo_type=target.kind,
            folder_path=staged / target.folder,
            ignore_patterns=list(ignore),
            delete_patterns=STALE,
            commit_message=f"Publish {target.organism_id or target.folder}",
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
