"""Run the command line: `python -m analytics_pipeline`."""

from analytics_pipeline.cli.process import program

if __name__ == "__main__":
    raise SystemExit(program())
