"""The version, in its one place: pyproject.toml reads it here, and the image, in which nothing is installed, has it."""

VERSION = "0.1.0"
