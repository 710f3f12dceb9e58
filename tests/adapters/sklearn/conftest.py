import pytest


@pytest.fixture
def global_random_seed():
    """scikit-learn's fixture, of its tests that are run here."""
    return 42
