"""A folder on disk that is either whole or not there, whenever the process dies."""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Fill the folder that is yielded; on success it takes the place of ``target``, otherwise it is removed.

    What a killed process left half-made is removed first, so only one process at a time may write one target.

    Args:
        target: where the folder will be; an older one is replaced.

    Example:
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with whole_folder(Path(parent, "adapter")) as folder:
        ...         _ = (folder / "weights").write_text("1")
        ...     os.listdir(parent)
        ['adapter']
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(left)
    # In the same parent, because a rename is atomic only within one file system.
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield folder
        folder.chmod(0o777 & ~_umask())  # mkdtemp makes it private
        for path in (*folder.rglob("*"), folder):
            _sync(path)
        if target.exists() and not _exchange(folder, target):
            shutil.rmtree(target)
        if not target.exists():
            folder.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(
            folder, ignore_errors=True
        )  # the half-made one, or the older one after an exchange


def _umask() -> int:
    os.umask(now := os.umask(0))
    return now


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system cannot."""
    try:
        swap = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of linux/fs.h
    return bool(swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)
