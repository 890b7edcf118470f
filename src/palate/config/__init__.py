"""The configuration of a run: one YAML file, checked whole before anything starts."""

from palate.config.policy import AdapterConfig, PolicyConfig, SequenceShape
from palate.config.pool import PoolConfig
from palate.config.reading import checked, load_config, parse_config, source_arguments
from palate.config.section import Section
from palate.config.sections import DataConfig, EvaluationConfig, RunConfig
from palate.config.training import METRICS, AlignConfig, SFTConfig, TrainingOptions
from palate.config.vectors import ImageVectorsConfig, TextVectorsConfig, VectorsConfig

__all__ = [
    "METRICS",
    "AdapterConfig",
    "AlignConfig",
    "DataConfig",
    "EvaluationConfig",
    "ImageVectorsConfig",
    "PolicyConfig",
    "PoolConfig",
    "RunConfig",
    "SFTConfig",
    "Section",
    "SequenceShape",
    "TextVectorsConfig",
    "TrainingOptions",
    "VectorsConfig",
    "checked",
    "load_config",
    "parse_config",
    "source_arguments",
]
