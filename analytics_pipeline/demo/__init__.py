"""The built-in API server of the `demo` command and the notebook."""

from analytics_pipeline.demo.http import Request, Response
from analytics_pipeline.demo.server import DemoServer

__all__ = ["DemoServer", "Request", "Response"]
