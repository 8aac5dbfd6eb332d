"""Models on the Hugging Face Hub: the same folder as on disk."""

from __future__ import annotations

from pathlib import Path

from ssdir.errors import InputError

PREFIX = "hf://"
"""Prefix of the names of models on the Hub; it is required, so that a mistyped folder is never looked up there."""

FILES = ("config.json", "model.safetensors", "README.md")


def is_on_hub(name: str) -> bool:
    """Returns whether a name is of a model on the Hub."""
    return name.startswith(PREFIX)


def fetch_model(
    name: str,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Downloads a model, unless it is in the cache, and returns its folder.

    Args:
        name: `user/name` or `hf://user/name`.
        revision: branch, tag or commit.
        token: access token of the Hub, for private models.
        cache_dir: folder of downloads; None for the Hub's own.
        force_download: download the model even if it is in the cache.
        local_files_only: use only the cache.

    Raises:
        InputError: if there is no such model, it isn't one of ssdir's, or the Hub can't be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo = name.removeprefix(PREFIX)
    out_of_reach: tuple[type[Exception], ...] = (OfflineModeIsEnabled, EntryNotFoundError, *_no_connection())
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            allow_patterns=list(FILES),
        )
    except HFValidationError:
        raise InputError(f"'{name}' is not a name of the Hub: expected {PREFIX}USER/NAME") from None
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = f"revision '{revision}'" if isinstance(error, RevisionNotFoundError) else "public model"
        raise InputError(f"the Hub has no {what} '{repo}': check the name, or log in with hf auth login") from None
    except out_of_reach:
        raise InputError(
            f"'{repo}' can't be fetched: the Hub is out of reach, and there is no copy in the cache; "
            "give the folder of a copy instead"
        ) from None
    except HfHubHTTPError as error:
        raise InputError(f"'{repo}' can't be fetched: the Hub answered {error.response.status_code}") from None
    return Path(folder)


def _no_connection() -> tuple[type[Exception], ...]:
    """Returns the errors of the Hub's client without a network: httpx's, or requests' (which are OSErrors)."""
    try:
        from httpx import TransportError
    except ImportError:
        return (OSError,)
    return TransportError, ConnectionError
