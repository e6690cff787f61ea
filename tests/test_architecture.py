"""Rules of the whole repository: what may import what, how long a file may be, and that every command is there."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import adrank

ROOT = Path(adrank.__file__).parent
FOLDERS = ("bundle", "service", "models", "export", "loadtest", "client", "examples", "benchmarks", "tests")
LONGEST = 400


def sources() -> list[Path]:
    return [ROOT / "adrank.py", *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("bundle", "torch onnx onnxruntime fastapi redis polars pyarrow faiss service models export benchmarks"),
        ("service", "torch onnx faiss polars pyarrow sklearn scipy pandas models export benchmarks"),
        ("models", "fastapi uvicorn onnxruntime service export"),  # optuna loads redis where it finds it
        ("loadtest", "bundle control service outcomes models export benchmarks torch onnxruntime fastapi redis"),
        ("client", "bundle control service outcomes models export loadtest benchmarks numpy onnxruntime fastapi redis"),
        ("export", "fastapi uvicorn service"),  # models/compression/search.py: optuna too
    ],
)
def test_a_package_loads_nothing_it_must_not_know(package: str, forbidden: str) -> None:
    """Every module of it, in a process of its own: what others import in between counts too."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    program = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print(sorted(set({forbidden.split()!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_no_file_is_too_long() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in sources()}
    assert len(lengths) > 100
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_every_test_folder_is_a_package() -> None:
    """Otherwise tests/service would shadow service."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_no_module_is_named_like_a_library() -> None:
    taken = {"redis", "locust", "onnx", "onnxruntime", "torch", "logging", "faiss", "polars", "numpy"}
    assert [path for path in sources() if path.stem in taken] == []


@pytest.mark.parametrize("name", adrank.COMMANDS)
def test_every_command_has_a_main(name: str) -> None:
    module, what = adrank.COMMANDS[name]
    assert callable(importlib.import_module(module).main)
    assert what


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "adrank.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_lists_every_command() -> None:
    for option in ("--help", "-h", "help"):
        done = run(option)
        assert (done.returncode, done.stderr) == (0, "")
        for name, (_, what) in adrank.COMMANDS.items():
            assert f"  {name} " in done.stdout
            assert what in done.stdout
    assert run().stdout == run("--help").stdout


@pytest.mark.parametrize("name", adrank.COMMANDS)
def test_every_command_has_help_that_names_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["adrank", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        adrank.main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: adrank {name}")
    assert len(printed.splitlines()) > 3


def test_an_unknown_command_is_refused() -> None:
    done = run("trian")
    assert done.returncode == 2
    assert done.stderr == f"adrank: there is no command 'trian'; known: {', '.join(adrank.COMMANDS)}\n"
    assert done.stdout == ""


def test_the_commands_exit_code_is_adranks() -> None:
    done = run("bundle", "verify", "nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """`adrank … | head -1` ends without a word on stderr."""
    program = """
import sys, types, adrank
sys.modules["flood"] = types.SimpleNamespace(main=lambda rest: print("line\\n" * 100_000) or 0)
adrank.COMMANDS["flood"] = ("flood", "prints more than a pipe holds")
sys.argv = ["adrank", "flood"]
sys.exit(adrank.main())
"""
    command = ["bash", "-c", '"$0" -c "$1" | head -1', sys.executable, program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("line\n", "")


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (
            "OSError(28, 'No space left on device', 'x.json')",
            2,
            "adrank odd: [Errno 28] No space left on device: 'x.json'",
        ),
        ("KeyboardInterrupt", 130, "adrank odd: interrupted"),
    ],
)
def test_what_every_command_may_meet_is_one_line(raised: str, code: int, line: str) -> None:
    program = f"""
import sys, types, adrank
def fail(rest):
    raise {raised}
sys.modules["odd"] = types.SimpleNamespace(main=fail)
adrank.COMMANDS["odd"] = ("odd", "fails")
sys.argv = ["adrank", "odd"]
sys.exit(adrank.main())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (code, line)
