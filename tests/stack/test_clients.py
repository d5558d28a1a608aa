"""Common clients of OpenAI's API, from their packages, against the running stack.

Each runs in the environment that `setup.sh --tests` creates for it, and contacts no other host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.process.root import ROOT
from orchestrator.prompts import prompt_sets
from tests.stack.conftest import MODEL, PATIENCE_S, Stack

CLIENTS = ROOT / ".build" / "clients"
PYTHON = CLIENTS / "clients" / "bin" / "python"
HARNESSES = {
    "0.4.9": [str(CLIENTS / "lm-eval-old" / "bin" / "python"), "-m", "lm_eval"],
    "current": [sys.executable, "-m", "lm_eval", "run"],
}
PROMPTS = prompt_sets.load("compare").prompts[:5]
QUESTION = PROMPTS[0].prompt

LITELLM = """\
import json, sys
import litellm
url, model, question = sys.argv[1:]
to = {"api_base": url, "api_key": "none", "max_retries": 0}
messages = [{"role": "user", "content": question}]
chat = {"model": f"openai/{model}", "messages": messages, "stop": ["\\n"], **to}
whole = litellm.completion(**chat)
chunks = list(litellm.completion(stream=True, **chat))
text = litellm.text_completion(
    model=f"text-completion-openai/{model}", prompt=question, stop=["\\n"], max_tokens=40, **to
)
response = litellm.responses(model=f"openai/{model}", input=question, **to)
print(json.dumps([
    whole.choices[0].message.content,
    "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
    text.choices[0].text,
    response.output[0].content[0].text,
]))
"""
LANGCHAIN = """\
import json, sys
from langchain_openai import ChatOpenAI, OpenAI
url, model, question = sys.argv[1:]
to = {"base_url": url, "api_key": "none", "model": model, "max_retries": 0, "temperature": 0}
chat = ChatOpenAI(stop_sequences=["\\n"], **to)
print(json.dumps([
    chat.invoke(question).content,
    "".join(chunk.content for chunk in chat.stream(question)),
    *(answer.content for answer in chat.batch([question, question])),
    OpenAI(max_tokens=40, **to).invoke(question, stop=["\\n"]),
    ChatOpenAI(use_responses_api=True, **to).invoke(question).content[0]["text"],
]))
"""


@pytest.fixture
def url(stack: Stack) -> str:
    """The base URL of the API."""
    stack.use("ideal")
    return str(stack.bs.base_url.join("/v1"))


@pytest.fixture
def answer(stack: Stack) -> str:
    """The model's answer to the first question."""
    stack.use("ideal")
    text: str = stack.complete(QUESTION, max_tokens=40, stop="\n")["choices"][0]["text"]
    assert text.endswith(PROMPTS[0].answer)
    return text


def run(folder: Path, *command: str | Path, **environment: str) -> str:
    """Run a client offline, without any account; return its output."""
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NO_PROXY": "127.0.0.1",
        "OPENAI_API_KEY": "none",
    }
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, **offline, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("script", "texts"), [(LITELLM, 4), (LANGCHAIN, 6)], ids=["litellm", "langchain"]
)
def test_a_library_gets_the_answer_in_every_form(
    url: str, answer: str, tmp_path: Path, script: str, texts: int
) -> None:
    output = run(tmp_path, PYTHON, "-c", script, url, MODEL.name, QUESTION)
    assert json.loads(output.splitlines()[-1]) == [answer] * texts


@pytest.mark.parametrize("kind", [{}, {"completion": True}, {"responses": True}], ids=str)
@pytest.mark.parametrize("options", [[], ["--no-stream"]], ids=str)
def test_llm_prints_the_answer(
    url: str, answer: str, tmp_path: Path, kind: dict[str, bool], options: list[str]
) -> None:
    model = {"model_id": "wdmoe", "model_name": MODEL.name, "api_base": url, **kind}
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump([model]))
    command = [str(PYTHON), "-m", "llm", "prompt", "-m", "wdmoe", *options, QUESTION]
    assert run(tmp_path, *command, LLM_USER_PATH=str(tmp_path)).strip() == answer.strip()


@pytest.mark.parametrize("request_format", ["/v1/completions", "/v1/chat/completions"])
def test_guidellm_completes_every_request(url: str, tmp_path: Path, request_format: str) -> None:
    items = tmp_path / "items.jsonl"
    lines = [{"prompt": prompt.prompt, "output_tokens_count": 5} for prompt in PROMPTS]
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    backend = {"target": url.removesuffix("/v1"), "request_format": request_format}
    options: dict[str, dict[str, Any]] = {
        "backend": {"kind": "openai_http", "model": MODEL.name, **backend},
        "profile": {"kind": "concurrent", "streams": 2},
        "constraint": {"kind": "max_requests", "count": len(PROMPTS)},
        "tokenizer": {"kind": "huggingface_auto", "model": MODEL},
        "data": {"kind": "json_file", "path": items},
        "output": {"kind": "json", "path": tmp_path / "report.json"},
    }
    arguments = [
        part
        for option, fields in options.items()
        for part in (f"--{option}", ",".join(f"{key}={value}" for key, value in fields.items()))
    ]
    run(tmp_path, PYTHON, "-m", "guidellm", "run", *arguments, "--disable-console")
    (benchmark,) = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    successful = benchmark["requests"]["successful"]
    assert len(successful) == len(PROMPTS)
    assert benchmark["requests"]["errored"] == []
    assert {request["output_metrics"]["text_tokens"] for request in successful} == {5}


def task(folder: Path) -> str:
    """Write a task of a few questions that the model can answer; return its name."""
    items = folder / "items.jsonl"
    lines = [{"question": prompt.prompt, "answer": prompt.answer} for prompt in PROMPTS]
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    last_word = {"function": "regex", "regex_pattern": r"(\w+)\s*$"}
    definition: dict[str, Any] = {
        "task": "compare_of_file",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(items)}},
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 32, "temperature": 0.0},
        "filter_list": [{"name": "last", "filter": [last_word, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(definition))
    return str(definition["task"])


@pytest.mark.parametrize("version", HARNESSES)
def test_lm_eval_scores_chats(url: str, tmp_path: Path, version: str) -> None:
    name = task(tmp_path)
    where = f"model={MODEL.name},base_url={url}/chat/completions,num_concurrent=2,max_retries=1"
    command = [*HARNESSES[version], "--model", "local-chat-completions", "--model_args", where]
    command += ["--tasks", name, "--include_path", str(tmp_path), "--apply_chat_template"]
    run(tmp_path, *command, "--output_path", str(tmp_path / "results"))
    (path,) = tmp_path.glob("results/**/*.json")
    assert json.loads(path.read_text())["results"][name]["exact_match,last"] == 1
