"""The one command. A table of lazy imports: no sub-command pays for another's libraries.

What every command may meet (a file that cannot be written, Ctrl-C, a reader that left) is answered here, once.
"""

import gc
import importlib
import os
import sys
from types import ModuleType

COMMANDS = {
    "demo": ("export.demo", "simulate a marketplace, train on it and export the demo bundle"),
    "marketplace": ("models.marketplace.command", "write a simulated marketplace's impression log"),
    "simulate": ("models.marketplace.simulate", "have the simulated users ask a running service, and click"),
    "prepare": ("models.data.command", "turn a raw click log into request-grouped Parquet and vocabularies"),
    "train": ("models.train", "train a model from one YAML configuration"),
    "evaluate": ("models.evaluate", "AUC, GAUC, log loss and calibration of a checkpoint"),
    "calibrate": ("models.calibrate", "correct a checkpoint's probabilities, by the validation split"),
    "leaderboard": ("benchmarks.leaderboard.command", "train and compare every model of a data set"),
    "compress": ("export.compress", "make a trained network smaller, by a recipe"),
    "tune": ("models.tune", "search a model's parameters on the validation split"),
    "export": ("export.command", "turn checkpoints into a bundle, proved against torch"),
    "bundle": ("bundle.command", "show, verify, sign or publish a bundle"),
    "features": ("service.features_command", "load users' features into Redis"),
    "outcomes": ("outcomes.command", "collect answers and events as tables and as a log to train on"),
    "replay": ("service.replay_command", "rank a logged request again: the same scores, or which input differs"),
    "loop": ("export.loop", "serve, log, train on, compress, export, gate, swap: turn by turn"),
    "serve": ("service.serve", "serve a bundle over HTTP"),
    "release": ("control.release", "change which bundle a running service serves, and go back"),
    "experiment": ("outcomes.experiment", "compare bundles and settings on users"),
    "loadtest": ("loadtest.command", "load a service, and hold it against what it promises"),
    "capacity": ("loadtest.capacity.command", "replicas, cores, memory and Redis for a load"),
    "bench": ("benchmarks.command", "measure, against plain baselines and peers"),
}


def usage() -> str:
    """The help text of `adrank` itself."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: adrank COMMAND [options]", "", "commands:", *lines, "", "adrank COMMAND --help says more."]
    )


def load(module: str) -> ModuleType:
    """Import it, and keep what was imported out of garbage collections: it stays to the end. `adrank train` on 2,000
    rows, of which half is the import of torch, takes 3.8 instead of 4.5 s of one processor."""
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def main() -> int:
    """Run the named sub-command with the remaining arguments; its exit code is ours."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"adrank: there is no command {name!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = load(COMMANDS[name][0])
    try:
        code = int(command.main(rest))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output left, `| head` for example: nothing to report, nothing to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"adrank {name}: interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # a file or folder that cannot be read or written: the message names it
        print(f"adrank {name}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
