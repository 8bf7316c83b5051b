"""The settings as options of a command."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from bmt_keras.presets import PRESETS, resolve_settings
from bmt_keras.settings import Option, Settings

Command = Callable[..., None]


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Adds options of the settings to a typer command.

    The command receives those that were given as its keyword argument
    `overrides`, a dictionary by flat name. One that has a `preset` also has
    `--show-settings`.

    Args:
        *names: Groups or options to add, such as `"decoding"` or `"seed"`;
            none for all.

    Example:
        ```python
        @with_settings("image", "seed")
        def prepare(preset: inputs.Preset, *, overrides: dict[str, Any]): ...
        ```
    """
    chosen = [
        option
        for option in Settings.options()
        if not names or option.name in names or option.group in names
    ]

    def decorate(command: Command) -> Command:
        own = dict(inspect.signature(command).parameters)
        del own["overrides"]
        preset = own["preset"].default if "preset" in own else None

        def run(**arguments: Any) -> None:
            arguments.pop("show_settings", None)
            given = _pop_given(arguments, chosen)
            command(**arguments, overrides=given)

        parameters = [
            *(each.replace(kind=_KEYWORD_ONLY) for each in own.values()),
            *(_parameter(x.name, _annotate(x, preset)) for x in chosen),
        ]
        if preset is not None:
            show = _annotate_show(chosen)
            parameters.append(_parameter("show_settings", show, False))
        # Typer reads the signature and the annotations.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {x.name: x.annotation for x in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY


def _parameter(
    name: str, annotation: Any, default: Any = None
) -> inspect.Parameter:
    return inspect.Parameter(
        name, _KEYWORD_ONLY, default=default, annotation=annotation
    )


def _pop_given(
    arguments: dict[str, Any], chosen: list[Option]
) -> dict[str, Any]:
    values = {each.name: arguments.pop(each.name) for each in chosen}
    return {name: x for name, x in values.items() if x is not None}


def _annotate(option: Option, preset: str | None) -> Any:
    kind: Any = option.field.type
    text, panel = option.field.metadata["help"], option.group.capitalize()
    names = []
    if preset is not None:
        # Typer's own "[default: ...]" would take a second line of most.
        text += f" ({_describe(PRESETS[preset].get(option.name))})"
        panel += f" (in parentheses: preset {preset})"
    if kind is bool and not any(x.get(option.name) for x in PRESETS.values()):
        # Where it is off anyway, `--no-...` would narrow the panel for nothing.
        names = [f"--{option.name.replace('_', '-')}"]
    shown = typer.Option(
        *names,
        help=text,
        show_default=False,
        rich_help_panel=panel,
        is_eager=True,  # read before --show-settings prints them
    )
    return Annotated[kind | None, shown]


def _describe(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) or "none"


def _annotate_show(chosen: list[Option]) -> Any:
    def show(context: typer.Context, is_asked: bool) -> None:
        if is_asked:
            given = _pop_given(dict(context.params), chosen)
            _print_settings(context.params["preset"], given, chosen)
            raise typer.Exit

    text = "Print the resolved settings, and end."
    return Annotated[
        bool, typer.Option("--show-settings", callback=show, help=text)
    ]


def _print_settings(
    preset: str, overrides: Mapping[str, Any], chosen: list[Option]
) -> None:
    # Here, for every start of `bmt` would load them.
    from rich.console import Console
    from rich.table import Table

    settings = resolve_settings(preset, overrides)
    table = Table("option", "value", "from")
    for option in chosen:
        table.add_row(
            f"--{option.name.replace('_', '-')}",
            _describe(settings.get(option.name)),
            "command line" if option.name in overrides else f"preset {preset}",
        )
    Console().print(table)
