"""Packages named like a command: `raysd.sweep(...)` runs the command, `raysd.sweep.space` is a module."""

import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that calls the command of its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function in `raysd.commands`."""
        from raysd import commands

        return getattr(commands, self.__name__.rpartition(".")[2])(*arguments, **options)


def make_callable(package: str) -> None:
    """Let the package of a command be called."""
    sys.modules[package].__class__ = CallablePackage
