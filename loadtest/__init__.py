"""Load tests with a verdict. Talks HTTP only and imports nothing of ours.

1. `traffic.py` makes requests, `arrivals.py` the times at which they are due; both are seeded
2. `generators.py` starts one process or several of `open_loop.py` (locust), which send each request when it is due
3. `saturation.py` asks first whether the generator itself kept up: if not, there is no verdict
4. `slo.py` holds what was measured against `slo.yaml`, `knee.py` finds the rate at which it stops to hold
5. `report.py` writes it down as one page that needs no network
"""
