"""CollapseMonitor: what it reports, and what it lets pass."""

import pytest

from palate.objectives.collapse import CollapseMonitor


def noise(i):
    """A small fixed wobble, so that standard errors are not 0."""
    return 0.01 * ((7 * i) % 5 - 2)


def watch(losses, margins, easy=10.0, metrics=None, every=5, **options):
    """What a monitor says of a log, and at which entry; metrics come every some entries."""
    monitor = CollapseMonitor(**options)
    for i, (loss, margin) in enumerate(zip(losses, margins, strict=True)):
        seen = monitor.training(i, loss + noise(i), margin + noise(i + 1), easy)
        if metrics and (i + 1) % every == 0:
            seen = monitor.validation(i, metrics[(i + 1) // every - 1]) or seen
        if seen:
            return seen
    return None


FALLING = [1 - 0.02 * i for i in range(40)]
RISING = FALLING[::-1]


def test_a_loss_that_falls_with_the_boundary_margin_is_a_collapse():
    seen = watch(FALLING, [3 - 0.05 * i for i in range(40)])
    assert seen is not None
    assert "margin to boundary negatives fell" in seen.message
    assert "align.dynamicpo={}" in seen.message
    assert f"step {seen.step}:" in seen.message


@pytest.mark.parametrize(
    ("losses", "margins"),
    [
        (FALLING, [1 + 0.05 * i for i in range(40)]),  # what should happen
        (RISING, [3 - 0.05 * i for i in range(40)]),  # worse at everything: no collapse
        (FALLING, [2.0] * 40),
    ],
)
def test_it_is_silent_otherwise(losses, margins):
    assert watch(losses, margins) is None


def test_margins_that_merely_spread_are_no_collapse():
    monitor = CollapseMonitor()
    for i in range(40):
        scale = 1 + 0.1 * i  # violating by ever more nats, and everything else likewise
        seen = monitor.training(i, 1 - 0.02 * i + noise(i), -1.0 * scale, 9.0 * scale)
        assert seen is None


def test_a_best_validation_refutes_the_margin_until_the_next():
    margins = [3 - 0.05 * i for i in range(40)]
    assert watch(FALLING, margins, metrics=[0.1 + 0.01 * i for i in range(8)]) is None
    seen = watch(FALLING, margins, metrics=[0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.149, 0.149])
    assert seen is not None
    assert seen.step >= 34  # the seventh validation is the first that is not the best


def test_two_validations_below_the_best_are_a_collapse():
    flat = [2.0] * 40
    seen = watch(FALLING, flat, metrics=[0.5, 0.6, 0.55, 0.56, 0.56, 0.56, 0.56, 0.56])
    assert seen is not None
    assert seen.step == 19  # the fourth
    assert "metric got worse, from 0.6 to 0.56" in seen.message
    assert watch(FALLING, flat, metrics=[0.5, 0.6, 0.55, 0.6, 0.55, 0.6, 0.59, 0.59]) is None
    assert watch(RISING, flat, metrics=[0.5, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1]) is None


def test_a_validation_loss_is_better_when_it_falls():
    flat, rising = [2.0] * 40, [5.0, 4.0, 4.5, 4.6, 4.7, 4.8, 4.9, 5.0]
    seen = watch(FALLING, flat, metrics=rising, greater_is_better=False)
    assert seen is not None
    assert "metric got worse, from 4 to 4.6" in seen.message
    assert watch(FALLING, flat, metrics=rising[::-1], greater_is_better=False) is None


def test_it_reports_once():
    monitor = CollapseMonitor(window=2)
    said = [
        monitor.training(i, 1 - 0.1 * i, 3 - 0.5 * i, 10.0 + noise(i)) is not None
        for i in range(12)
    ]
    assert sum(said) == 1
