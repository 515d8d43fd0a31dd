"""`python -m homewire.cli`: the command line without the installed script."""

from homewire.cli import main

main()
