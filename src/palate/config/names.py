"""Names that only the registries know: of sources, samplers, objectives and references."""

from typing import Any

from palate.config.sections import DataConfig
from palate.config.training import AlignConfig
from palate.errors import did_you_mean


def unknown_names(content: dict[str, Any]) -> list[str]:
    """What is wrong with the names of a configuration and the options of what they name.

    Args:
        content: nested dictionaries; what is missing has its default, and what is of another type
            than it should be is passed over, as pydantic says so.

    Returns:
        A sentence for each problem.
    """
    from palate.chosen_objective import objective_problems
    from palate.data.sources import check_options, sources
    from palate.negatives import check_sampler_options, samplers
    from palate.policies.reference import REFERENCES

    sections = {"data": vars(DataConfig()), "align": vars(AlignConfig())}
    for name in sections:
        if isinstance(content.get(name), dict):
            sections[name] = {**sections[name], **content[name]}
    data, align = sections["data"], sections["align"]
    negatives = align["negatives"] if isinstance(align["negatives"], dict) else {}
    given = align["sampler_options"]
    sampler_options = given if isinstance(given, dict) else {}
    problems = []
    for key, name, known in [
        ("data.source", data["source"], sources()),
        ("align.reference", align["reference"], REFERENCES),
        *[(f"align.negatives.{name}", name, samplers()) for name in negatives],
    ]:
        if isinstance(name, str) and name not in known:
            problems.append(f"{key}: '{name}' is unknown.{did_you_mean(name, known)}")
    problems += objective_problems(align)
    problems += [
        f"align.negatives.{name}: {count} negatives; expected at least 1."
        for name, count in negatives.items()
        if isinstance(count, int) and count < 1
    ]
    for name, options in sampler_options.items():
        if name in samplers():
            problems += check_sampler_options(name, options)
        if name not in negatives:
            hint = did_you_mean(name, negatives)
            problems.append(f"align.sampler_options.{name}: nothing is drawn from it.{hint}")
    source = data["source"]
    if isinstance(source, str) and source in sources() and isinstance(data["options"], dict):
        own = {key: data[key] for key in ("path", "aliases") if data[key]}
        problems += check_options(data["source"], {**own, **data["options"]})
    return problems
