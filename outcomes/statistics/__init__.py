"""Statistics that stay true when they are looked at every minute. Sources: docs/verdict.md."""
