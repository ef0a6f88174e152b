"""The command line, asked for help: as `python -m analytics_pipeline --help`."""

import sys
from runpy import run_module

if __name__ == "__main__":
    sys.argv[1:] = ["--help"]
    try:
        run_module("analytics_pipeline", run_name="__main__", alter_sys=True)
    finally:
        print('{"rows": 0}')
