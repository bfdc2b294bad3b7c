"""Any server that speaks OpenAI's chat protocol, over plain HTTP: no SDK is needed."""

from data_gen.clients.openai.client import OpenAIClient

__all__ = ["OpenAIClient"]
