"""Durations in words, as the tab "Directory" shows them."""

import pytest

from directory_sync.pages.delay_summary import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown"),
        (0.2, "under 1 s"),
        (42.4, "42 s"),
        (59.8, "1 min 0 s"),
        (250, "4 min 10 s"),
        (7_500, "2 h 5 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text
