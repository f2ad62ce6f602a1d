"""`dadafs config`: which settings hold, and where each comes from."""

from __future__ import annotations

import argparse
import os

from dadafs import settings
from dadafs.commands.declaring import Commands, add_config, command


def add(commands: Commands) -> None:
    """Declare the command."""
    config = command(
        commands,
        "config",
        _config,
        summary="which settings hold, and where each comes from",
        about="Check all configuration files and variables; print what holds, as TOML.",
        example="dadafs config show mount",
    )
    config.add_argument("action", choices=("show",))
    config.add_argument("section", metavar="SECTION", nargs="?", choices=tuple(settings.SECTIONS))
    add_config(config)


def _config(options: argparse.Namespace) -> int:
    sections = [options.section] if options.section else list(settings.SECTIONS)
    told = {
        section: settings.effective(section, {}, os.environ, options.config) for section in sections
    }
    for file, _ in settings.files(os.environ, options.config):
        print(f"# {file}{'' if file.exists() else ' (there is none)'}")
    for section, found in told.items():
        print(f"\n[{section}]")
        for key, one in found.items():
            line = f"{key} = {settings.shown(one.value, settings.SECTIONS[section][key])}"
            unset = "# " if one.value is None else ""
            print(f"{unset + line:<40} # {one.source}")
    return 0
