"""What columns of training data are called in the wild, for each field of a layout; the first that is found is taken."""

from __future__ import annotations

MESSAGES = ("messages",)
CONVERSATIONS = ("conversations", "conversation", "dialog", "dialogue", "turns", "messages")
INSTRUCTION = ("instruction", "instructions")
INPUT = ("input", "context")
OUTPUT = ("output", "response", "answer", "completion")
SYSTEM = ("system", "system_prompt")
PROMPT = ("prompt", "question", "query", "input", "source", "instruction", "user", "frage", "pregunta")
COMPLETION = ("completion", "answer", "response", "output", "target", "chosen", "reply", "assistant", "antwort", "respuesta")
TEXT = ("text", "sentence", "content", "review", "ticket", "message", "body", "comment", "document", "texto", "title")
LABEL = ("label", "labels", "intent", "category", "class", "sentiment", "topic", "target", "tag", "etiqueta", "kategorie")

# A first row of a table that names two of these is a header, whatever stands below it.
KNOWN_NAMES = frozenset({"id", *MESSAGES, *CONVERSATIONS, *INSTRUCTION, *INPUT, *OUTPUT, *SYSTEM, *PROMPT, *COMPLETION, *TEXT, *LABEL})

CHOICES = ("choices",)

ROLE_KEYS = ("from", "role", "speaker", "author")
VALUE_KEYS = ("value", "content", "text")
ROLES: dict[str, str] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatbot": "assistant", "ai": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
}  # fmt: skip
TOOL_ROLES = frozenset({"tool", "function", "function_call", "function_response", "observation", "ipython", "tool_call", "tool_response"})
