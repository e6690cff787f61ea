"""Imported before onnxruntime, so that it tells nobody what it does.

From 1.29 on, its Linux builds send events to Microsoft as soon as they are imported, and write an id of the machine
and a database below ~/.cache. A service that ranks ads does neither unless its operator says so, with
ORT_DISABLE_TELEMETRY=0 in the environment.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
