"""Everything that is read stands out from what it is written on, in both themes."""

import itertools

import pytest

from palate.report.colours import BACKGROUNDS, LINES, PALETTE

READ = [name for name in PALETTE if name not in BACKGROUNDS + LINES]


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(
        weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )


@pytest.mark.parametrize("theme", [0, 1])
def test_the_contrast_is_that_of_readable_text(theme):
    for name, background in itertools.product(READ, BACKGROUNDS):
        pair = sorted(luminance(PALETTE[of][theme]) for of in (name, background))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (name, background)
