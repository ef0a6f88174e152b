"""The dbt project of the examples, run in a separate environment."""
