"""Whether a documented command line would be taken, without running it."""

import contextlib
import importlib
import io
import re
import shlex

from adrank import COMMANDS
from service.settings import PREFIX, Settings
from tests.docs.pages import ROOT

VARIABLE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
OTHERS = (".", "cp", "curl", "docker", "git", "python3", ".venv/bin/python")
"""Programs of others that pages call."""


def check(line: str) -> None:
    """AssertionError with the line and what is wrong with it: unknown command, option, target or variable."""
    words = shlex.split(line)
    while words and (variable := VARIABLE.fullmatch(words[0])):
        known = {PREFIX + name.upper() for name in Settings.model_fields} | {"ADRANK_UPDATE_DOCS"}
        assert variable[1] in known, f"{line}: there is no setting {variable[1]}"
        words.pop(0)
    program, *rest = words
    if program in ("adrank", ".venv/bin/adrank"):
        check_adrank(line, rest)
    elif program == "make":
        check_make(line, rest)
    else:
        assert program in OTHERS, f"{line}: {program} is not known"


def check_adrank(line: str, words: list[str]) -> None:
    """The sub-command exists and its parser takes the rest."""
    if not words or words[0] == "--help":
        return
    name, *rest = words
    assert name in COMMANDS, f"{line}: there is no adrank {name}"
    module = importlib.import_module(COMMANDS[name][0])
    make = getattr(module, "parser", None) or getattr(module, "_parser", None)
    said = io.StringIO()
    if make is None:  # `serve` makes its options from the settings: its help lists them
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            module.main(["--help"])
        for word in rest:
            known = not word.startswith("--") or re.search(rf"{re.escape(word)}\b", said.getvalue())
            assert known, f"{line}: adrank {name} has no {word}"
        return
    taken = "--help" in rest
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        make().parse_args(rest)
        taken = True
    assert taken, f"{line}: {said.getvalue().splitlines()[-1]}"


def check_make(line: str, words: list[str]) -> None:
    """Targets and variables are in the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        if variable := VARIABLE.fullmatch(word):
            assert re.search(rf"^{variable[1]} \?=", makefile, re.MULTILINE), f"{line}: make has no {variable[1]}"
        else:
            assert re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE), f"{line}: make has no {word}"
