"""Which part of the log is held out."""

import narwhals as nw

from palate.data.expressions import PRIME, int64, portable_hash, row_count
from palate.data.preparation import Preparation
from palate.data.tables import SPLITS
from palate.errors import DataError

HELD_OUT = {b"held_out": b"together"}
"""Metadata of `interactions.parquet` where all that is held out of one user is one context's."""


def split_rows(
    frame: nw.LazyFrame, how: Preparation, seed: int, in_order: bool = True
) -> nw.LazyFrame:
    """Adds `split`: each user's rows are history, then train, then validation, then test.

    Rows of "history" are looked back on and never asked for.

    Args:
        frame: user_code, item_code, position, level and what the split reads.
        how: the choices.
        seed: names the draws of "by_user" and "random".
        in_order: whether the positions tell what came first; where they do not, what is held out
            of a user is put last, so that all the rest is its history.
    """
    if how.split == "given":
        _check_given(frame)
        return frame
    if how.split == "global_time":
        return _by_time(frame, how)
    if how.split == "by_user":
        return _by_user(frame, how, seed, in_order)
    if how.split == "random":
        return _at_random(frame, how, seed)
    cuts = _last_rows(frame, how).filter(nw.col("validation_from") >= how.min_history)
    place = nw.col("position")
    is_held_out = place >= nw.col("validation_from")
    if how.validation_share < 1:
        draw = portable_hash(seed, "user_code")
        is_held_out = is_held_out & (draw < int64(int(how.validation_share * PRIME)))
    held_out = nw.when(is_held_out).then(nw.lit("validation"))
    split = nw.when(place >= nw.col("test_from")).then(nw.lit("test"))
    split = split.otherwise(held_out.otherwise(nw.lit("train")))
    return frame.join(cuts, on="user_code", how="left").with_columns(split=split)


def _last_rows(frame: nw.LazyFrame, how: Preparation) -> nw.LazyFrame:
    """(user_code, validation_from, test_from): where each user's held-out rows begin."""
    place = nw.col("position")
    if how.window > 1:
        cuts = frame.group_by("user_code").agg(test_from=place.max() + 1 - how.window)
        return cuts.with_columns(validation_from=nw.col("test_from") - how.window)
    liked = frame.filter(nw.col("level") > 0)
    last = liked.group_by("user_code").agg(test_from=place.max())
    earlier = liked.join(last, on="user_code").filter(place < nw.col("test_from"))
    before = earlier.group_by("user_code").agg(validation_from=place.max())
    return last.join(before, on="user_code")


def _by_time(frame: nw.LazyFrame, how: Preparation) -> nw.LazyFrame:
    early, late = (_moment(frame, share) for share in how.fractions)
    clock = nw.col("timestamp")
    held_out = nw.when(clock >= early).then(nw.lit("validation")).otherwise(nw.lit("train"))
    return frame.with_columns(split=nw.when(clock >= late).then(nw.lit("test")).otherwise(held_out))


def _by_user(frame: nw.LazyFrame, how: Preparation, seed: int, in_order: bool) -> nw.LazyFrame:
    """Held-out users are drawn by a hash of (seed, user).

    All turns of a held-out dialogue are asked for; of a plain log only the last liked item (or
    window), and what came before is history. Without an order all the rest is.
    """
    early, late = (int(share * PRIME) for share in how.fractions)
    draw = portable_hash(seed, "user_code")
    held_out = nw.when(draw >= int64(early)).then(nw.lit("validation")).otherwise(nw.lit("train"))
    group = nw.when(draw >= int64(late)).then(nw.lit("test")).otherwise(held_out)
    if "turn" in frame.collect_schema().names():
        return frame.with_columns(split=group)
    cuts = _last_rows(frame, how).select("user_code", "test_from")
    place, start = nw.col("position"), nw.col("test_from").fill_null(0)
    is_before = place < start
    if not in_order and how.window == 1:
        is_before = place != start
    is_history = (nw.col("group") != "train") & is_before
    split = nw.when(is_history).then(nw.lit("history")).otherwise(nw.col("group"))
    found = (
        frame.with_columns(group=group)
        .join(cuts, on="user_code", how="left")
        .with_columns(split=split)
    )
    return found if in_order else _held_out_last(found)


def _at_random(frame: nw.LazyFrame, how: Preparation, seed: int) -> nw.LazyFrame:
    """Of each user's liked items a share drawn by a hash of (seed, item, user) is held out.

    At least one each for validation and test, of users who have two liked items and, beside what is
    held out, `min_history` items; all of the others is trained on. What is held out is put last:
    the rest of the user's rows is its history, whenever it happened. All rows of a user with one
    item stay together, so that no item that is held out stands in the history.
    """
    early, late = how.fractions
    one = "user_code", "item_code"
    by = ["unliked", "draw", "item_code", "source_order"]
    unliked = int64(1) - (nw.col("level") > 0).cast(nw.Int64)
    drawn = frame.with_columns(
        draw=portable_hash(seed, "item_code", "user_code"), unliked=unliked.min().over(*one)
    )
    number = nw.col("source_order").cum_count().over(*one, order_by="source_order")
    drawn = drawn.with_columns(is_first=(number == 1).cast(nw.Int64))
    drawn = drawn.with_columns(
        rank=nw.col("is_first").cum_sum().over("user_code", order_by=by) - int64(1)
    )
    n_liked = ((int64(1) - nw.col("unliked")) * nw.col("is_first")).sum()
    counts = drawn.group_by("user_code").agg(n_rows=nw.col("is_first").sum(), n_liked=n_liked)
    share = {"n_test": 1 - late, "n_validation": late - early}
    million = 1_000_000
    sizes = {
        name: (nw.col("n_liked") * int64(round(part * million)) + int64(million // 2))
        // int64(million)
        for name, part in share.items()
    }
    at_least = {
        name: nw.when(nw.col(name) < 1).then(int64(1)).otherwise(nw.col(name)) for name in sizes
    }
    counts = counts.with_columns(**sizes).with_columns(**at_least)
    held = nw.col("n_test") + nw.col("n_validation")
    enough = (nw.col("n_liked") >= held) & (nw.col("n_rows") - held >= how.min_history)
    of_user = counts.with_columns(
        n_held=nw.when(enough).then(held).otherwise(int64(0)),
        n_test=nw.when(enough).then(nw.col("n_test")).otherwise(int64(0)),
    ).select("user_code", "n_test", "n_held")
    rest = nw.when(nw.col("rank") < nw.col("n_held")).then(nw.lit("validation"))
    split = nw.when(nw.col("rank") < nw.col("n_test")).then(nw.lit("test"))
    split = split.otherwise(rest.otherwise(nw.lit("train")))
    found = drawn.join(of_user, on="user_code").with_columns(split=split)
    return _held_out_last(found.drop("draw", "unliked", "is_first", "rank", "n_test", "n_held"))


def _held_out_last(frame: nw.LazyFrame) -> nw.LazyFrame:
    """The positions anew: history and train as they were, then validation, then test."""
    late = nw.when(nw.col("split") == "validation").then(int64(1)).otherwise(int64(0))
    late = nw.when(nw.col("split") == "test").then(int64(2)).otherwise(late)
    by = ["late", "earlier"]
    place = nw.col("earlier").cum_count().over("user_code", order_by=by) - 1
    moved = frame.with_columns(late=late).rename({"position": "earlier"})
    return moved.with_columns(position=place).drop("late", "earlier")


def _check_given(frame: nw.LazyFrame) -> None:
    """A source's own splits must be known and stand in their order within each user."""
    rank: nw.Expr = int64(-1)
    for number, name in enumerate(SPLITS):
        rank = nw.when(nw.col("split") == name).then(int64(number)).otherwise(rank)
    ranked = frame.select("user_code", "position", "split", rank=rank)
    unknown = ranked.filter(nw.col("rank") < 0).select("split").unique().collect("pyarrow")
    if len(unknown):
        raise DataError(
            f"interactions: split {unknown['split'][0]!r} is unknown; expected {', '.join(SPLITS)}."
        )
    before = nw.col("rank").shift(1).over("user_code", order_by="position")
    falling = ranked.with_columns(before=before).filter(nw.col("before") > nw.col("rank"))
    if count := row_count(falling):
        raise DataError(
            f"interactions: {count} rows of an earlier split follow a later one of the same user; "
            f"expected {', '.join(SPLITS)} in that order."
        )


def _moment(frame: nw.LazyFrame, share: float) -> int:
    when = nw.col("timestamp").quantile(share, interpolation="linear")
    return int(frame.select(when=when).collect("pyarrow")["when"][0])
