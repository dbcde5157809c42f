"""`python -m fedjax_lite` is the command `fedjax-lite`."""

import sys

from fedjax_lite.cli import main

sys.exit(main())
