# pyright: reportMissingImports=false
"""SASRec on Amazon Beauty by RecBole 1.2, as its users train it; needs RecBole, not Palate.

    python examples/module-policy/recbole_train.py --data PATH/TO/amazon-beauty --out runs/recbole

The last item of each user is held out for the test, the one before for validation.
"""

import argparse
import csv
import gzip
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_logger, init_seed
from recbole_export import export


def main() -> None:
    """Write RecBole's form of the log, train, and export the best epoch's weights."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--users", type=int, help="only the first so many")
    given = parser.parse_args()
    write_log(given.data / "sequences.tsv.gz", given.out / "beauty" / "beauty.inter", given.users)
    config = Config(
        model="SASRec",
        dataset="beauty",
        config_dict={
            "data_path": str(given.out.resolve()),
            "checkpoint_dir": str(given.out / "saved"),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "train_neg_sample_args": None,
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
            "metrics": ["NDCG", "Hit"],
            "valid_metric": "NDCG@10",
            "epochs": given.epochs,
            "show_progress": False,
            "use_gpu": False,
        },
    )
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    dataset = create_dataset(config)
    training, validation, test = data_preparation(config, dataset)
    model = get_model("SASRec")(config, training._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    best: dict[str, Any] = {"score": -1.0}

    def keep_best(_: int, score: float) -> None:
        if score >= best["score"]:
            weights = {name: one.clone() for name, one in model.state_dict().items()}
            best.update(score=score, weights=weights)

    # saved=False: RecBole's checkpoints are pickles, which torch 2.6 and newer refuse to load
    trainer.fit(training, validation, saved=False, callback_fn=keep_best)
    model.load_state_dict(best["weights"])
    print(f"RecBole's own test figures: {dict(trainer.evaluate(test, load_best_model=False))}")
    out = given.out / "saved" / "sasrec.safetensors"
    export(model, dataset, config, out)
    print(f"wrote {out}")


def write_log(sequences: Path, path: Path, users: int | None) -> None:
    """Sequences of items as interactions; places stand for times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(sequences, "rt", encoding="utf-8") as source, path.open("w") as out:
        out.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for row, line in enumerate(csv.DictReader(source, delimiter="\t")):
            if users is not None and row >= users:
                break
            for place, item in enumerate(line["item_ids"].split()):
                out.write(f"{line['user_id']}\t{item}\t{place}\n")


if __name__ == "__main__":
    main()
