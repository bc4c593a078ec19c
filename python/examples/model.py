"""Ask a language model, if the environment holds a key for one. Plain HTTPS, nothing to install.

ANTHROPIC_API_KEY, or else OPENAI_API_KEY, turns it on. ANTHROPIC_BASE_URL and ANTHROPIC_MODEL,
OPENAI_BASE_URL and OPENAI_MODEL choose the server (any that speaks the protocol) and the model.
"""

import json
import os
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any

TRY_AGAIN = frozenset({408, 409, 425, 429})  # and everything from 500 on


class ModelRefused(Exception):
    """Say that the model's server refuses the request; asking again would not help."""


class ModelBusy(Exception):
    """Say that the model's server cannot answer now; asking again may help."""


def name() -> str | None:
    """Return the model that `ask` would use, or None where no key is set."""
    if "ANTHROPIC_API_KEY" in os.environ:
        return os.environ.get("ANTHROPIC_MODEL", "claude-haiku-4-5")
    if "OPENAI_API_KEY" in os.environ:
        return os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
    return None


def ask(prompt: str, timeout: float = 60.0) -> str:
    """Return the model's answer. Raises ModelRefused, ModelBusy, and OSError without a network."""
    chat: dict[str, Any] = {"model": name(), "messages": [{"role": "user", "content": prompt}]}
    if key := os.environ.get("ANTHROPIC_API_KEY"):
        base = os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        answer = post(f"{base}/v1/messages", headers, chat | {"max_tokens": 1500}, timeout)
        return "".join(part.get("text", "") for part in answer["content"])
    base = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
    headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    answer = post(f"{base}/chat/completions", headers, chat, timeout)
    return str(answer["choices"][0]["message"]["content"])


def ask_for_json(prompt: str) -> Any:
    """Return the JSON object in the model's answer. Raises ValueError where there is none."""
    answer = ask(prompt)
    start, end = answer.find("{"), answer.rfind("}")
    if start < 0 or end < start:
        raise ValueError(f"the model answered without JSON: {answer[:200]!r}")
    return json.loads(answer[start : end + 1])


def post(url: str, headers: dict[str, str], body: dict[str, Any], timeout: float) -> Any:
    """Send JSON and return the JSON that comes back."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), headers | {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as refusal:
        with refusal:
            reason = f"{refusal.code}: {refusal.read(500).decode(errors='replace')}"
        busy = refusal.code in TRY_AGAIN or refusal.code >= HTTPStatus.INTERNAL_SERVER_ERROR
        raise (ModelBusy if busy else ModelRefused)(reason) from None
