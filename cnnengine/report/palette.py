"""Colours of figures and pages by what they stand for, light and dark. No two series rely on colour alone: each has a
marker of its own and its name beside it."""

from __future__ import annotations

from dataclasses import dataclass

from ..backends.registry import NAMES

LIGHT, DARK = "light", "dark"
COLOURS: dict[str, dict[str, str]] = {
    LIGHT: {
        "surface": "#ffffff",
        "raised": "#f4f6f9",
        "ink": "#1a1f27",
        "muted": "#545d6b",
        "line": "#d5dbe3",
        "roof": "#1a1f27",
        "ours": "#08398f",
        "torch": "#cf3a08",
        "numpy": "#75706d",
        "cudnn": "#0a2e22",
        "onnxruntime": "#bc24c2",
        "openvino": "#5f430a",
        "much-faster": "#b9d3f7",
        "faster": "#dfeafb",
        "even": "#f0f1f3",
        "slower": "#fde5d3",
        "much-slower": "#f8c39b",
    },
    DARK: {
        "surface": "#14171c",
        "raised": "#1e232b",
        "ink": "#eceff4",
        "muted": "#a3adbb",
        "line": "#363e4a",
        "roof": "#eceff4",
        "ours": "#93bbf2",
        "torch": "#ff5526",
        "numpy": "#8f9a90",
        "cudnn": "#cff4ea",
        "onnxruntime": "#e15bec",
        "openvino": "#f6c449",
        "much-faster": "#1d4479",
        "faster": "#1b2f4b",
        "even": "#262b33",
        "slower": "#482c19",
        "much-slower": "#713d12",
    },
}
SERIES = ("ours", "torch", "numpy", "cudnn", "onnxruntime", "openvino")
TEXT = ("ink", "muted")
GROUNDS = ("surface", "raised")
TINTS = ("much-faster", "faster", "even", "slower", "much-slower")  # behind text in ink


@dataclass(frozen=True)
class Family:
    """What contenders that belong together look like. ``hollow``: an outline; ``order``: in ladders, lowest first."""

    label: str
    role: str
    shape: str
    hollow: bool = False
    order: int = 0


THEIRS = (  # the beginning of a contender's name
    ("NumPy", Family("NumPy", "numpy", "triangle", order=0)),
    ("ONNX Runtime", Family("ONNX Runtime", "onnxruntime", "triangle down", order=1)),
    ("OpenVINO", Family("OpenVINO", "openvino", "pentagon", order=2)),
    ("PyTorch nchw", Family("PyTorch NCHW", "torch", "diamond", hollow=True, order=3)),
    ("PyTorch", Family("PyTorch", "torch", "square", order=4)),
    ("cuDNN", Family("cuDNN", "cudnn", "star", order=5)),
)
OTHER = Family("others", "numpy", "pentagon", hollow=True, order=6)
DEFAULT = Family("ours", "ours", "circle", order=8)
RUNG = Family("ours, other rungs", "ours", "circle", hollow=True, order=7)


def family_of(contender: str) -> Family:
    """By the contender's name in a result row."""
    if contender in NAMES:
        return DEFAULT
    if contender.split()[0] in NAMES:
        return RUNG
    return next((family for start, family in THEIRS if contender.startswith(start)), OTHER)


def tint(ratio: float) -> str:
    """The role behind a ratio theirs / ours."""
    steps = ((2.0, "much-faster"), (1.05, "faster"), (1 / 1.05, "even"), (0.5, "slower"))
    return next((role for least, role in steps if ratio >= least), "much-slower")


def variables(theme: str) -> str:
    """As declarations of CSS."""
    return "".join(f"--{role}:{colour};" for role, colour in COLOURS[theme].items())


def luminance(colour: str) -> float:
    """Relative, 0 to 1, of #rrggbb (WCAG 2.2)."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
