"""Leak and shortcut probes on data and candidate lists, without a model."""

from palate.audit.all_probes import audit, audit_of, read_audit
from palate.audit.findings import Audit, Finding
from palate.audit.material import material, read_assignments
from palate.audit.table import beside_results, markdown_report, rich_report

__all__ = [
    "Audit",
    "Finding",
    "audit",
    "audit_of",
    "beside_results",
    "markdown_report",
    "material",
    "read_assignments",
    "read_audit",
    "rich_report",
]
