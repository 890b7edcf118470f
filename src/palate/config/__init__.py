"""The configuration of a run: one YAML file, checked whole before anything starts."""

from palate.config.reading import load_config, parse_config, source_arguments
from palate.config.sections import (
    METRICS,
    AdapterConfig,
    AlignConfig,
    DataConfig,
    EvaluationConfig,
    PolicyConfig,
    RunConfig,
    Section,
    SequenceShape,
    SFTConfig,
    TrainingOptions,
)

__all__ = [
    "METRICS",
    "AdapterConfig",
    "AlignConfig",
    "DataConfig",
    "EvaluationConfig",
    "PolicyConfig",
    "RunConfig",
    "SFTConfig",
    "Section",
    "SequenceShape",
    "TrainingOptions",
    "load_config",
    "parse_config",
    "source_arguments",
]
