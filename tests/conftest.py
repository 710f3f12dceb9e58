import pytest

import fastdrop


@pytest.fixture(params=fastdrop.available_isas())
def isa(request):
    """Each instruction set in turn, in this one process."""
    with fastdrop.use_isa(request.param):
        yield request.param
