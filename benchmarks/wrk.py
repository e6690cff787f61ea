"""wrk (Will Glozer) as an independent client: it sends the same requests and measures latencies by itself.

wrk is a closed loop. With many connections, each of which waits for an exponential time between its answer and its next
request, arrivals are nearly those of a Poisson process as long as answers take little of that time.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 48
"""Below the service's 64 places in flight."""
SCRIPT = """
local requests = {%s}
local count, turn = #requests, 0
math.randomseed(%d)
function delay() return math.floor(-math.log(1 - math.random()) * %f + 0.5) end
function request() turn = turn %% count + 1 return requests[turn] end
function done(summary, latency, requests)
  io.write(string.format('{"requests": %%d, "us": %%d, "p50": %%f, "p99": %%f, "bad": %%d}\\n', summary.requests,
    summary.duration, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.status + summary.errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What wrk says."""

    rate: float
    """Answers a second."""
    p50_ms: float
    p99_ms: float
    bad: int
    """Answers that were errors or too late."""


def measure(
    url: str, requests: Path, rate: float, seconds: int, folder: Path, seed: int, about_ms: float, cores: list[int]
) -> Measured:
    """Offer about `rate` requests a second from a file of requests. `about_ms`: about what an answer takes; `cores`:
    where wrk may run.

    OSError when there is no wrk, or when it fails.
    """
    program = shutil.which("wrk")
    if program is None:
        raise FileNotFoundError("wrk is not installed (Debian has a package of that name)")
    lines = [json.loads(line) for line in requests.read_text().splitlines()[:2000]]
    texts = ",\n".join(_quoted(_request(line["path"], json.dumps(line["body"]))) for line in lines)
    pause_ms = max(CONNECTIONS / rate * 1e3 - about_ms, 1.0)
    script = folder / "requests.lua"
    script.write_text(SCRIPT % (texts, seed, pause_ms))
    command = [program, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        os.sched_setaffinity(running.pid, cores)
        output, error = running.communicate()
    found = re.search(r"^{.*}$", output, re.MULTILINE)
    if running.returncode or found is None:
        raise OSError(f"wrk failed: {error.strip() or output.strip()}")
    said = json.loads(found[0])
    return Measured(said["requests"] / said["us"] * 1e6, said["p50"], said["p99"], said["bad"])


def _request(path: str, body: str) -> str:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}"


def _quoted(text: str) -> str:
    """As a string of Lua: JSON's escapes for quotes and line breaks are Lua's too, and everything is ASCII."""
    return json.dumps(text)
