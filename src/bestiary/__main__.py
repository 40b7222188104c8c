"""`python -m bestiary`."""

from bestiary.cli.app import main

main()
