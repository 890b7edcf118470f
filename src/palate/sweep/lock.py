"""One process at a time: a lock that dies with those who hold it."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from palate.errors import ConfigError


@contextmanager
def locked(path: Path, patience: float | None, refusal: str) -> Iterator[int]:
    """Hold a lock file.

    Args:
        path: the file; made where there is none.
        patience: seconds to wait for another holder; None for as long as it takes.
        refusal: what to raise after that, in a sentence.

    Yields:
        The descriptor; a child process that inherits it holds the lock too, until it ends.

    Raises:
        ConfigError: another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + (patience or 0)
    with path.open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | (fcntl.LOCK_NB if patience is not None else 0))
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise ConfigError(refusal) from None
                time.sleep(0.1)
        yield stream.fileno()
