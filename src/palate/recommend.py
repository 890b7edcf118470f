# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
"""Lists for people whose next step nobody knows: a saved policy and a log, no held-out answers."""

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from palate.data.contexts import Context
from palate.data.sources.files import files
from palate.data.tables import SKIP
from palate.environment import device_of
from palate.errors import CheckpointError, ConfigError, DataError, DataWarning
from palate.evaluation.ranking import steps
from palate.files import replacing, write_table
from palate.policies import Policy, load_policy
from palate.starting_policy import find_code_of

BATCH = 32


def recommend(policy: Policy, log: Path, columns: dict[str, str], top: int = 10) -> pa.Table:
    """The best items for everyone in a log, without those they have had.

    Args:
        policy: a policy with a catalogue.
        log: interactions as the source `files` reads them, in the ids of the policy's source.
        columns: our name of a column → the file's.
        top: items in a list.

    Returns:
        user_id, rank (1 is best), item_id, title, score (log π); users in the order of the log.

    Raises:
        DataError: the log is unreadable, or names no item that the policy knows.
        CheckpointError: the policy has no catalogue.
    """
    if policy.items is None:
        raise CheckpointError("this policy has no catalogue to recommend from; give a run folder.")
    if getattr(getattr(policy, "prompter", None), "shows_dialogue", False):
        raise ConfigError(
            "this policy's prompts hold a dialogue, which a log has none of; recommend takes "
            "policies that read histories."
        )
    try:
        events = files(log, columns=columns).interactions
    except DataError as error:  # said for a run's configuration; here it is flags
        said = str(error).replace("--set data.options.columns.", "--columns ")
        raise DataError(said.replace(" or pass --set data.options.on_bad_rows=drop", "")) from error
    if "event" in events.column_names:
        events = events.filter(pc.not_equal(pc.fill_null(events["event"], ""), SKIP))
    is_timed = "timestamp" in events.column_names
    if is_timed:
        events = events.append_column("row", pa.array(range(events.num_rows)))
        events = events.sort_by([("timestamp", "ascending"), ("row", "ascending")])
    names = [str(name) for name in policy.items["source_id"].to_pylist()]
    titles = policy.items["title"].to_pylist()
    row_of = {name: row for row, name in enumerate(names)}
    histories: dict[object, dict[int, int]] = {}
    unknown = 0
    times = events["timestamp"].to_pylist() if is_timed else [0] * events.num_rows
    for user, item, time in zip(
        events["user_id"].to_pylist(), events["item_id"].to_pylist(), times, strict=True
    ):
        row = row_of.get(str(item))
        if row is None:
            unknown += 1
        else:
            history = histories.setdefault(user, {})
            history.pop(row, None)  # of several events with one item the last counts
            history[row] = time
    if not histories:
        raise DataError(
            f"{log}: none of its {events.num_rows:,} rows names an item that the policy knows, "
            f"such as {names[0]}. Expected the item ids of the log it was trained on."
        )
    if unknown:
        warnings.warn(
            f"{log}: {unknown:,} of {events.num_rows:,} rows name an item that the policy does not "
            "know; they are left out.",
            DataWarning,
            stacklevel=2,
        )
    users = list(histories)
    lists = {"user_id": [], "rank": [], "item_id": [], "title": [], "score": []}
    nothing = np.empty(0, np.int64)
    for start in steps(len(users), BATCH, "recommend"):
        batch = [
            Context(
                np.array(list(histories[user])),
                nothing,
                nothing,
                context_id=start + offset,
                times=np.array(list(histories[user].values())) if is_timed else None,
            )
            for offset, user in enumerate(users[start : start + BATCH])
        ]
        ranking = policy.rank(batch, top)
        for offset in range(len(batch)):
            for place, (item, score) in enumerate(
                zip(ranking.item_ids[offset], ranking.scores[offset], strict=True), start=1
            ):
                if np.isneginf(score):
                    break
                lists["user_id"].append(users[start + offset])
                lists["rank"].append(place)
                lists["item_id"].append(policy.items["source_id"][int(item)].as_py())
                lists["title"].append(titles[item])
                lists["score"].append(float(score))
    return pa.table(lists)


def policy_of(folder: Path) -> Policy:
    """The best policy of a run folder (aligned, else sft), or the one a folder holds itself."""
    for name in ("aligned", "sft"):
        if (folder / name / "palate.json").is_file():
            find_code_of(folder)
            folder = folder / name
            break
    policy = load_policy(folder)
    policy.model.to(device_of("auto"))
    return policy


def write_lists(lists: pa.Table, out: Path) -> None:
    """Write lists as .csv or .parquet, whole or not at all."""
    if out.suffix == ".parquet":
        write_table(lists, out)
    else:
        with replacing(out) as temporary:
            pcsv.write_csv(lists, temporary)


def check_out(out: Path) -> None:
    """Raise a ConfigError for a file name that says no known form."""
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out {out}: expected a name that ends in .csv or .parquet.")
