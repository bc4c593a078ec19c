"""Let `python -m perdure` be the command `perdure`."""

from .cli import main

main()
