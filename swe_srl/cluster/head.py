"""Whether the head of a cluster still answers.

Invariant: it is looked after from a thread of its own, so that it is said while a call of Ray's waits for a head that is gone.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GO_ON = "what was finished is kept: once the cluster is there again, give the same command again"
_ATTEMPT_SECONDS = 5.0


@contextmanager
def watched(address: str, say: Callable[[str], None], pace: float = 5.0) -> Iterator[None]:
    """Say when the head is silent, and when it is there again.

    address: HOST:PORT, with or without `ray://` before it.
    pace: seconds from one look to the next; two that fail are told.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    ended = threading.Event()

    def watch() -> None:
        silent = 0
        while not ended.wait(pace):
            if _answers(host.strip("[]"), int(port)):
                if silent >= 2:
                    say(f"the head of the cluster at {host}:{port} answers again")
                silent = 0
            else:
                silent += 1
                if silent == 2:
                    say(f"the head of the cluster at {host}:{port} does not answer; if it stays away Ray ends this; {GO_ON}")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), _ATTEMPT_SECONDS).close()
    except OSError:
        return False
    return True
