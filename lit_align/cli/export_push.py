"""``lit-align export --push``: upload an exported folder to the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_align.errors import ConfigError


def check_hub_access(name: str) -> None:
    """Ask the hub who the token belongs to, before a model is loaded.

    Args:
        name: of the repository.

    Raises:
        ConfigError: if the name cannot be one, the hub does not answer, or there is no valid token.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with _hub_errors(f"--push {name}: "):
        validate_repo_id(name)
        HfApi().whoami()


def push(folder: Path, name: str, message: str) -> str:
    """Upload a folder as one model repository, which is private if it did not exist; returns its address.

    Args:
        folder: what to upload.
        name: of the repository.
        message: of the commit.

    Raises:
        ConfigError: if the hub refuses; the folder stays.
    """
    from huggingface_hub import HfApi

    with _hub_errors(f"{folder} is written and was not pushed to {name}: "):
        api = HfApi()
        repository = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message=message)
        return str(repository)


@contextmanager
def _hub_errors(start: str) -> Iterator[None]:
    """Turn the errors of the hub's client into one sentence."""
    from httpx2 import HTTPError

    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0].rstrip(".")
        raise ConfigError(
            f"{start}{reason}; log in with `hf auth login` or set HF_TOKEN, and name a repository that you may write "
            "to, as in you/model"
        ) from error
