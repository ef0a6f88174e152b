"""The import that every program using dlt waits for."""

import dlt  # noqa: F401

if __name__ == "__main__":
    print('{"rows": 0}')
