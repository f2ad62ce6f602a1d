"""The man page and the completion of bash, made of the parser of the commands. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from dadafs import __version__

FILES = """\
.TP
/etc/dadafs/dadafs.toml, ~/.config/dadafs/dadafs.toml
Settings, the later over the earlier; dadafs.toml.example tells all.
.TP
DADAFS_SECTION_KEY
Variables over both, such as DADAFS_MOUNT_THREADS; DADAFS_CONFIG names one file instead of the two.
.TP
~/.cache/dadafs
Index and results, a directory for each raw tree.
.TP
MNT/.dadafs
stats.json, jobs.json, peers.json, errors.log, metrics of a mount.
"""
EXIT = """\
0 done; 1 refused or failed, one line says why; 2 wrong command line or configuration;
3 a mount or server does not answer; 130 interrupted.
"""
FSTAB = """\
A line of fstab mounts at boot, with the options of \\fBdadafs mount\\fR in its own form:
.PP
.nf
tcp://heinzelfrau:4242 /mnt/dada fuse.dadafs _netdev,allow_other,tls=/etc/dadafs/tls 0 0
.fi
"""


def man_page(parser: argparse.ArgumentParser) -> str:
    """dadafs(1)."""
    parts = [
        f'.TH DADAFS 1 "" "dadafs {__version__}" "User commands"\n',
        ".SH NAME\ndadafs \\- mount X-ray scans; their analyses are files\n",
        ".SH SYNOPSIS\n.B dadafs\n\\fICOMMAND\\fR ...\n",
        f".SH DESCRIPTION\n{_text(parser.description or '')}\n",
        ".SH COMMANDS\n",
    ]
    for name, command in commands(parser).items():
        parts.append(f".SS dadafs {_text(name)}{_synopsis(command)}\n")
        parts.append(f"{_text(command.description or '')}\n")
        parts += [_option(action) for action in _actions(command)]
        example = (command.epilog or "").removeprefix("example: ")
        parts.append(f".PP\nExample:\n.PP\n.nf\n{_text(example)}\n.fi\n")
    parts.append(f".SH FSTAB\n{FSTAB}.SH FILES\n{FILES}.SH EXIT STATUS\n{EXIT}")
    return "".join(parts)


def completion(parser: argparse.ArgumentParser) -> str:
    """A script for bash: commands, their options and fixed words; else names of files."""
    known = commands(parser)
    cases = []
    for name, command in known.items():
        words = [flag for action in _actions(command) for flag in action.option_strings]
        words += [str(choice) for action in _actions(command) for choice in action.choices or ()]
        cases.append(f'        {name}) words="{" ".join(words)}" ;;\n')
    return f"""\
# Completion of dadafs for bash: made by tools/make_man, do not edit.
_dadafs() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "{" ".join(known)} --help --version" -- "$word")
        return
    fi
    case ${{COMP_WORDS[1]}} in
{"".join(cases)}    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word"; compgen -f -- "$word")
}}
complete -o filenames -F _dadafs dadafs
"""


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _actions(command: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (one for one in command._actions if not isinstance(one, argparse._HelpAction))


def _synopsis(command: argparse.ArgumentParser) -> str:
    words = [""]
    for action in _actions(command):
        if not action.option_strings:
            name = _name(action)
            words.append(f"[{name}]" if action.nargs == "?" else name)
    return _text(" ".join([*words, "[OPTION]..."]))


def _option(action: argparse.Action) -> str:
    if not action.option_strings and not action.help:
        return ""
    shown = ", ".join(action.option_strings) or _name(action)
    if action.option_strings and action.nargs != 0:
        shown += " " + _name(action)
    return f".TP\n.B {_text(shown)}\n{_text(action.help or '')}\n"


def _name(action: argparse.Action) -> str:
    if action.choices is not None and action.metavar is None:
        return "|".join(map(str, action.choices))
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return name + ("..." if action.nargs == "+" else "")


def _text(text: str) -> str:
    """Text as roff: nothing in it is a command."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\n".join("\\&" + line if line.startswith(".") else line for line in escaped.split("\n"))
