"""`python -m meshcore` is `meshproxy`."""

from meshcore.cli import main

main()
