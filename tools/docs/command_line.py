"""command_line: the page of every command and option, made from the typer app."""

from pathlib import Path
from typing import Any

from typer.main import get_command

from autotune.cli import app

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]


def page() -> str:
    """A section a command, in the order of `autotune --help`: what it does, its arguments and its options."""
    index = "\n".join(f"| [`{name}`](#{name}) | {summary(command)} |" for name, command in COMMANDS.items())
    head = (
        "# Command line\n\n"
        "`autotune COMMAND --help` says the same. "
        "[Exit codes](outcomes.md#exit-codes) and [environment variables](environment.md) have pages of their own.\n\n"
        f"| command | what it does |\n|---|---|\n{index}"
    )
    return "\n\n".join([head, *(section(name, command) for name, command in COMMANDS.items())])


def summary(command: Any) -> str:
    return " ".join((command.help or "").partition("\n\n")[0].split())


def section(name: str, command: Any) -> str:
    shown = [option for option in command.params if not getattr(option, "hidden", False)]
    arguments = [option for option in shown if option.param_type_name == "argument"]
    usage = " ".join(["autotune", name, *(_argument(option) for option in arguments), "[OPTIONS]"])
    parts = [f"## {name}", "\n\n".join(" ".join(p.split()) for p in command.help.split("\n\n"))]
    parts.append(f"```text\n{usage}\n```")
    rows = [
        f"| {_names(option)} | {_default(option)} | {_cell(option.help or '')} |" for option in shown if option.help
    ]
    if rows:
        parts.append("\n".join(["| option | default | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _argument(option: Any) -> str:
    name = f"{option.name.upper()}..." if option.nargs == -1 else option.name.upper()
    return name if option.required else f"[{name}]"


def _names(option: Any) -> str:
    if option.param_type_name == "argument":
        return f"`{_argument(option)}`"
    given = [*option.opts, *option.secondary_opts]
    value = "" if option.is_flag else f" {_type(option.type_descriptor.annotation)}"
    return ", ".join(f"`{name}{value}`" for name in given)


def _type(annotation: Any) -> str:
    """A word for the value: of `list[Path]`, which can be given several times, that of one."""
    inner = next((kind for kind in getattr(annotation, "__args__", ()) if kind is not type(None)), annotation)
    return {int: "N", float: "X", Path: "PATH"}.get(inner, "TEXT")


def _default(option: Any) -> str:
    """What counts where it is not given; flags that are off, and options that are left out, have none."""
    if option.default is None or option.default is False or option.default == [] or option.required:
        return ""
    return f"`{'on' if option.default is True else option.default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
