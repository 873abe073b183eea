"""`python -m choral`."""

from choral.cli import main

main()
