"""An OpenAI-compatible chat endpoint with the monitor inside; needs the extra `serve`.

The only room with fastapi, uvicorn, prometheus_client and opentelemetry. Its parts are imported
from their own modules, so that what starts light stays light.
"""
