"""A Dockerfile, carried out in a folder: what a build would do, without an engine.

There is no base image: the programs of this machine stand in for those of the base, and paths below a stage's own root
for those of the image.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ABSOLUTE = re.compile(r"(^|[ :])(/(?:opt|app|tmp)\b)")
"""Paths of the image in a command or in PATH."""


@dataclass(slots=True)
class Stage:
    """One stage: where its root is, and what was said of it."""

    base: str
    root: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    owners: dict[str, str] = field(default_factory=dict)
    """Path -> who it is given to; here everything belongs to who carries the steps out."""
    healthcheck: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def place(self, path: str) -> Path:
        """Where a path of the image is."""
        return self.root / path.lstrip("/")

    def translated(self, text: str) -> str:
        """Absolute paths of the image as paths of this machine."""
        return ABSOLUTE.sub(lambda found: f"{found[1]}{self.root}{found[2]}", text)

    def environment(self) -> dict[str, str]:
        """The image's variables, and nothing of this process's but what pip needs to reach its index."""
        path = self.translated(self.env.get("PATH", "")).replace("$PATH", os.environ["PATH"])
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name == "SSL_CERT_FILE"}
        return kept | self.env | {"PATH": path or os.environ["PATH"], "HOME": str(self.root)}


def instructions(text: str) -> list[tuple[str, str]]:
    """Instruction and argument of each step; comments left out, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    steps = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name.upper(), rest.strip()) for name, _, rest in steps]


def build(dockerfile: Path, context: Path, target: str, out: Path, *, lent: bool = False) -> Stage:
    """Carry out all steps of stage `target` and of those that it copies from, each stage below `out`. RuntimeError
    names a step that failed or is not understood.

    `lent`: nothing is downloaded. In place of what pip would install, the packages of this interpreter can be imported,
    but nothing of the project's working tree.
    """
    texts = stage_texts(dockerfile)
    stages: dict[str, Stage] = {}
    for name in needed(texts, target):
        base, steps = texts[name]
        stage = stages[name] = Stage(base, out / name)
        stage.place("/tmp").mkdir(parents=True)
        for step, said in steps:
            if step == "COPY":
                _copy(said, stage, stages, context)
            elif step == "RUN" and lent and " -m pip install " in said:
                _lend(stage)
            elif step == "RUN":
                _run(said.replace("-m venv ", "-m venv --without-pip ") if lent else said, stage)
            else:
                _note(step, said, stage)
    return stages[target]


def stage_texts(dockerfile: Path) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Stage -> what it is based on, and its steps."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    name = ""
    for step, said in instructions(dockerfile.read_text()):
        if step == "FROM":
            base, _, name = said.partition(" AS ")
            found[name] = (base, [])
        elif found:
            found[name][1].append((step, said))
        elif step != "ARG":
            raise RuntimeError(f"{step} {said}: before the first stage")
    return found


def needed(texts: dict[str, tuple[str, list[tuple[str, str]]]], target: str) -> list[str]:
    """The stages that `target` copies from, and it, in the order of the file."""
    found = {target}
    for name in reversed(texts):
        if name in found:
            found |= {said.split()[0][7:] for step, said in texts[name][1] if said.startswith("--from=")}
    return [name for name in texts if name in found]


def _note(step: str, said: str, stage: Stage) -> None:
    """What a step only says."""
    match step:
        case "ENV":
            stage.env |= dict(pair.split("=", 1) for pair in shlex.split(said))
        case "WORKDIR":
            stage.workdir = said
        case "USER":
            stage.user = said
        case "HEALTHCHECK":
            stage.healthcheck = json.loads(said.partition("CMD ")[2])
        case "ENTRYPOINT":
            stage.entrypoint = json.loads(said)
        case "CMD":
            stage.command = json.loads(said)
        case "EXPOSE" | "STOPSIGNAL" | "ARG":
            pass
        case _:
            raise RuntimeError(f"{step} {said}: not understood here")


def _copy(said: str, stage: Stage, stages: dict[str, Stage], context: Path) -> None:
    words = said.split()
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    if words[0].startswith("--chown="):
        owner = words.pop(0).removeprefix("--chown=")
        stage.owners[words[1]] = owner
    origin, target = source / words[0].lstrip("/"), stage.place(words[1])
    if not origin.exists():
        raise RuntimeError(f"COPY {said}: {origin} is not there")
    target.parent.mkdir(parents=True, exist_ok=True)
    if origin.is_dir():
        shutil.copytree(origin, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(origin, target)


def _lend(stage: Stage) -> None:
    (folder,) = stage.place("/opt/venv").glob("lib/python*/site-packages")
    ours = [path for path in sys.path if Path(path).name == "site-packages"]  # their own .pth files are not followed
    (folder / "lent.pth").write_text("\n".join(ours) + "\n")


def _run(said: str, stage: Stage) -> None:
    command = stage.translated(said)
    if command.startswith("python "):
        command = f"{sys.executable} {command.removeprefix('python ')}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=stage.place(stage.workdir), env=stage.environment(), capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"RUN {said}: {done.returncode}: {done.stderr.decode()[-2000:]}")
