"""Folders and files on disk that are either complete or as they were before, whenever the process dies."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp"
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of linux/fs.h


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it takes the place of ``target``, otherwise it is removed.

    Temporary folders of a killed process are removed first.

    Args:
        target: path of the folder; an existing one is replaced.

    Example:
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with atomic_folder(Path(parent, "adapter")) as folder:
        ...         _ = (folder / "weights").write_text("1")
        ...     os.listdir(parent)
        ['adapter']
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent, f".{target.name}.*{TEMPORARY}")
    # In the same parent, because a rename is atomic only within one file system.
    prefix, suffix = f".{target.name}.", f".{os.getpid()}{TEMPORARY}"
    folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=target.parent))
    try:
        yield folder
        folder.chmod(0o777 & ~_umask())  # mkdtemp makes it private
        for path in (*folder.rglob("*"), folder):
            sync_to_disk(path)
        if target.exists() and not _exchange(folder, target):
            shutil.rmtree(target)
        if not target.exists():
            folder.rename(target)
        sync_to_disk(target.parent)
    finally:
        # the incomplete one, or the older one after an exchange
        shutil.rmtree(folder, ignore_errors=True)


def replace_file(path: Path, text: str) -> None:
    """Write a text file; who reads it sees the one before or this one, never a part.

    Args:
        path: of the file, in a folder that exists.
        text: its content.

    Example:
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     replace_file(Path(parent, "page"), "new")
        ...     os.listdir(parent), Path(parent, "page").read_text()
        (['page'], 'new')
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        temporary.write_text(text, "utf-8", newline="\n")
        sync_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_abandoned(parent: Path, pattern: str) -> None:
    """Remove the temporary files and folders of processes that no longer run.

    Args:
        parent: the folder that they are in.
        pattern: of their names, which end in the number of their process and ``.tmp``.
    """
    for path in parent.glob(pattern):
        number = path.name.removesuffix(TEMPORARY).rpartition(".")[2]
        if number.isdigit() and _is_running(int(number)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether another process has this number; this one writes nothing when it cleans up."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the list of files in a folder, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(folder: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    source, target = os.fsencode(folder), os.fsencode(other)
    return bool(renameat2(AT_FDCWD, source, AT_FDCWD, target, RENAME_EXCHANGE) == 0)
