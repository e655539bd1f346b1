"""App: the typer app that every file of this folder adds its commands to."""

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find the fastest, smallest settings of a diffusers pipeline on this device, with numbers you can trust.",
)
