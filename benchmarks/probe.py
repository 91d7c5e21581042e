"""Checkpoints of pretrainings in; how well the probe and the loss foretell the fine-tuned error (Spearman) out.

python benchmarks/probe.py RUN… --steps 1000 3000 5000 7000 --corpora ../shared/corpora --json FILE

Each RUN is a pretraining's folder that kept its checkpoints (checkpoints.keep=20). Every checkpoint's encoder becomes a
bundle, is probed on 10 clips per digit of fsdd (judged on the even rows of dev), and is fine-tuned by
`experiment=label_efficiency/probe` on the same clips (reported on the odd rows). Losses of different objectives are
compared as shares of the trivial predictor's.
"""

import argparse
import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from scipy.stats import spearmanr

from glmasr.build import build
from glmasr.bundle import encoder_of, open_bundle, save_bundle
from glmasr.data.catalog import prepare_catalog
from glmasr.data.corpora import Manifest
from glmasr.text.tokenizer import learn_characters
from glmasr.training.probe import probe
from glmasr.training.probing import loaded

LOSSES = ("masked", "contrast", "cluster")
RECENT = 300


def bundle_of(run: Path, step: int, out: Path) -> Path:
    """The encoder of one checkpoint (0: before the first step) as a bundle, with its run's config beside it."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    folder = out / "encoders" / f"{run.name}_{step}"
    if step:
        kept = torch.load(run / "checkpoints" / f"step_{step:09d}.ckpt", weights_only=True, map_location="cpu")
        named = kept["state_dict"].items()
        weights = {name.removeprefix("encoder."): value for name, value in named if name.startswith("encoder.")}
    else:
        torch.manual_seed(config["seed"])
        weights = build(config["model"]["encoder"]).state_dict()
    facts = {"run": str(run.name), "step": step}
    save_bundle(
        folder / "bundle",
        ear=config["frontend"],
        model=config["model"],
        weights=weights,
        tokenizer=None,
        training=facts,
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "finished.json").write_text(json.dumps(facts))
    return folder / "bundle"


def relative_loss(run: Path, step: int) -> float:
    """The mean share of the trivial predictor's loss in the steps before a checkpoint."""
    shares = []
    for row in csv.DictReader((run / "metrics.csv").open()):
        if step - RECENT < int(row["step"]) <= step:
            named = {key.rsplit("/", 1)[-1]: value for key, value in row.items() if key.startswith("train/") and value}
            loss = next((float(named[name]) for name in LOSSES if name in named), None)
            if loss is not None:
                shares.append(loss / float(named.get("trivial", math.log(101))))
    return sum(shares) / len(shares) if shares else 1.0


def probed(bundle: Path, corpora: Path) -> dict[str, float]:
    """The probe's scores on ten clips per digit, judged on the even rows of dev."""
    catalog = prepare_catalog(Manifest(str(corpora / "fsdd")), "data/corpora")
    learn = catalog.subset("train", labelled=True, max_per_text=10, seed=0, min_seconds=0.3)
    judge = catalog.subset("dev", labelled=True, positions="even", min_seconds=0.3)
    tokenizer, opened = learn_characters(learn.texts()), open_bundle(bundle)
    encoder = encoder_of(opened)
    blocks = range(1, len(encoder.blocks) + 1)
    scores = probe(
        encoder, opened.ear, list(loaded(learn, tokenizer)), list(loaded(judge, tokenizer)), tokenizer, blocks
    )
    return {"probe_top": scores.blocks[max(blocks)].ctc, "probe_best": scores.best.ctc, "best_block": scores.best_block}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--steps", nargs="+", type=int, default=[1000, 3000, 5000, 7000])
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--out", type=Path, default=Path("runs/probe"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    places = [(given.runs[0], 0), *((run, step) for run in given.runs for step in given.steps)]
    rows = {}
    for run, step in places:
        bundle = bundle_of(run, step, given.out)
        name = f"{run.name}_{step}" if step else "untrained"
        rows[name] = {"bundle": str(bundle), "run": run.name, "step": step, "loss": relative_loss(run, step)}
        rows[name] |= probed(bundle, given.corpora)
        print(name, {key: round(value, 4) for key, value in rows[name].items() if isinstance(value, float)}, flush=True)
    arms = [f"+arms.{name}.bundle='{row['bundle']}'" for name, row in rows.items()]
    sweep = given.out / "sweep"
    command = [sys.executable, "scripts/label_efficiency.py", "experiment=label_efficiency/probe", f"run_dir={sweep}"]
    subprocess.run([*command, f"corpora_root={given.corpora}", *arms], check=True)
    for row in json.loads((sweep / "results.json").read_text())["rows"]:
        if row["arm"] in rows:
            rows[row["arm"]] |= {"error": row["value"], "error_dev_even": row["dev_even"]}
    found = {"rows": rows, "spearman": {}}
    for name in ("probe_top", "probe_best", "loss"):
        result = spearmanr([row[name] for row in rows.values()], [row["error"] for row in rows.values()])
        found["spearman"][name] = {"rho": round(float(result.statistic), 3), "p": round(float(result.pvalue), 4)}
    print(json.dumps(found["spearman"], indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
