"""The HTTP side: knows neither dlt nor Arrow."""
