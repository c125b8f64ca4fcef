"""Python runs this file at its start where the environment has the folder in PYTHONPATH, as in tests."""

import os

import clone_guard

if clone_guard.CLONE in os.environ:
    clone_guard.install(os.environ[clone_guard.CLONE])
