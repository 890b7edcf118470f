"""The colours of a page, light and dark; charts name them and the page fills them in."""

PALETTE = {
    "page": ("#f6f6f3", "#121417"),
    "surface": ("#ffffff", "#1a1d21"),
    "line": ("#dcdcd8", "#34383e"),
    "ink": ("#1b1d21", "#e9eaec"),
    "muted": ("#565b64", "#a8adb5"),
    "aligned": ("#1257a8", "#7fb4f5"),
    "sft": ("#9a4a07", "#f0a66a"),
    "continued": ("#6a3fa0", "#c4a5f3"),
    "baseline": ("#5c6068", "#9aa0a9"),
    "better": ("#0b6b3a", "#6fd096"),
    "worse": ("#b3261e", "#ff9b90"),
    "caution": ("#855400", "#e3b55f"),
}
"""Name → (light, dark). What is read stands out from page and surface by 4.5 to 1 at least."""
BACKGROUNDS = ("page", "surface")
LINES = ("line",)
"""Colours in which nothing is written."""
OF_STAGE = {"aligned": "aligned", "sft": "sft", "sft_continued": "continued"}
SERIES = ("aligned", "sft", "continued", "better", "worse", "caution", "baseline")
"""Colours of lines that are no stages, in this order."""


def colour(name: str) -> str:
    """A colour of the palette as a page's style and script know it."""
    return f"var(--{name})"


def stage_colour(stage: str) -> str:
    """The colour of a stage; baselines share one."""
    return colour(OF_STAGE.get(stage, "baseline"))
