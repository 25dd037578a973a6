"""The help of the commands, without the names of Python's types."""

from typing import Any

from typer.core import TyperGroup

TYPES = {"<str>": "TEXT", "<int>": "NUMBER", "<float>": "NUMBER"}
"""What the help says for a type; of others, as the `<bool>` of a switch and `<list[str]>`, it says nothing."""


class PlainGroup(TyperGroup):
    """Commands whose help says in plain words what to write."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, whose help is plain."""
        command = super().get_command(ctx, cmd_name)
        _say_plainly([] if command is None else command.get_params(ctx), ctx)
        return command

    def get_params(self, ctx: Any) -> Any:
        """Return the options that stand before a command, whose help is plain."""
        parameters = super().get_params(ctx)
        _say_plainly(parameters, ctx)
        return parameters


def _say_plainly(parameters: list[Any], ctx: Any) -> None:
    for parameter in parameters:
        if not hasattr(parameter, "display_type_rich"):
            continue  # an older typer, which shows what it likes
        is_option = parameter.param_type_name == "option"
        shown = parameter.metavar or TYPES.get(type(parameter).display_type_rich(parameter, ctx)) if is_option else None
        parameter.display_type_rich = lambda ctx, shown=shown: shown
