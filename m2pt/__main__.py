"""`python -m m2pt` is the command `m2pt`."""

import sys

from m2pt.commands import main

sys.exit(main())
