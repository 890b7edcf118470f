# pyright: reportMissingImports=false
"""SASRec on Amazon Beauty by RecBole 1.2, as its users train it; needs RecBole, not Palate.

    python examples/module-policy/recbole_train.py --data PATH/TO/amazon-beauty --out runs/recbole

The last item of each user is held out for the test, the one before for validation.
"""

import argparse
import csv
import gzip
from pathlib import Path

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_logger, init_seed
from recbole_export import export


def main() -> None:
    """Write RecBole's form of the log, train, and export the best checkpoint."""
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
        },
    )
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    training, validation, test = data_preparation(config, create_dataset(config))
    model = get_model("SASRec")(config, training._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    checkpoint = given.out / "saved" / "sasrec.pth"
    trainer.saved_model_file = str(checkpoint)
    trainer.fit(training, validation)
    # not load_best_model=True: RecBole's own loading fails where torch is 2.6 or newer
    print("RecBole's own test figures of the last epoch:")
    print(dict(trainer.evaluate(test, load_best_model=False)))
    print(f"best checkpoint: {trainer.saved_model_file}, and {export(checkpoint)}")


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
