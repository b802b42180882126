"""The command line: `waferdb …` and `python -m waferdb …`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs `sys.argv`; exits with 0 (done), 1 (a problem, or not found) or 2 (error)."""
    try:
        import rich  # noqa: F401 - optional packages, named if they are missing
        import typer  # noqa: F401
    except ImportError as error:
        missing = f"error: the command line needs the package {error.name!r}"
        print(f"{missing}: run  pip install 'waferdb[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    from .app import app

    app()
