"""Online: ranks ads over HTTP from one bundle. Never imports torch, onnx, models or export.

One request, through the files:

 1. middleware.py     request id; a free place in flight or 429 at once; the body's size is limited
 2. api.py            parses the body (schemas.py), checks it against the bundle (checks.py), delegates, answers
 3. ranker.py         the only async orchestration: starts the deadline budget (budget.py)
 4. registry.py       the one live plan (plan.py): the user's arms (control/assignment.py), and the bundle they
                      are served from (views.py; loading.py proved it), held until the answer is out
 5. user_features.py  profile and history from the store (features.py, redis_store.py) within a time-out, else defaults
 6. eligibility.py    the ads that may be shown: live flags (ad_flags.py), targeting, filters; every stage honours them
 7. cascade.py        one synchronous function, when it is the request's turn (runner.py): retrieval (retrieval.py)
                      -> Qscore -> DQM pre-rank -> DIN fine-rank (scorer.py) -> auction; arrays only
 8. api.py            ads, stage counts and times, what was degraded; the one record of times (timing.py) also feeds the
                      Server-Timing header, metrics.py and the log

app.py wires all of it, serve.py runs it, settings.py says what can be set and why.
"""
