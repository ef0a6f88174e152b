"""What every program that uses dlt waits for."""

import dlt  # noqa: F401

if __name__ == "__main__":
    print('{"rows": 0}')
