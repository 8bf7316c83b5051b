"""Every field of the settings as an option of a command."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from bmt_keras.settings import Option, Settings


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Adds an option for each field of `Settings` to a typer command.

    The command receives them as one keyword argument `overrides`, a
    dictionary by field name with None where the option was not given.

    Args:
        command: A function whose last parameter is `overrides`.

    Returns:
        The function that typer is to register.
    """
    fields = list(Settings.options())
    own = [
        parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name != "overrides"
    ]

    def run(**arguments: Any) -> None:
        overrides = {field.name: arguments.pop(field.name) for field in fields}
        command(**arguments, overrides=overrides)

    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_option(field),
        )
        for field in fields
    ]
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.Signature(
        [each.replace(kind=keyword_only) for each in own] + options
    )
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
    }
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _option(option: Option) -> Any:
    field = option.field
    kind: Any = field.type
    return Annotated[
        kind | None,
        typer.Option(
            help=field.metadata["help"],
            show_default=False,
            rich_help_panel="Settings (default: the preset's)",
        ),
    ]


def to_arguments(values: Mapping[str, Any]) -> list[str]:
    """Writes option values as they are typed on a command line.

    Args:
        values: Values by name; None leaves an option out.

    Returns:
        The arguments.
    """
    arguments = []
    for name, value in values.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{'' if value else 'no-'}{option}")
        elif value is not None:
            arguments.append(f"--{option}={value}")
    return arguments
