"""Let `python -m perdure` be the command `perdure`."""

from perdure.cli.main import main

main()
