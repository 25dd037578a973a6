import pytest

from raysd.formats import byte_size, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 seconds"), (90, "90 seconds"), (172, "2.87 minutes"), (40_000, "11.1 hours"), (5e6, "1,389 hours")],
)
def test_a_time_is_in_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(900, "0.9 kB"), (2.6e6, "2.6 MB"), (5.48e9, "5.48 GB"), (1e15, "1,000 TB")]
)
def test_a_size_is_in_the_unit_that_suits_it(num_bytes, text):
    assert byte_size(num_bytes) == text
