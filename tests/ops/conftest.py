"""The trainings of the tiny config, and its plan as JSON."""

from tiny_trainings import document, tiny

__all__ = ["document", "tiny"]
