"""Texts of runs do nothing in a browser: reports, and what TensorBoard shows."""

import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import browser
import pytest
import report_run
from tensorboard.backend.event_processing import event_file_loader

from seal_jax.report import console, html_page
from seal_jax.runtime import metrics, records, writer_kinds


def poisoned(tree, text):
    """JSON with the text in the place of each of its texts, keys aside."""
    if isinstance(tree, dict):
        return {key: poisoned(value, text) for key, value in tree.items()}
    if isinstance(tree, list):
        return [poisoned(value, text) for value in tree]
    return f"{tree} {text}" if isinstance(tree, str) else tree


def poison(workdir, text):
    """Puts the text into each text of a run's files, but for what code decides by."""
    for path in workdir.rglob("*.jsonl"):
        rows = [
            poisoned(json.loads(row), text) for row in path.read_text().splitlines()
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = workdir / records.CONFIG_NAME
    config.write_text(json.dumps(json.loads(config.read_text()) | {"name": text}))
    summary = json.loads((workdir / "summary.json").read_text())
    for key in ("stopped", "config_hash"):
        summary[key] = text
    summary["seconds"] = {f"round_1/{text}": 1.0}
    (workdir / "summary.json").write_text(json.dumps(summary))


def payload(url):
    return " ".join(browser.PAYLOADS).replace("{url}", url)


@pytest.fixture(scope="module")
def chromium():
    return browser.found()


def quiet(dom, asked):
    return "data-pwned" not in dom.partition("<head>")[0] and asked == []


def test_a_page_that_is_not_inert_is_noticed(chromium, tmp_path):
    page = tmp_path / "page.html"
    with browser.listening() as (url, asked):
        for text in (browser.PAYLOADS[2].replace("{url}", url), payload(url)):
            page.write_text(f"<!DOCTYPE html><title>x</title>{text}")
            dom = browser.opened(chromium, f"file://{page}")
            assert not quiet(dom, []) or "/refresh" in asked
        assert {"/script", "/image"} <= set(asked)


def test_the_report_of_a_run_is_inert(chromium, tmp_path):
    with browser.listening() as (url, asked):
        workdir = report_run.rounds_run(tmp_path / "run", rounds=1, stopped="why")
        with metrics.Metrics(workdir) as log:
            log.log(1, {f"sft/{payload(url)}": 1.0, "sft/loss": 2.0})
            log.log(2, {f"sft/{payload(url)}": 1.0, "sft/loss": 1.0})
        poison(workdir, payload(url))
        page = html_page.write_html(workdir)
        text = page.read_text(encoding="utf-8")
        assert "data-pwned" not in text and "&lt;script" in text
        assert "<script" not in text and "<img" not in text and "<iframe" not in text
        assert quiet(browser.opened(chromium, f"file://{page}"), asked), asked


def test_the_page_of_continual_runs_is_inert(chromium, tmp_path):
    with browser.listening() as (url, asked):
        bad = payload(url)
        workdir = report_run.continual_run(
            tmp_path / "run", f"a {bad}", f"b {bad}", files=False
        )
        page = tmp_path / "page.html"
        assert console.main([str(workdir), "--html", str(page)]) == 0
        text = page.read_text(encoding="utf-8")
        assert "&lt;script" in text and "<script" not in text
        assert quiet(browser.opened(chromium, f"file://{page}"), asked), asked


def test_tensorboard_is_given_numbers_and_no_text(tmp_path):
    records.open_workdir(tmp_path, {"name": "<b>"})
    with metrics.Metrics(tmp_path) as log:
        log.log(1, {"a": 1.0, "b/c": 2.0})
    (file,) = (tmp_path / writer_kinds.TENSORBOARD_NAME).iterdir()
    events = list(event_file_loader.EventFileLoader(str(file)).Load())
    values = [value for event in events for value in event.summary.value]
    assert [value.tag for value in values] == ["a", "b/c"]
    for value in values:
        assert value.metadata.plugin_data.plugin_name in ("", "scalars")


@pytest.mark.slow
def test_names_of_metrics_are_inert_in_tensorboard(chromium, tmp_path, child_env):
    with browser.listening() as (url, asked):
        folder = tmp_path / "run"
        records.open_workdir(folder, {"name": "x"})
        with metrics.Metrics(folder) as log:
            for step in (1, 2):
                log.log(step, {f"sft/{payload(url)}": float(step)})
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            str(pathlib.Path(sys.executable).parent / "tensorboard"),
            f"--logdir={folder}",
            f"--port={port}",
            "--host=127.0.0.1",
            "--load_fast=false",
        ]
        with subprocess.Popen(
            command,
            env=child_env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            try:
                tags = served(f"http://127.0.0.1:{port}/data/plugin/scalars/tags")
                assert "onerror" in tags
                dom = browser.opened(
                    chromium, f"http://127.0.0.1:{port}/#timeseries", wait_ms=20_000
                )
            finally:
                server.terminate()
        assert "tb-webapp" in dom
        assert quiet(dom, asked), asked


def served(url):
    """What is at the URL, once it tells of the run."""
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                text = response.read().decode()
        except OSError:
            text = "{}"
        if text.strip() != "{}":
            return text
        time.sleep(0.5)
    raise TimeoutError(url)
