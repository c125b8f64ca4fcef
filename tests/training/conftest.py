"""What several tests of trainings need."""

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture
def fresh_accelerate():
    """Accelerate fixes the precision once per process, as a command does."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
