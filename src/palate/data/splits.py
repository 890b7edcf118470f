"""What a person liked, and which part of the log is held out."""

import narwhals as nw

from palate.data.expressions import PRIME, int64, portable_hash, row_count
from palate.data.preparation import Preparation
from palate.data.tables import SPLITS
from palate.errors import DataError


def graded(frame: nw.LazyFrame, how: Preparation, rated: bool) -> nw.LazyFrame:
    """Adds `level` (how many rating thresholds are reached) and `disliked`."""
    if not rated:
        return frame.with_columns(level=int64(1), disliked=nw.lit(False))
    level: nw.Expr = int64(0)
    for threshold in how.levels:
        level = level + (nw.col("rating") >= threshold).cast(nw.Int64)
    never = nw.lit(False)
    disliked = never if how.disliked is None else nw.col("rating") <= how.disliked
    return frame.with_columns(level=level, disliked=disliked)


def split_rows(frame: nw.LazyFrame, how: Preparation, seed: int) -> nw.LazyFrame:
    """Adds `split`: each user's rows are history, then train, then validation, then test.

    Rows of "history" are looked back on and never asked for.
    """
    if row_count(frame.filter(nw.col("level") > 0)) == 0:
        raise DataError(
            f"data.levels: no rating reaches {how.levels[0]}, so nothing counts as liked. Lower "
            "it with --set data.levels=[…]."
        )
    if how.split == "given":
        _check_given(frame)
        return frame
    if how.split == "global_time":
        return _by_time(frame, how)
    if how.split == "by_user":
        return _by_user(frame, how, seed)
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


def _by_user(frame: nw.LazyFrame, how: Preparation, seed: int) -> nw.LazyFrame:
    """Held-out users are drawn by a hash of (seed, user).

    All turns of a held-out dialogue are asked for; of a plain log only the last liked item (or
    window), and what came before is history.
    """
    early, late = (int(share * PRIME) for share in how.fractions)
    draw = portable_hash(seed, "user_code")
    held_out = nw.when(draw >= int64(early)).then(nw.lit("validation")).otherwise(nw.lit("train"))
    group = nw.when(draw >= int64(late)).then(nw.lit("test")).otherwise(held_out)
    if "turn" in frame.collect_schema().names():
        return frame.with_columns(split=group)
    cuts = _last_rows(frame, how).select("user_code", "test_from")
    is_before = nw.col("position") < nw.col("test_from").fill_null(0)
    is_history = (nw.col("group") != "train") & is_before
    split = nw.when(is_history).then(nw.lit("history")).otherwise(nw.col("group"))
    return (
        frame.with_columns(group=group)
        .join(cuts, on="user_code", how="left")
        .with_columns(split=split)
    )


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
