"""Clients of object stores, one of each kind per process."""

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")


def once_per_process(make: Callable[..., T]) -> Callable[..., T]:
    """Call a function once for the same arguments, from any thread, and keep what it returns.

    A forked process calls it anew, since the connections and threads of its parent are of no use to it.
    """
    made: dict[Any, T] = {}
    lock = threading.Lock()

    @wraps(make)
    def get(*arguments: Any) -> T:
        with lock:
            if arguments not in made:
                made[arguments] = make(*arguments)
            return made[arguments]

    def forget() -> None:
        nonlocal lock
        lock = threading.Lock()  # another thread may have held it
        made.clear()

    os.register_at_fork(after_in_child=forget)
    return get
