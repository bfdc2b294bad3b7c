"""Gemini through google-genai: the only package that knows the SDK.

The SDK's own retries and its automatic continuation (billed follow-up requests) are
off: retry, timeouts, rate and budget belong to the scheduler.
"""

from data_gen.clients.gemini.client import GeminiClient

__all__ = ["GeminiClient"]
