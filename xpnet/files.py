"""Write files atomically, and reserve a folder for one process at a time."""

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

from xpnet.errors import UsageError, one_line

__all__ = [
    "leftovers", "locked", "make_folder", "open_regular", "remove", "replacing", "sync",
    "write_whole",
]  # fmt: skip

Path_ = str | os.PathLike[str]
# A file system answers with these errors if it does not support syncing or locking at all.
CANNOT = {
    errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP,
    errno.EOPNOTSUPP, errno.EPERM, errno.EROFS,
}  # fmt: skip


def write_whole(path: Path_, text: str) -> None:
    """Replace a file's content by a text, completely or not at all; see `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path_) -> Iterator[BinaryIO]:
    """Open a file for writing and reading that replaces `path` when the block ends.

    Nobody ever reads a half-written file: after a crash or a power cut, `path` holds the old file
    or the new one; after the block, it holds the new one. If `path` is a link, the file that it
    leads to is replaced. If it is a device or a pipe, the block writes straight into it.

    Raises
    ------
    OSError
        The error names `path`. The old file is unchanged, and no temporary file remains.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():  # a folder fails by itself
            with open(target, "wb") as file:
                yield file
            return
        temporary = target.parent / f".{target.name[:40]}.{secrets.token_hex(16)}.tmp"
        # O_EXCL follows no link. The system applies the umask to the mode.
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
    """Flush a file, or the names in a folder, to the disk, if the file system supports it."""
    with _where_possible():
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _where_possible() -> Iterator[None]:
    """Ignore that a file system does not support an operation, but not that the operation fails."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT:
            raise


def make_folder(folder: Path_) -> list[Path]:
    """Make a folder and its missing parents; return the new folders, outermost first.

    Raises
    ------
    OSError
        The system refuses, or a file is in the way.
    """
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
    """Remove a file, if it exists, so that it does not return after a power cut."""
    with suppress(FileNotFoundError):
        os.unlink(path)
        sync(Path(path).parent)


def leftovers(folder: Path_, name: str) -> list[Path]:
    """Return the temporary files that killed processes left in `replacing`, by name or pattern.

    Call this only while you hold the folder (`locked`); otherwise, a process may still write them.
    """
    return list(Path(folder).glob(f".{name}.{'[0-9a-f]' * 32}.tmp"))


@contextmanager
def locked(folder: Path_) -> Iterator[None]:
    """Lock a folder while the block runs; a second call of `locked` then fails.

    The system releases the lock when the process ends, however it ends. The lock needs no file.

    Raises
    ------
    UsageError
        Another process, or another training in this process, holds the folder.
    OSError
        The folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        taken = UsageError(
            f"{folder}: another process trains into this folder; wait until it ends, or stop it"
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one that held it may have been refused, and have removed the folder that it made.
            if not _is_at(descriptor, folder):
                raise taken
        except BlockingIOError:
            raise taken from None
        except OSError as error:
            if error.errno not in CANNOT:
                raise
            warnings.warn(
                one_line(
                    f"{folder}: this file system cannot lock ({error.strerror}); make sure that no "
                    "other process trains into this folder"
                ),
                RuntimeWarning,
                stacklevel=3,
            )
        yield
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, folder: Path_) -> bool:
    """Whether the open folder is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except FileNotFoundError:
        return False


def open_regular(path: Path_) -> BinaryIO:
    """Open a regular file for reading; refuse a pipe or a device, because it may never end.

    Raises
    ------
    OSError
        The file cannot be opened, or it is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "Not a regular file", str(path))
