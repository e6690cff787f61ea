"""One module a kind of source; all hand on the same raw form (raw.py)."""
