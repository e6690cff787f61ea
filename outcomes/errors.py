"""What can go wrong while outcomes are collected."""


class OutcomesError(Exception):
    """The message names the thing, its value and the bound."""
