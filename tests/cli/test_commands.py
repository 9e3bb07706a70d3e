"""The commands as a user runs them: exit codes, formats, messages."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
CHAT = example_path("chat")


def test_recommend_formats(run: Run) -> None:
    code, out, _ = run("recommend", CHAT, "--format", "json", "--gpus", "h100,b200")
    assert code == 0
    data = json.loads(out)
    assert data["plan"]["accelerator"] in ("h100-sxm", "b200-sxm")
    code, out, _ = run("recommend", CHAT, "--format", "csv", "--gpus", "h100,b200")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert rows[0]["role"] == "recommended"
    assert float(rows[0]["latency_ttft_s_p95"]) == pytest.approx(data["plan"]["latency"]["ttft_s"]["p95"])
    code, out, _ = run("recommend", CHAT, "--format", "markdown", "--gpus", "h100,b200")
    assert "| Latency | mean |" in out
    code, out, _ = run("recommend", CHAT, "--gpus", "h100,b200")
    assert "replicas of" in out
    assert "\x1b[" not in out
    assert "│" not in out


def test_same_input_same_bytes(run: Run) -> None:
    first, second = (run("recommend", CHAT, "--format", "json")[1] for _ in range(2))
    assert first == second


def test_output_file_and_suffix(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    code, out, _ = run("recommend", CHAT, "-o", target)
    assert (code, out) == (0, "")
    assert json.loads(target.read_text())["schema_version"]
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    code, _, err = run("recommend", CHAT, "-o", tmp_path / "plan.xyz")
    assert code == 2
    assert ".json" in err
    code, _, err = run("recommend", CHAT, "-o", tmp_path / "no" / "plan.json")
    assert code == 2
    assert "no such folder" in err


def test_standard_input_and_overrides(run: Run) -> None:
    code, out, _ = run(
        "recommend", "-", "--set", "demand.requests_per_second=60", "--format", "json", stdin=CHAT.read_text()
    )
    assert code == 0
    assert json.loads(out)["plan"]["throughput"]["requests_per_second"] == pytest.approx(90)


def test_no_plan_is_three(run: Run) -> None:
    code, out, err = run("recommend", example_path("infeasible"), "--format", "json")
    assert code == 3
    data = json.loads(out)
    assert data["plan"] is None
    assert data["nearest_miss"]["constraint"] == "tpot_p95"
    assert err.startswith("error: no feasible plan: closest is")


def test_budget_is_four(run: Run) -> None:
    code, _, err = run("recommend", CHAT, "--fail-over-budget", "1")
    assert code == 4
    assert "over budget" in err
    assert run("recommend", CHAT, "--fail-over-budget", "1e6")[0] == 0


def test_verbose_counts_points(run: Run) -> None:
    _, _, err = run("recommend", CHAT, "-v")
    assert "operating points priced in" in err


@pytest.mark.parametrize(("arguments", "says"), [
    (["recommend", "nowhere.toml"], "no such file"),
    (["recommend", CHAT, "--gpus", "h100-smx"], "Did you mean 'h100-sxm'"),
    (["recommend", CHAT, "--price", "h100-sxm"], "is not a price"),
    (["recommend", CHAT, "--price", "h1000=2"], "unknown accelerator"),
    (["recommend", CHAT, "--set", "slo.ttft_p95=fast"], "slo.ttft_p95"),
    (["recommend", CHAT, "--set", "nothing"], "key.path=value"),
    (["recommend", CHAT, "--hardware-db", "nowhere"], "no such file or folder"),
    (["recommend", CHAT, "--format", "xml"], "xml"),
    (["recommend"], "Missing argument"),
    (["recomend", CHAT], "recomend"),
    (["list", "gpu"], "Did you mean 'gpus'"),
    (["show", "gpu", "h1000"], "h100"),
    (["show", "model", "lama-3.1-8b"], "llama-3.1-8b"),
    (["show", "chip", "h100"], "gpu or model"),
    (["init", "chatt"], "Did you mean 'chat'"),
    (["schema", "work"], "workload"),
    (["compare", "gpus", "--set", "a=1"], "--workload"),
    (["estimate", "--model", "llama-3.1-8b", "--gpu", "h100", "--batch", "4"], "both --batch and --context"),
    (["estimate", "--model", "llama-3.1-8b", "--gpu", "h100", "--batch", "x", "--context", "1"], "--batch"),
])  # fmt: skip
def test_bad_input_is_two_and_one_message(run: Run, arguments: list[object], says: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert says in err
    assert "Traceback" not in err
    assert out == ""


def test_compare_gpus(run: Run) -> None:
    code, out, _ = run("compare", "gpus", "--format", "json", "--gpus", "h100,mi300x", "--price", "h100-sxm=2.5")
    assert code == 0
    rows = {r["accelerator"]: r for r in json.loads(out)["accelerators"]}
    assert rows["h100-sxm"]["ridge_point_bf16"] == pytest.approx(989 / 3.35)
    assert rows["h100-sxm"]["bandwidth_per_usd"] == pytest.approx(3.35e12 / 2.5)
    code, out, _ = run("compare", "gpus", "--workload", CHAT, "--format", "json")
    assert code == 0
    found = json.loads(out)["accelerators"]
    feasible = [a for a in found if a["feasible"]]
    costs = [a["plan"]["cost"]["usd_per_hour"] for a in feasible]
    assert costs == sorted(costs)
    assert all(a["reason"] for a in found if not a["feasible"])


def test_estimate(run: Run) -> None:
    base = ["estimate", "--model", "llama-3.1-8b", "--gpu", "h100-sxm", "--format", "json"]
    code, out, _ = run(*base, "--batch", 64, "--context", 2048)
    data = json.loads(out)
    assert code == 0
    assert data["step"]["seconds"] == pytest.approx(12.4e-3, rel=0.15)
    assert "latency" not in data
    code, out, _ = run(*base, "--input-tokens", 1000, "--output-tokens", 200, "--concurrency", 16)
    assert json.loads(out)["latency"]["ttft_s"]["mean"] > 0
    code, _, err = run("estimate", "-m", "llama-3.1-405b", "-g", "h100-sxm", "--batch", 1, "--context", 10)
    assert code == 3
    assert "does not fit" in err


def test_lists_and_facts(run: Run) -> None:
    assert len(json.loads(run("list", "models", "--format", "json")[1])) >= 70
    prices = json.loads(run("list", "prices", "--gpus", "h100", "--format", "json")[1])
    assert {p["accelerator"] for p in prices} == {"h100-sxm"}
    facts = json.loads(run("show", "model", "gpt-oss-120b", "--format", "json")[1])
    assert facts["kv_bytes_per_token"]["bf16"]["allocated_without_hybrid_manager"] == 73_728
    chip = json.loads(run("show", "gpu", "h100", "--format", "json")[1])
    assert chip["facts"]["compute.bf16"]["source"]
    assert "Achieved" in run("show", "gpu", "h100")[1]


def test_templates_are_workloads(run: Run, tmp_path: Path) -> None:
    for kind in ("chat", "rag", "coding-agent", "reasoning", "batch"):
        target = tmp_path / f"{kind}.txt"
        assert run("init", kind, "-o", target)[0] == 0
        assert run("init", kind, "-o", target)[0] == 2
        text = target.read_text()
        assert "#" in text
        assert run("recommend", "-", "--gpus", "h200,b200", stdin=text)[0] == 0


def test_schema(run: Run) -> None:
    schema = json.loads(run("schema", "workload")[1])
    assert schema["additionalProperties"] is False
    assert "requests_per_second" in json.dumps(schema)
    assert "plan" in json.loads(run("schema", "result")[1])["properties"]


def test_check_db(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("check-db")
    assert code == 0
    assert "no problem found" in out
    (tmp_path / "x.toml").write_text('name = "x"\n')
    code, out, _ = run("check-db", "--hardware-db", tmp_path)
    assert code == 2


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], text=True, capture_output=True, check=False)


def test_module_and_version() -> None:
    found = python("-m", "planner", "--version")
    assert found.returncode == 0
    assert found.stdout.startswith("planner 0.")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv=['planner','--help']\nfrom llm_capacity_planner import main\ntry: main()\nexcept SystemExit: pass\nprint(sorted(m for m in ('numpy','planner.sizing','planner.workload') if m in sys.modules))"
    assert python("-c", code).stdout.strip().endswith("[]")


def test_plan_imports_nothing_outside_the_dependencies() -> None:
    code = f"import sys; sys.argv=['planner','recommend',{str(CHAT)!r},'-f','json']\nfrom llm_capacity_planner import main\ntry: main()\nexcept SystemExit: pass\nprint([m for m in ('scipy','pandas','matplotlib','hypothesis') if m in sys.modules])"
    assert python("-c", code).stdout.strip().endswith("[]")


def test_closed_pipe_is_quiet() -> None:
    code = f"{sys.executable} -m planner list models | head -1"
    found = subprocess.run(["bash", "-c", code], text=True, capture_output=True, check=False)
    assert "Traceback" not in found.stderr
    assert "error" not in found.stderr


def test_bugs_are_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import planner.cli.facts as facts

    def broken(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(facts, "database_with", broken)
    monkeypatch.delenv("PLANNER_DEBUG", raising=False)
    code, _, err = run("list", "gpus")
    assert code == 1
    assert "internal error, please report it: RuntimeError: boom" in err
    assert "Traceback" not in err


def test_describe(run: Run, tmp_path: Path) -> None:
    trace = tmp_path / "azure.csv"
    rows = [f"2023-11-16 18:{17 + k // 60:02d}:{k % 60:02d}.9799600,{500 + 7 * k},{20 + k % 90}" for k in range(240)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows))
    target = tmp_path / "workload.toml"
    code, out, _ = run("describe", trace, "-w", target, "--format", "json")
    assert code == 0
    assert json.loads(out)["requests"] == 240
    assert run("describe", trace, "-w", target)[0] == 2
    code, out, _ = run("describe", trace, "-w", target, "--force")
    assert "Burstiness" in out
    assert "####" in out
    assert run("recommend", target, "--gpus", "h100")[0] == 0
    code, _, err = run("describe", tmp_path / "none.csv")
    assert code == 2
    assert "no such file" in err
