"""Packages that share their name with a verb: `raysd.sweep(...)` calls the verb, `raysd.sweep.space` is a module."""

import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that calls the verb of its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the verb in `raysd.commands`."""
        from raysd import commands

        return getattr(commands, self.__name__.rpartition(".")[2])(*arguments, **options)


def make_callable(package: str) -> None:
    """Let the package of a verb be called."""
    sys.modules[package].__class__ = CallablePackage
