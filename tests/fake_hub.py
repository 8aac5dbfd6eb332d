"""A folder that stands in for the Hugging Face Hub, so that nothing leaves the machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


class Hub:
    """Keeps what is uploaded in a folder, and serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[dict[str, Any]] = []

    def __call__(self, token: str | None = None) -> Hub:
        return self

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        return type("Repo", (), {"repo_id": repo_id})

    def upload_folder(self, repo_id: str, folder_path: Path, **options: Any) -> str:
        shutil.copytree(folder_path, self.folder / repo_id)
        return repo_id

    def snapshot_download(self, repo: str, **options: Any) -> str:
        self.asked.append(options)
        return str(self.folder / repo)
