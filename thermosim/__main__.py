"""`python -m thermosim` is the `thermosim` command."""

import sys

from thermosim.cli import main

sys.exit(main())
