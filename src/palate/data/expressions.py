"""Small relational pieces, the same on every engine."""

import narwhals as nw

PRIME = 2**31 - 1


def portable_hash(seed: int, *columns: str) -> nw.Expr:
    """Integers below the prime 2^31 − 1 from integer columns, the same on every engine.

    For each column the state goes twice through x² + a x + c modulo the prime: the square mixes
    what a linear generator would only shift. All literals are 64-bit: Spark would otherwise
    compute in 32 bits and overflow.
    """
    prime = int64(PRIME)
    state: nw.Expr = int64(seed % PRIME)
    for column in columns:
        state = (state + nw.col(column).cast(nw.Int64)) % prime
        for factor, constant in ((48_271, 1_013_904_223), (69_621, 12_345)):
            linear = state * int64(factor) + int64(constant)
            state = (state * state % prime + linear) % prime
    return state


def row_count(frame: nw.LazyFrame) -> int:
    """Number of rows; runs the plan."""
    return int(frame.select(n=nw.len()).collect("pyarrow")["n"][0])


def int64(value: int) -> nw.Expr:
    """A 64-bit literal."""
    return nw.lit(value, dtype=nw.Int64)
