"""`python -m waferdb` is the command `waferdb`."""

from .cli import main

main()
