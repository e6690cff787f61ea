"""Triton's own server binary, from the nvidia-pytriton wheel, with the model of triton_model.py.

The wheel holds the Python backend only, no ONNX Runtime backend, so onnxruntime runs inside a Python model
(https://github.com/triton-inference-server/python_backend). pytriton's `bind` adds a process and two copies to that;
its proxy did not start on Python 3.11.7, for which the wheel's 3.11 stub is too old. One model instance on one core; 8
HTTP threads are the default, 1 was as fast. No batching: a core runs a batch no faster than its parts.
"""

import os
import shutil
import sys
from pathlib import Path

import pytriton

HERE = Path(__file__).parent
CONFIG = """name: "ads"
backend: "python"
max_batch_size: 0
input [
  { name: "ads" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "age" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "city" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "clicks" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "scores" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""


def main() -> None:
    """Lay out backends and model repository, and become the server."""
    package, scratch = Path(pytriton.__file__).parent, Path(os.environ["PEER_SCRATCH"])
    server, backends, model = package / "tritonserver", scratch / "backends", scratch / "models/ads"
    shutil.copytree(server / "backends", backends)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(server / f"python_backend_stubs/{version}/triton_python_backend_stub", backends / "python")
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG)
    shutil.copy(HERE / "triton_model.py", model / "1/model.py")
    shutil.copy(HERE / "scoring.py", model / "1")  # the stub looks for modules there, not in PYTHONPATH
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(package.parent / "nvidia_pytriton.libs"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [
        str(server / "bin/tritonserver"),
        f"--model-repository={scratch / 'models'}",
        f"--backend-directory={backends}",
        "--http-address=127.0.0.1",
        f"--http-port={os.environ['PEER_PORT']}",
        "--http-thread-count=1",
        "--allow-grpc=false",
        "--allow-metrics=false",
    ]
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main()
