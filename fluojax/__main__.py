"""`python -m fluojax` is the command line."""

import sys

from fluojax.cli import main

sys.exit(main())
