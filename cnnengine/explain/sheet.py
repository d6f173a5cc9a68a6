"""Sheets: many pictures in rows, with their names. Pillow draws the letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .pictures import as_rgb

PAPER, INK = (255, 255, 255), (40, 40, 40)
TEXT, LINE = 13, 17  # pixels: the letters' size, from one line to the next
GAP = 6  # pixels between pictures
TITLE = 132  # pixels for what stands before a row


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures side by side, (H, W), (H, W, 1) or (H, W, 3); what stands before them, and under each."""

    title: str
    pictures: Sequence[np.ndarray]
    captions: Sequence[str] = ()


def sheet(rows: Sequence[Row], heading: str = "", side: int = 96) -> Image.Image:
    """Row below row. The longer side of each picture becomes ``side``: a larger one is averaged down, of a smaller one
    pixels are repeated. Raises ValueError for a row without pictures."""
    lines = []
    for row in rows:
        if not row.pictures:
            raise ValueError(f"sheet: row {row.title!r} has no pictures")
        captions = [*row.captions, *[""] * (len(row.pictures) - len(row.captions))]
        cells = [captioned(fitted(p, side), text) for p, text in zip(row.pictures, captions, strict=True)]
        lines.append(beside([lettering(row.title, TITLE), *cells] if row.title else cells))
    if not lines:
        raise ValueError("sheet: there are no rows")
    page = below(lines)
    return framed(below([lettering(heading, max(page.width, 320)), page]) if heading else page)


def fitted(picture: np.ndarray, side: int) -> Image.Image:
    """The picture with ``side`` pixels on its longer side."""
    image = Image.fromarray(as_rgb(picture))
    longest = max(image.size)
    width, height = (max(1, round(length * side / longest)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX if longest > side else Image.Resampling.NEAREST)


def captioned(image: Image.Image, text: str) -> Image.Image:
    """The image with a text below it, as wide as the image."""
    return below([image, lettering(text, image.width)], gap=1) if text else image


def lettering(text: str, width: int) -> Image.Image:
    """Lines of text, broken at spaces where they are wider than ``width``."""
    font = ImageFont.load_default(TEXT)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}".strip()
            if line and measure.textlength(longer, font) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    widest = int(max(measure.textlength(line, font) for line in lines)) + 1
    image = Image.new("RGB", (max(width, widest), LINE * len(lines)), PAPER)
    for i, line in enumerate(lines):
        ImageDraw.Draw(image).text((0, LINE * i), line, INK, font)
    return image


def beside(images: Sequence[Image.Image]) -> Image.Image:
    """Images in a row, their upper edges level."""
    width = sum(image.width for image in images) + GAP * (len(images) - 1)
    page, x = Image.new("RGB", (width, max(image.height for image in images)), PAPER), 0
    for image in images:
        page.paste(image, (x, 0))
        x += image.width + GAP
    return page


def below(images: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Images in a column, their left edges level."""
    height = sum(image.height for image in images) + gap * (len(images) - 1)
    page, y = Image.new("RGB", (max(image.width for image in images), height), PAPER), 0
    for image in images:
        page.paste(image, (0, y))
        y += image.height + gap
    return page


def framed(image: Image.Image) -> Image.Image:
    """With a margin of paper."""
    page = Image.new("RGB", (image.width + 2 * GAP, image.height + 2 * GAP), PAPER)
    page.paste(image, (GAP, GAP))
    return page
