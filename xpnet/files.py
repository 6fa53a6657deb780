"""Files that are written whole, and folders that one process at a time writes to."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from xpnet.errors import UsageError

__all__ = [
    "leftovers", "locked", "make_folder", "open_regular", "remove", "replacing", "sync",
    "write_whole",
]  # fmt: skip

Path_ = str | os.PathLike[str]
# What a file system answers that cannot sync or lock, rather than that it has failed to.
CANNOT = {
    errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP,
    errno.EOPNOTSUPP, errno.EPERM, errno.EROFS,
}  # fmt: skip


def write_whole(path: Path_, text: str) -> None:
    """Replace a file by a text, whole or not at all; see `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path_) -> Iterator[BinaryIO]:
    """A file to write and read, which takes the place of `path` when the block ends.

    Nobody ever reads half of it: after a crash or a power cut, `path` holds the old file or the
    new one, and after the block it is the new one. What a link leads to is replaced; a device or
    a pipe is written to.

    Raises
    ------
    OSError
        With the name `path`. The old file is untouched, and no temporary is left.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():  # a folder fails by itself
            with open(target, "wb") as file:
                yield file
            return
        temporary = target.parent / f".{target.name[:40]}.{secrets.token_hex(16)}.tmp"
        # O_EXCL follows no link. The mode of a new file follows the umask by itself.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666)
        try:
            with open(descriptor, "w+b") as file:
                yield file
                file.flush()
                with _where_possible():
                    os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync(target.parent)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def sync(path: Path_) -> None:
    """Bring a file, or the names in a folder, to the disk, where the file system can."""
    with _where_possible():
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _where_possible() -> Iterator[None]:
    """Pass over what a file system cannot do, but not over what it has failed to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT:
            raise


def make_folder(folder: Path_) -> list[Path]:
    """Make a folder and those above it that are missing; returns the new ones, outermost first."""
    made = []
    for path in (*reversed(Path(folder).parents), Path(folder)):
        if path.is_dir():
            continue
        with suppress(FileExistsError):  # another process made it at this moment
            path.mkdir()
            made.append(path)
            sync(path.parent)
    if not Path(folder).is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    return made


def remove(path: Path_) -> None:
    """Remove a file, if it is there, so that it stays away after a power cut."""
    with suppress(FileNotFoundError):
        os.unlink(path)
        sync(Path(path).parent)


def leftovers(folder: Path_, name: str) -> list[Path]:
    """What `replacing` left of a file, by name or pattern, when its process was killed.

    Ask only for a folder that you hold (`locked`): elsewhere, its process may be at work.
    """
    return list(Path(folder).glob(f".{name}.{'[0-9a-f]' * 32}.tmp"))


@contextmanager
def locked(folder: Path_) -> Iterator[None]:
    """Hold a folder while the block runs, so that no other process that asks holds it too.

    The system takes the lock from a process that ends, however it ends; no file is written.

    Raises
    ------
    UsageError
        Another process, or another training of this one, holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{folder}: another process trains into this folder; wait until it ends, or stop it"
            ) from None
        except OSError as error:
            if error.errno not in CANNOT:
                raise
            warnings.warn(
                f"{folder}: this file system cannot lock ({error.strerror}): let no other process "
                "train into this folder",
                RuntimeWarning,
                stacklevel=3,
            )
        yield
    finally:
        os.close(descriptor)


def open_regular(path: Path_) -> BinaryIO:
    """Open a file to read; what may never end, a pipe or a device, is refused.

    Raises
    ------
    OSError
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "Not a regular file", str(path))
