"""An LLM as grader, behind any OpenAI-compatible chat completions endpoint.

The judge is told the question, the gold answer and the student's answer, and says yes
or no. What cannot be had (the network is down, the reply is neither) is None: it is
never counted as wrong, never cached, and asked again at resume. Verdicts are cached on
disk by content, so that nothing is judged twice.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import http.client
import json
import logging
import math
import os
import queue
import random
import re
import threading
import time
import urllib.error
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Any

from seal_jax.rewards import replies, wire
from seal_jax.runtime import config_rules, files, interrupts, plugins
from seal_jax.runtime.config_rules import Bound
from seal_jax.tasks import wordwise

log = logging.getLogger(__name__)

type Item = tuple[str, str, str]  # (question, gold answer, student's answer)

PROMPT = """\
You check a student's answer against the reference answer to a question.

Go by the reference answer alone, not by what you know yourself. Count the student's \
answer as correct if it gives everything the reference answer says and nothing that \
contradicts it. Additional detail does no harm, and neither do wording, style or length.

Question: {question}
Reference answer: {gold}
Student's answer: {answer}

Is the student's answer correct? Reply with a single word, yes or no."""

# No pause is longer; a server that asks for a longer one is left for a later run.
_LONGEST_PAUSE_S = 120.0
_SHORTEST_KEY = 8
# How late it is seen that a run is to stop.
_POLL_S = 0.2


class JudgeError(plugins.Told, RuntimeError):
    """The endpoint does not work as configured; one line says what to change."""


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """Which judge, and how hard to try.

    Attributes:
      base_url: up to and without "/chat/completions", e.g. "http://localhost:8000/v1".
      model: name at that endpoint; a dated snapshot keeps verdicts comparable.
      concurrency: requests under way at once.
      retries: further tries after a failed one (429, 5xx, timeouts, lost connections).
      timeout_s: seconds for a whole request, up to the last byte of its reply.
      api_key_env: environment variable with the key; none is sent if it is unset.
      temperature: None sends none, for models that take none.
      backoff_s: pause before the first further try, doubled at each; the server's own
        Retry-After prolongs it.
    """

    base_url: str
    model: str
    concurrency: Annotated[int, Bound(1, 1024)]
    retries: Annotated[int, Bound(0, 20)]
    timeout_s: Annotated[float, Bound(0.01, 3600.0)]
    api_key_env: str = "OPENAI_API_KEY"
    temperature: Annotated[float, Bound(0.0, 100.0, least=1e-3)] | None = 0.0
    backoff_s: Annotated[float, Bound(0.0, 120.0, least=1e-6)] = 1.0

    def __post_init__(self):
        url = urllib.parse.urlsplit(self.base_url)
        if url.username or url.password or url.query or url.fragment:
            raise ValueError(
                f"judge base_url for {url.hostname} must hold no credentials, query or "
                f"fragment; put the key into the variable {self.api_key_env}"
            )
        port = url.netloc.rpartition("]")[2].partition(":")[2]
        web = url.scheme in ("http", "https") and url.hostname is not None
        if not web or not re.fullmatch(r"\d{0,5}", port):
            raise ValueError(
                f"judge base_url={config_rules.shown(self.base_url)} must begin with "
                "http:// or https:// and a host, e.g. http://localhost:8000/v1"
            )
        if not self.model:
            raise ValueError("judge model='' must name a model of the endpoint")
        config_rules.check(self, "grade.judge")


# Grading


def grade(
    items: Sequence[Item], cfg: JudgeConfig, cache_path: str | Path
) -> list[bool | None]:
    """The judge's verdict on each (question, gold answer, answer).

    Equal items are asked once. A blank answer is wrong without being asked. When as
    many questions in a row fail as three times `concurrency`, with all their retries,
    the endpoint counts as down and the rest is left unasked.

    Args:
      cache_path: a JSONL file that gains a line per verdict, and is made if missing. An
        entry holds for one prompt, model, temperature, question, gold and answer.

    Returns:
      True, False, or None for a verdict that could not be had.

    Raises:
      JudgeError: the key in the environment cannot be sent.
      ValueError: the cache holds a line that is no entry.
      DiskFullError: no room for the cache.
    """
    keys = [_key(item, cfg) for item in items]
    with files.Lines(cache_path) as cache:
        verdicts = _cached(cache)
        pending = {
            key: _content(item)
            for key, item in zip(keys, items, strict=True)
            if key not in verdicts and not wordwise.is_empty(item[2])
        }
        if pending:

            def keep(key: str, verdict: bool) -> None:
                verdicts[key] = verdict
                cache.append_row({"key": key, "correct": verdict})

            ask_all(pending, cfg, parse=parse, wanted="say yes or no", keep=keep)
    return [
        False if wordwise.is_empty(item[2]) else verdicts.get(key)
        for key, item in zip(keys, items, strict=True)
    ]


def check(cfg: JudgeConfig) -> None:
    """Asks the judge one easy question, once; call it before a long run.

    Raises:
      JudgeError: it cannot be reached, refuses, or answers neither yes nor no.
    """
    item = ("What colour is a clear sky at noon?", "blue", "It is blue.")
    once = dataclasses.replace(cfg, retries=0)
    headers, stop = _headers(cfg), threading.Event()
    said, reason = _ask(_content(item), once, headers, stop, parse, "say yes or no")
    if said is None:
        raise JudgeError(f"judge {cfg.model!r} at {cfg.base_url}: {reason}")


def parse(reply: str) -> bool | None:
    """True for a reply that says yes, False for no; None for neither or both.

    See `replies.verdict`; what a model thinks aloud is not its reply.
    """
    return replies.verdict(reply)


def _key(item: Item, cfg: JudgeConfig) -> str:
    parts = [PROMPT, cfg.model, cfg.temperature, *item]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _cached(cache: files.Lines) -> dict[str, bool]:
    verdicts = {}
    for number, row in enumerate(cache.rows, start=1):
        match row:
            case {"key": str(key), "correct": bool(correct)}:
                verdicts[key] = correct
            case _:
                raise files.bad_line(
                    cache.path, number, 'not {"key": ..., "correct": ...}'
                )
    return verdicts


def ask_all[T](
    contents: Mapping[str, str],
    cfg: JudgeConfig,
    *,
    parse: Callable[[str], T | None],
    wanted: str,
    keep: Callable[[str, T], None],
) -> None:
    """Asks the endpoint every content, and hands what it said to `keep`, by key.

    Retries and outages are as in `grade`; how many could not be had is logged.

    Args:
      contents: what to ask, by the key under which the reply is kept.
      parse: a reply's meaning; None for one that has none, which is not asked again.
      wanted: what a reply must do, for the log: "say yes or no".
      keep: called in this thread as replies come, in any order.

    Raises:
      JudgeError: the key in the environment cannot be sent.
    """
    headers, stop = _headers(cfg), threading.Event()
    failed, in_a_row, last_reason = 0, 0, ""
    pool = concurrent.futures.ThreadPoolExecutor(cfg.concurrency)
    done = queue.SimpleQueue[tuple[str, concurrent.futures.Future]]()
    try:
        for key, content in contents.items():
            asked = pool.submit(_ask, content, cfg, headers, stop, parse, wanted)
            asked.add_done_callback(lambda future, key=key: done.put((key, future)))
        for _ in contents:
            key, future = _next(done)
            meaning, reason = future.result()
            if meaning is not None:
                in_a_row = 0
                keep(key, meaning)
                continue
            failed, in_a_row = failed + 1, in_a_row + 1
            last_reason = last_reason if stop.is_set() else reason
            if in_a_row >= 3 * cfg.concurrency:
                stop.set()
    finally:
        # Also where the run ends here: its requests end with it, and nobody waits.
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
    if failed:
        log.warning(
            "%d of %d judgements could not be had (%s); they stay open and are asked "
            "again at resume",
            failed,
            len(contents),
            last_reason,
        )


def _next[T](done: queue.SimpleQueue[T]) -> T:
    while True:
        interrupts.check()
        with contextlib.suppress(queue.Empty):
            return done.get(timeout=_POLL_S)


# One request


def _ask[T](
    content: str,
    cfg: JudgeConfig,
    headers: dict[str, str],
    stop: threading.Event,
    parse: Callable[[str], T | None],
    wanted: str,
) -> tuple[T | None, str]:
    """(meaning, ""), or (None, why there is none) once the retries are used up."""
    url = f"{cfg.base_url.rstrip('/')}/chat/completions"
    data = json.dumps(_body(content, cfg)).encode()
    reason = "stopped"
    for attempt in range(cfg.retries + 1):
        if stop.is_set():
            return None, reason
        pause = cfg.backoff_s * 2.0 ** min(attempt, 30) * random.uniform(0.75, 1.25)
        pause = min(pause, _LONGEST_PAUSE_S)
        try:
            limits = wire.Limits(cfg.timeout_s, stop)
            body = wire.post(url, data, headers, limits)
            reply = _hidden(replies.text(_hidden(body, headers)), headers)
        except urllib.error.HTTPError as error:
            with error:
                reason = f"{_refusal(error.code, cfg)}{wire.through(url)}"
                retry_after = _retry_after(error.headers.get("Retry-After"))
            if error.code not in (408, 409, 429) and error.code < 500:
                return None, reason
            if retry_after > _LONGEST_PAUSE_S:
                return None, f"{reason}; it asks for a pause of {retry_after:.0f} s"
            pause = max(pause, retry_after)
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", error)
            told = _hidden(" ".join(str(why).split()), headers)
            reason = (
                f"no connection ({type(why).__name__}: {told}); "
                "start the server, correct base_url or raise timeout_s"
                f"{wire.through(url)}"
            )
        except replies.NoAnswerError as error:
            return None, str(error)
        except ValueError as error:
            reason = (
                f"a reply that is no chat completion ({error}); correct base_url"
                f"{wire.through(url)}"
            )
        else:
            said = parse(reply)
            if said is None:
                return None, f"a reply must {wanted}, not {reply[:60]!r}"
            return said, ""
        if attempt < cfg.retries:
            stop.wait(pause)
    return None, reason


def _content(item: Item) -> str:
    values: dict[str, str] = dict(
        zip(("question", "gold", "answer"), item, strict=True)
    )
    # One pass, so that braces in an answer stay what they are.
    return re.sub(r"\{(question|gold|answer)\}", lambda m: values[m[1]], PROMPT)


def _body(content: str, cfg: JudgeConfig) -> dict[str, Any]:
    body = {"model": cfg.model, "messages": [{"role": "user", "content": content}]}
    if cfg.temperature is not None:
        body["temperature"] = cfg.temperature
    return body


def _headers(cfg: JudgeConfig) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    key = os.environ.get(cfg.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        # Refused here, because http.client would quote it in its own error.
        raise JudgeError(
            f"the key in {cfg.api_key_env} must be one line of plain characters; set "
            "it again"
        )
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _hidden[T: (str, bytes)](said: T, headers: Mapping[str, str]) -> T:
    """What a server said without the key, which some repeat; errors quote it."""
    key = headers.get("Authorization", "").removeprefix("Bearer ")
    if len(key) < _SHORTEST_KEY:  # No secret, and part of many words.
        return said
    if isinstance(said, bytes):
        return said.replace(key.encode(), b"(key)")
    return said.replace(key, "(key)")


def _refusal(status: int, cfg: JudgeConfig) -> str:
    # The body is not quoted: some servers repeat the key in it.
    said = f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()
    if status in (401, 403):
        return (
            f"{said}; put a valid key into the environment variable {cfg.api_key_env}"
        )
    if status == 404:
        return (
            f"{said}; correct the model's name or base_url (most end in /v1; "
            "/chat/completions is added to it)"
        )
    if status == 429:
        return f"{said}; lower concurrency, or look at the account's limits"
    if status >= 500:
        return f"{said}; look at the server's log, or try later"
    return f"{said}; correct base_url, model or temperature"


def _retry_after(value: str | None) -> float:
    """Seconds, from either form of the header; 0 without one or if it is malformed."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
