"""The dbt project of the examples, run for real; in an environment of its own."""
