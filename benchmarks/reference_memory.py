"""Memory of an alignment step by its reference: a frozen copy, the adapter switched off, none.

    python benchmarks/reference_memory.py [--quick] [--json PATH]

Every run is a process of its own that makes a language model with random weights, gives it an
adapter and takes a few real alignment steps. Peak memory is the process's highest resident set;
what imports and data take is told apart from what the model and its training add.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from measuring import conditions, flags, publish

REFERENCES = ("frozen", "adapter_off", "none")
SHAPE = {"hidden": 768, "layers": 8, "heads": 12, "inner": 2048}
CONTEXTS, NEGATIVES, RANK, STEPS = 2, 5, 16, 8
MIB = 2**20


def main() -> None:
    """Measure, print, and write the table."""
    parser = flags(__doc__)
    parser.add_argument("--worker", choices=REFERENCES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.worker)))
        return
    runs = 1 if arguments.quick else 5
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in REFERENCES}
    for run in range(runs):
        for name in REFERENCES:  # in turn, so that a slow moment of the machine meets them all
            measured[name].append(in_a_process(name))
            peak = measured[name][-1]["peak"]
            print(f"run {run + 1} of {runs}: {name} {peak:.0f} MiB", file=sys.stderr)
    publish(report(measured, runs, arguments), measured, arguments, "reference_memory")


def in_a_process(name: str) -> dict[str, float]:
    """One run, alone in a fresh process."""
    command = [sys.executable, __file__, "--worker", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str) -> dict[str, float]:
    """MiB resident before the model and at the peak, MiB of weights held, seconds of a step."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from palate.config import TrainingOptions
    from palate.data.prepare import Preparation, prepare
    from palate.data.prepared import Prepared
    from palate.data.simulator import Simulation
    from palate.data.tables import SourceTables
    from palate.negatives import mixture
    from palate.objectives import s_dpo
    from palate.objectives.weighted_sum import Term, WeightedSum
    from palate.policies import LanguagePolicy
    from palate.policies.language.adapters import Adapter
    from palate.policies.language.from_scratch import train_tokenizer
    from palate.policies.language.prompts import read_templates
    from palate.policies.reference import REFERENCES as KINDS
    from palate.training.align import align

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        world = Simulation(n_users=60, n_items=40, seed=3, visits=16)
        tables = SourceTables(world.interactions(), world.items())
        prepare(tables, folder / "data", Preparation(k_core=2), seed=3)
        data = Prepared(folder / "data", window=1)
        tokenizer = train_tokenizer(data.titles(), vocabulary=2048)
        before = resident("VmRSS")

        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=SHAPE["hidden"],
            intermediate_size=SHAPE["inner"],
            num_hidden_layers=SHAPE["layers"],
            num_attention_heads=SHAPE["heads"],
            num_key_value_heads=SHAPE["heads"],
            tie_word_embeddings=True,
        )
        policy = LanguagePolicy(
            LlamaForCausalLM(config),
            tokenizer,
            data.items,
            read_templates("history")[0],
            max_history=6,
            adapter=Adapter(rank=RANK, alpha=2 * RANK),
        )
        policy.start_stage("align")
        reference = KINDS[name](policy)
        copy = [getattr(reference, "_model", None)]
        held = weights_of(policy.model, *(module for module in copy if module is not None))
        parameters = [(w.numel(), w.requires_grad) for w in policy.model.parameters()]
        began: list[float] = []

        def timed(scores: Any) -> Any:
            began.append(time.perf_counter())
            return s_dpo(scores)

        align(
            policy,
            data,
            mixture({"uniform": NEGATIVES}, data),
            WeightedSum({"s_dpo": Term(1.0, timed)}),
            1.0,
            reference,
            lambda: {"loss": 1.0},
            TrainingOptions(max_steps=STEPS, batch_size=CONTEXTS, metric="loss"),
            folder,
            seed=0,
            trackers=(),
        )
    steps = [after - start for start, after in pairwise(began)]
    return {
        "before": before,
        "peak": resident("VmHWM"),
        "weights": held / MIB,
        "step": statistics.median(steps),
        "parameters": sum(count for count, _ in parameters),
        "trained": sum(count for count, trains in parameters if trains),
    }


def weights_of(*modules: Any) -> int:
    """Bytes of the distinct tensors that modules hold."""
    storages = [w.untyped_storage() for module in modules for w in module.parameters()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def resident(field: str) -> float:
    """MiB of this process's memory: VmRSS now, or VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {field}; this benchmark needs Linux.")


def report(
    measured: dict[str, list[dict[str, float]]], runs: int, given: argparse.Namespace
) -> str:
    """The results as Markdown."""
    middle = {
        name: {key: statistics.median(run[key] for run in of_name) for key in of_name[0]}
        for name, of_name in measured.items()
    }
    base = middle["adapter_off"]
    rows = []
    for name in REFERENCES:
        added = [run["peak"] - run["before"] for run in measured[name]]
        own = middle[name]
        rows.append(
            f"| `{name}` | {own['weights']:.0f} | {own['peak']:.0f} | "
            f"{statistics.median(added):.0f} ({min(added):.0f}–{max(added):.0f}) | "
            f"{own['step']:.2f} |"
        )

    def ratio(key: str) -> str:
        return f"{base[key] / middle['frozen'][key]:.2f}"

    added = {
        name: statistics.median(run["peak"] - run["before"] for run in measured[name])
        for name in REFERENCES
    }
    return f"""# Memory of the reference

`adapter_off` against `frozen`: {ratio("weights")} of the weights, \
{added["adapter_off"] / added["frozen"]:.2f} of the memory that training adds to the process, \
{ratio("peak")} of the whole process's peak.

| reference | weights held, MiB | peak of the process, MiB | added by model and training, MiB \
(range) | step, s |
| --- | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

A Llama with random weights, {base["parameters"] / 1e6:.1f} million parameters in fp32, of which \
{base["trained"] / 1e6:.2f} million train (LoRA, rank {RANK}, every linear layer but the head); \
{STEPS} steps of S-DPO by the Trainer, {CONTEXTS} contexts of 1 positive and {NEGATIVES} negatives \
in each. Median of {runs} run{"s" if runs > 1 else ""}, each in a process of its own; a run's step \
is the median from one loss to the next. The rest of a peak is activations, gradients, Adam's \
state and the allocator's slack. `none` has no reference at all: what `adapter_off` adds to it is \
the second, gradient-free forward pass.

{conditions("transformers", "peft", "accelerate")}"""


if __name__ == "__main__":
    main()
