"""Tables for notebooks."""

from collections.abc import Iterable, Sequence
from html import escape

_TEXT_MAX = 200


def text(value: object) -> str:
    """A value as escaped text, cut to a readable length."""
    shown = str(value)
    return escape(shown if len(shown) <= _TEXT_MAX else shown[: _TEXT_MAX - 1] + "…")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """An HTML table of text cells."""
    top = "".join(f"<th>{text(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
