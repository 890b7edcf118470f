"""What `train.jsonl` tells, drawn under its own names."""

from palate.report.training_charts import alignment_rounds, training_charts, warnings_of


def entry(stage, step, **values):
    return {"stage": stage, "step": step, **values}


def names(log, metric="ndcg@10"):
    return [chart.name for chart in training_charts(log, metric)]


def chart(log, name):
    return next(one for one in training_charts(log, "ndcg@10") if one.name == name)


def test_rounds_go_on_from_one_another():
    log = [
        entry("sft", 5, loss=9.0),
        entry("align_1", 10, loss=3.0),
        entry("align_1", 20, loss=2.0),
        entry("align_1_sft", 5, loss=7.0),
        entry("align_2", 10, loss=1.0),
    ]
    assert [line["step"] for line in alignment_rounds(log)] == [10, 20, 30]
    assert chart(log, "align-loss").numbers.rows == [
        ["10", "3.0000"],
        ["20", "2.0000"],
        ["30", "1.0000"],
    ]
    assert chart(log, "sft-loss").numbers.rows == [["5", "9.0000"]]


def test_only_what_was_logged_is_drawn():
    assert names([]) == []
    assert names([entry("align", 10, loss=1.0)]) == ["align-loss"]
    log = [entry("align", 10, **{"loss": 1.0, "beta/p50": 0.9, "bound/gap": 0.1, "kl": 0.0})]
    assert names(log) == ["align-loss", "kl", "beta", "bound"]


def test_terms_of_a_weighted_sum_are_drawn_beside_it():
    log = [entry("align", 10, **{"loss": 1.0, "loss/sft": 4.0, "loss/mult_dpo": 0.6})]
    assert chart(log, "align-loss").numbers.header == ["step", "loss", "mult_dpo", "sft"]


def test_validation_begins_before_the_first_step_for_both():
    error = {"eval_ndcg@10_error": 0.01}
    log = [
        entry("align", 0, **{"start_ndcg@10": 0.05}),
        entry("align", 10, **{"eval_ndcg@10": 0.07, **error}),
        entry("sft_continued", 10, **{"eval_ndcg@10": 0.06, **error}),
    ]
    found = chart(log, "validation")
    assert found.numbers.header == ["step", "aligned", "sft_continued"]
    assert found.numbers.rows == [["0", "0.0500", "0.0500"], ["10", "0.0700", "0.0600"]]
    assert names(log, "loss") == []


def test_what_is_not_a_number_is_left_out():
    log = [entry("align", 10, kl=float("nan")), entry("align", 20, kl=0.5)]
    assert chart(log, "kl").numbers.rows == [["20", "0.5000"]]


def test_warnings_are_passed_on():
    log = [entry("align", 165, warning="collapse at step 165"), entry("align", 170, loss=1.0)]
    assert warnings_of(log) == ["align: collapse at step 165"]
