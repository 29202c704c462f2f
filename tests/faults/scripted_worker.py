"""A worker whose trainers do what a test tells them: `scripted_worker.py SCRIPT VISIBILITY_TIMEOUT`."""

import sys

from app import doorbell
from tests.worker.helpers import scripted
from worker.__main__ import main

if __name__ == "__main__":
    doorbell.REDIS_OPTIONS["visibility_timeout"] = int(sys.argv[2])
    sys.exit(main(["--devices", "cpu"], scripted(sys.argv[1])))
