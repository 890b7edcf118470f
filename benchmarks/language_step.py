"""An alignment step of a language model: the token tree against copies of the prompt and TRL.

    python benchmarks/language_step.py [--quick] [--json PATH] [--data ../shared/data/lastfm]
    python benchmarks/language_step.py --size 100m

Prompts are those of the Last.fm windows: ten artists heard, twenty candidates listed. A step is a
batch of 4 contexts with one positive and N negatives: forward, S-DPO against a frozen reference,
backward, AdamW. Compared, in turn in one process, on the same contexts, weights and threads:

* *copies*: every candidate a row of its own with the whole prompt, as released trainers do it; the
  reference a second forward pass over the same rows;
* *tree*: `LanguagePolicy` as it trains, the reference live or with its log-probabilities known;
* *imitation*: an SFT step on the positives of the same contexts;
* *TRL*: a step of its `DPOTrainer` with the first negative alone, whatever N (installed on first
  use, by this benchmark only, see `language_step_trl.py`; with --quick only where --trl is given).

The allocator keeps freed memory: the script starts itself again with that setting. Peak memory and
times under the default allocator, both with 15 negatives, are measured in processes of their own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from language_step_sides import CONTEXTS, COPIES, HISTORY, IMITATION, KNOWN, LISTED, LIVE, Steps
from language_step_trl import PACKAGES, TRL, TRL_CHECKPOINTING, TRL_KNOWN
from measuring import KEEPING, conditions, flags, in_turn, keep_freed_memory, publish

from palate.policies.language.from_scratch import SIZES

NEGATIVES, MANY = (1, 5, 15, 19), 15
PRODUCT, PRODUCTS, WIDE = "matrix product", 10, 2048


def main() -> None:
    """Measure, print, and write the tables."""
    parser = flags(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/lastfm"))
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--trl", action=argparse.BooleanOptionalAction)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.trl = not given.quick if given.trl is None else given.trl
    if given.worker:
        print(json.dumps(work(given)))
        return
    keep_freed_memory()
    counts = (MANY,) if given.size == "100m" else (1, MANY) if given.quick else NEGATIVES
    sides = [COPIES, LIVE, KNOWN, *([TRL] if given.trl else [])]
    # Before this process holds memory that it keeps.
    figures: dict[str, Any] = {"memory": {side: in_a_process(given, side) for side in sides}}
    if not given.quick:
        figures["default allocator"] = in_a_process(given, "seconds")
    for negatives in counts:
        steps = Steps(given, negatives)
        seconds = in_turn({**steps.sides(), PRODUCT: matrix_product}, turns(given))
        figures[str(negatives)] = {"seconds": seconds, **steps.sizes()}
        print(f"N = {negatives}: {medians(seconds)}", file=sys.stderr)
    publish(report(figures, counts, given), figures, given, f"language_step_{given.size}")


def turns(given: argparse.Namespace) -> int:
    """Figures of each side."""
    return 1 if given.quick else 3 if given.size == "100m" else 5


def matrix_product() -> None:
    """Ten large float32 products: what the machine can do in that turn."""
    left, right = torch.ones(WIDE, WIDE), torch.ones(WIDE, WIDE)
    for _ in range(PRODUCTS):
        torch.mm(left, right)


def work(given: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own measures: seconds of all sides, or one side's memory."""
    steps = Steps(given, MANY)
    if given.worker == "seconds":
        return {"seconds": in_turn(steps.sides(), turns(given))}
    sides = steps.sides()
    sides[IMITATION]()  # the optimiser's state belongs to what is loaded
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(2):
        sides[given.worker]()
    return {"loaded": before, "peak": _resident("VmHWM")}


def in_a_process(given: argparse.Namespace, worker: str) -> dict[str, Any]:
    """`work` in a fresh process, whose allocator gives back what is free."""
    with_trl = given.trl and worker in (TRL, "seconds")
    command = [sys.executable, __file__, "--worker", worker, "--size", given.size]
    command += ["--data", str(given.data), "--trl" if with_trl else "--no-trl"]
    environment = {key: value for key, value in os.environ.items() if key not in KEEPING}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _resident(field: str) -> float:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {field}; this benchmark needs Linux.")


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Side → the middle of its turns."""
    return {side: round(statistics.median(values), 3) for side, values in seconds.items()}


def ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    """The middle of the turns' ratios."""
    pairs = zip(seconds[over], seconds[under], strict=True)
    return statistics.median(a / b for a, b in pairs)


def report(figures: dict[str, Any], counts: tuple[int, ...], given: argparse.Namespace) -> str:
    """The tables as Markdown."""
    many = figures[str(MANY)]
    seconds = many["seconds"]
    parts = [
        f"""# An alignment step of a language model

A step with {MANY} negatives costs 1/{ratio(seconds, COPIES, LIVE):.1f} of one with copies of the \
prompt; with a known reference it costs {ratio(seconds, KNOWN, IMITATION):.2f} × an SFT step on \
the same batch.

{table_of_counts(figures, counts)}

Medians of {turns(given)} turn{"s" if turns(given) > 1 else ""}, ratios within a turn; \
`{given.size}` model of {many["parameters"] / 1e6:.1f} M parameters, {CONTEXTS} contexts, {LISTED} \
candidates in the prompt and a history of {HISTORY}; float32; an allocator that keeps freed \
memory. "By tokens" is what the counts of fed tokens allow if both sides were equally fast per \
token with a live reference.""",
        *([table_of_trl(many)] if given.trl else []),
        *([table_of_allocators(figures)] if "default allocator" in figures else []),
        "\n".join(remarks(figures, counts)),
        conditions("transformers"),
    ]
    return "\n\n".join(parts)


def table_of_counts(figures: dict[str, Any], counts: tuple[int, ...]) -> str:
    """The tree against copies, by the number of negatives."""
    lines = [
        "| negatives | copies, s | tree, s | tree, reference known, s | copies / tree | "
        "copies / known | tokens fed, copies | tokens fed, tree | nodes | by tokens |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for negatives in counts:
        one = figures[str(negatives)]
        seconds, middle = one["seconds"], medians(one["seconds"])
        lines.append(
            f"| {negatives} | {middle[COPIES]:.2f} | {middle[LIVE]:.2f} | {middle[KNOWN]:.2f} | "
            f"{ratio(seconds, COPIES, LIVE):.1f} × | {ratio(seconds, COPIES, KNOWN):.1f} × | "
            f"{one['copies']:,} | {one['tree']:,} | {one['nodes']:,} | "
            f"{one['copies'] / one['tree']:.1f} × |"
        )
    return "\n".join(lines)


def table_of_trl(many: dict[str, Any]) -> str:
    """The tree with many negatives against TRL with one."""
    seconds = many["seconds"]
    lines = [
        f"| `DPOTrainer`, one negative | its step, s | tree with {MANY} | "
        f"tree with {MANY}, reference known |",
        "|---|---:|---:|---:|",
    ]
    for side in (TRL, TRL_KNOWN, TRL_CHECKPOINTING):
        lines.append(
            f"| {side} | {medians(seconds)[side]:.2f} | {ratio(seconds, LIVE, side):.2f} × | "
            f"{ratio(seconds, KNOWN, side):.2f} × |"
        )
    lines.append(
        f"""
{PACKAGES[0].upper().replace("==", " ")} feeds {many["TRL"]:,} tokens, the tree \
{many["tree"]:,}. Prompts and titles reach it as text and become the same ids; its \
log-probabilities are the tree's to 0.001. TRL checkpoints activations by default (last row), \
which saves memory at the price of a second forward pass; the other rows do not, as the tree does \
not."""
    )
    return "\n".join(lines)


def table_of_allocators(figures: dict[str, Any]) -> str:
    """All sides with many negatives, under both allocators."""
    both = {
        "keeps freed memory": figures[str(MANY)]["seconds"],
        "default": figures["default allocator"]["seconds"],
    }
    sides = list(both["default"])
    lines = [
        f"| allocator, N = {MANY} | {', s | '.join(sides)}, s | copies / tree | copies / known |",
        "|---|" + "---:|" * (len(sides) + 2),
    ]
    for name, seconds in both.items():
        middle = medians(seconds)
        times = " | ".join(f"{middle[side]:.2f}" for side in sides)
        lines.append(
            f"| {name} | {times} | {ratio(seconds, COPIES, LIVE):.1f} × | "
            f"{ratio(seconds, COPIES, KNOWN):.1f} × |"
        )
    return "\n".join(lines)


def remarks(figures: dict[str, Any], counts: tuple[int, ...]) -> list[str]:
    """Use of the processor, growth with the negatives, and memory, as a list."""
    many = figures[str(MANY)]
    middle = medians(many["seconds"])
    product = PRODUCTS * 2 * WIDE**3
    rate, reached = product / middle[PRODUCT], many["matrix flops of copies"] / middle[COPIES]
    share = ratio(many["seconds"], PRODUCT, COPIES) * many["matrix flops of copies"] / product
    lines = [
        f"* Copies reach {reached / 1e9:.0f} of the {rate / 1e9:.0f} GFLOP/s of large float32 "
        f"matrix products in the same turns ({share:.0%}), counting matrix products alone."
    ]
    if len(counts) > 1:
        first, last = figures[str(counts[0])], figures[str(counts[-1])]
        slower = medians(last["seconds"])[LIVE] / medians(first["seconds"])[LIVE]
        lines.append(
            f"* From N = {counts[0]} to N = {counts[-1]} the tree's step grows {slower:.2f} ×, its "
            f"fed tokens {last['tree'] / first['tree']:.2f} ×."
        )
    added = {side: one["peak"] - one["loaded"] for side, one in figures["memory"].items()}
    trl = f"; TRL with one negative {added[TRL]:,.0f} MiB" if TRL in added else ""
    lines.append(
        f"* Peak memory above the loaded models' own, N = {MANY}: copies {added[COPIES]:,.0f} MiB, "
        f"tree {added[LIVE]:,.0f} MiB (1/{added[COPIES] / added[LIVE]:.0f}), tree with known "
        f"reference {added[KNOWN]:,.0f} MiB{trl}."
    )
    return lines


if __name__ == "__main__":
    main()
