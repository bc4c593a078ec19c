"""A language model can be asked over HTTP by the protocols of Anthropic and OpenAI."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import model
import pytest
import reasoning
import research_agent
from text import Library, Passage

import perdure


@dataclass
class FakeServer:
    """Answers each prompt with the first prepared answer that fits, and records the requests."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    by_prompt: dict[str, tuple[int, Any]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def endpoint() -> Iterator[FakeServer]:
    """Run a server that acts as a model."""
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            fake.requests.append((self.path, headers, body))
            prompt = body["messages"][0]["content"]
            fitting = (given for start, given in fake.by_prompt.items() if prompt.startswith(start))
            status, answer = next(fitting, None) or fake.answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        fake.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        http.shutdown()
        thread.join()


@pytest.fixture
def anthropic(endpoint: FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", endpoint.url)
    return endpoint


def reply(words: str) -> tuple[int, Any]:
    return 200, {"content": [{"type": "text", "text": words}]}


def test_no_model_is_used_without_a_key() -> None:
    assert model.name() is None


def test_ask_uses_the_anthropic_protocol(anthropic: FakeServer) -> None:
    anthropic.answers.append(reply("forty-two"))
    assert model.ask("why?") == "forty-two"
    path, headers, body = anthropic.requests[0]
    assert (path, headers["x-api-key"]) == ("/v1/messages", "secret")
    assert body["messages"] == [{"role": "user", "content": "why?"}]
    assert body["model"] == model.name()
    assert body["max_tokens"] > 0


def test_ask_uses_the_openai_protocol(
    endpoint: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{endpoint.url}/v1")
    monkeypatch.setenv("OPENAI_MODEL", "tiny")
    endpoint.answers.append((200, {"choices": [{"message": {"content": "forty-two"}}]}))
    assert model.ask("why?") == "forty-two"
    path, headers, body = endpoint.requests[0]
    assert (path, headers["authorization"]) == ("/v1/chat/completions", "Bearer secret")
    assert body["model"] == "tiny"


def test_busy_server_and_refusal_raise_different_errors(anthropic: FakeServer) -> None:
    anthropic.answers += [(529, {}), (429, {}), (401, {"error": "bad key"})]
    for _ in range(2):
        with pytest.raises(model.ModelBusy):
            model.ask("why?")
    with pytest.raises(model.ModelRefused, match=r"401: .*bad key"):
        model.ask("why?")


def test_json_is_found_inside_prose(anthropic: FakeServer) -> None:
    anthropic.answers += [reply('Sure:\n```json\n{"a": 1}\n```'), reply("No.")]
    assert model.ask_for_json("give") == {"a": 1}
    with pytest.raises(ValueError, match="without JSON"):
        model.ask_for_json("give")


def test_quote_invented_by_the_model_fails_verification(
    anthropic: FakeServer,
) -> None:
    real = "Stone bridges are reliable and stand for centuries."
    library = Library({"bridges": real})
    quotes = [{"text": t, "source": "bridges"} for t in (real, "Bridges never fall.")]
    anthropic.answers.append(reply(json.dumps({"argument": "They stand.", "quotes": quotes})))
    found = [Passage(text=real, source="bridges", relevance=1.0)]
    case = reasoning.make_case("Are bridges reliable?", "optimistic", found)
    assert (case["argument"], case["writtenBy"]) == ("They stand.", model.name())
    checks = reasoning.check(library, "optimistic", case["quotes"])
    assert [check["verbatim"] for check in checks] == [True, False]


def test_agent_with_a_model_verifies_its_quotes(
    anthropic: FakeServer, dsn: str, schema: str, tmp_path: Path
) -> None:
    """C60: quotes of the model are looked up too; a busy model is asked again."""
    real = "Stone bridges are reliable and stand for centuries."
    (tmp_path / "bridges.txt").write_text(
        f"{real}\n\nStone bridges are slow and expensive to build."
    )
    quotes = [{"text": real, "source": "bridges.txt"}, {"text": "Ha!", "source": "bridges.txt"}]
    case = reply(json.dumps({"argument": "They stand.", "quotes": quotes}))
    anthropic.by_prompt = {"You are the optimistic": case, "The question": reply("They do.")}
    anthropic.answers = [(503, {}), case]
    with (
        perdure.connect(dsn, schema=schema) as client,
        perdure.Worker(research_agent.app, queues=["agents"], dsn=dsn, schema=schema),
    ):
        handle = client.start(research_agent.research, "Do stone bridges stand?", str(tmp_path))
        memory = handle.result(timeout="30 s")
    assert memory["perspectives"]["optimistic"]["writtenBy"] == model.name()
    assert [check["verbatim"] for check in memory["verification"]["checks"]] == [True, False] * 2
    assessment = memory["perspectives"]["synthesis"]["finalAssessment"]
    assert assessment.startswith("They do. Confidence ")
    assert "2 of 4 quotes" in assessment
