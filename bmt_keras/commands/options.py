"""Options that commands share, the settings among them."""

import copy
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from bmt_keras.presets import PRESETS, resolve_settings
from bmt_keras.settings import Option, Settings

Captions = Annotated[Path, typer.Option(help="Captions in any layout.")]
Images = Annotated[Path, typer.Option(help="Folder of the images.")]
# Text, as a `Path` would make `hf:/` of `hf://`.
Captioner = Annotated[
    str,
    typer.Option(help="The captioner's folder, or hf://organisation/name."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Write into this .jsonl, .csv or .json (COCO's results); the same "
        "command goes on after a stop."
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="The first N images of each file.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out what cannot be read.")
]
Split = Annotated[
    str | None, typer.Option(help="Split of --captions, if it has several.")
]
JavaScores = Annotated[
    bool,
    typer.Option(
        "--java-scores",
        help="METEOR and SPICE too, where Java is there; SPICE downloads its "
        "models at its first use.",
    ),
]
Preset = Annotated[
    str, typer.Option(is_eager=True, help="sample, small, notebook or coco.")
]

_Command = Callable[..., None]
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY


def document(command: _Command) -> _Command:
    """Gives a command's options the help that its docstring has for them.

    The docstring has it under `Options:`; an option that is off by default has
    no `--no-...`.
    """
    doc = inspect.cleandoc(command.__doc__ or "")
    command.__doc__, _, listed = doc.partition("\n\nOptions:\n")
    helps = dict(re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", listed, re.M))
    parameters = []
    for each in inspect.signature(command).parameters.values():
        names = [dashed(each.name)] if each.default is False else []
        kind, shown = each.annotation, typer.Option(*names)
        if get_origin(kind) is Annotated:
            kind, shown = get_args(kind)
        if text := helps.get(each.name):
            shown = copy.copy(shown)  # others may share it
            shown.help = " ".join(text.split())
        parameters.append(each.replace(annotation=Annotated[kind, shown]))
    return _set_parameters(command, parameters)


def _set_parameters(
    command: _Command, parameters: Sequence[inspect.Parameter]
) -> _Command:
    # Typer reads the signature and the annotations.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {x.name: x.annotation for x in parameters}
    return command


def with_settings(*names: str) -> Callable[[_Command], _Command]:
    """Adds options of the settings to a typer command.

    The command receives them as its keyword argument `overrides`, by flat name,
    None where not given. One with a `preset` has `--show-settings`, too, and
    one with `sides` the options of `read_sides`, by their names there.

    Args:
        *names: Groups or options, as `"decoding"` or `"seed"`; none for all.
    """
    chosen = {
        option.name: option
        for option in Settings.options()
        if not names or {option.name, option.group} & {*names}
    }

    def decorate(command: _Command) -> _Command:
        own = dict(inspect.signature(command).parameters)
        del own["overrides"]
        groups = {"overrides": [*chosen]}
        if own.pop("sides", None):
            sides = inspect.signature(_read_sides).parameters
            own = {**sides, **own}
            groups["sides"] = [*sides]
        preset = own["preset"].default if "preset" in own else None
        added = {name: _setting(x, preset) for name, x in chosen.items()}
        if preset is not None:
            added["show_settings"] = _show_settings([*chosen])

        def run(**arguments: Any) -> None:
            arguments.pop("show_settings", None)
            for group, members in groups.items():
                arguments[group] = {x: arguments.pop(x) for x in members}
            command(**arguments)

        parameters = [
            *(each.replace(kind=_KEYWORD_ONLY) for each in own.values()),
            *(
                inspect.Parameter(n, _KEYWORD_ONLY, default=None, annotation=x)
                for n, x in added.items()
            ),
        ]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return _set_parameters(run, parameters)

    return decorate


def _read_sides(
    captions: Captions,
    images: Images,
    val_captions: Annotated[
        Path | None, typer.Option(help="Captions of the validation images.")
    ] = None,
    val_images: Annotated[
        Path | None, typer.Option(help="Folder of the validation images.")
    ] = None,
    val_share: Annotated[
        float, typer.Option(help="Share held out without --val-captions.")
    ] = 0.2,
    split: Split = None,
    limit: Limit = None,
    skip_bad: SkipBad = False,
) -> None:
    """Only the signature counts: the options of training and validation."""


def _setting(option: Option, preset: str | None) -> Any:
    # The settings refuse a wrong choice in one line, Typer in a box.
    kind: Any = str if get_args(option.field.type) else option.field.type
    text, panel = option.field.metadata["help"], option.group.capitalize()
    if preset is not None:
        # Typer's own "[default: ...]" would take a second line of most.
        text += f" ({_describe(PRESETS[preset].get(option.name))})"
        panel += f" (in parentheses: preset {preset})"
    names = []
    # Its default says the type, for which 80 columns have no room.
    metavar = None if preset is None else ""
    if kind is bool and not any(x.get(option.name) for x in PRESETS.values()):
        # Where it is off anyway, `--no-...` would narrow the panel for nothing.
        names = [dashed(option.name)]
    shown = typer.Option(
        *names,
        help=text,
        metavar=metavar,
        show_default=False,
        rich_help_panel=panel,
        is_eager=True,  # read before --show-settings prints them
    )
    return Annotated[kind | None, shown]


def _show_settings(names: list[str]) -> Any:
    def show(context: typer.Context, is_asked: bool) -> None:
        if not is_asked:
            return
        # Here, for every start of `bmt` would load them.
        from rich.console import Console
        from rich.table import Table

        preset = context.params["preset"]
        given = {name: context.params[name] for name in names}
        settings = resolve_settings(preset, given)
        table = Table("option", "value", "from")
        for name, value in given.items():
            source = f"preset {preset}" if value is None else "command line"
            table.add_row(dashed(name), _describe(settings.get(name)), source)
        Console().print(table)
        raise typer.Exit

    text = "Print the resolved settings, and end."
    return Annotated[
        bool, typer.Option("--show-settings", callback=show, help=text)
    ]


def dashed(name: str) -> str:
    """How an option is written."""
    return f"--{name.replace('_', '-')}"


def _describe(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) or "none"
