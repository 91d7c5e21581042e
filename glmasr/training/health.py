"""What training steps leave behind in, a verdict on the run's health out: a collapse is stopped and its cause named."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as lightning
import torch
from jaxtyping import Float
from torch import Tensor

from glmasr.speech import InputError
from glmasr.training.callbacks import replace_file
from glmasr.training.gradients import local
from glmasr.training.guards import gathered, rank
from glmasr.training.health_report import write_health_report
from glmasr.training.loggers import is_logged
from glmasr.training.pretrain import Pretraining, Seen

# The floors. "Healthy" is what 20-step means were after step 100 in healthy runs of the 3 M model, with every objective
# on 16 minutes of digits (400 steps) and with contrast and reconstruction on 8 hours of nine corpora (2,600 steps).
SIZE_FLOOR = 0.1
"""Mean size of the clean features: healthy 0.59 to 0.93, digital silence 0."""
CODES_FLOOR = 3.0
"""Perplexity of the codes: healthy 9 or more; silence 1, without diversity 2 to 5, fairseq #1850 reports 2."""
SPREAD_FLOOR = 0.2
"""Share of a learned codebook in use by probability: healthy 0.9, without diversity 0.1."""
ACCURACY_CEILING, ACCURACY_CODES = 0.98, 8.0
"""Accuracy above with fewer codes is a false success (fairseq #3687, docs/LOG.md): healthy 0.6 (fairseq #2949)."""
TEMPERATURE_CEILING = 1.0
"""Published Gumbel temperatures fall from 2 to 0.5 or 0.1; one that stands still above is stuck."""
RANK_FLOOR = 3.0
"""Effective rank of the context frames: healthy 20 or more, a constant has 1."""
GRADIENT_FLOOR = 1e-4
"""Gradient norm: healthy 0.2 or more; fairseq #3109 reports 0."""
TRIVIAL_CEILING = 1.5
"""Loss over the trivial predictor's: healthy 1.05 or less from the first steps on."""
OVERSHOT_CEILING, STEP_CEILING = 0.9, 0.01
"""Loss over trivial above, after a step changed the weights by a larger share: healthy 0.003, at 30 × lr 0.035."""
HALF_WAY, LEARNING_STEPS, LEARNED_CEILING = 0.5, 1000, 0.99
"""From this share of the steps on, and after so many, loss over trivial must be below: healthy contrast takes 200."""


class Collapsed(InputError):
    """A run that will not get better was stopped; the message names what was seen, the likely cause and the knob."""


class Figures(dict[str, float]):
    """Figures by name; one that is missing is NaN, and breaks no rule."""

    def __missing__(self, name: str) -> float:
        return math.nan


@dataclass(frozen=True)
class Rule:
    """One failure. `broken` looks at the figures now and at the judgement before; the rest is what is said of it.

    `seen` may name figures, `knob` the objective's place in the config, in braces. An `urgent` rule waits for nothing.
    """

    name: str
    broken: Callable[[Figures, Figures], bool]
    seen: str
    floor: str
    cause: str
    knob: str
    urgent: bool = False


RATE = "a lower optimizer.learning_rate or a longer schedule.warmup_share"
RULES = (
    Rule(
        "not a number",
        lambda now, before: any(n in now and not math.isfinite(now[n]) for n in ("loss", "update")),
        seen="loss {loss:.3g}, change of the weights {update:.3g}",
        floor="both finite",
        cause="the learning rate is too high",
        knob=RATE,
        urgent=True,
    ),
    Rule(
        "silence",
        lambda now, before: now["size"] < SIZE_FLOOR,
        seen="features of mean size {size:.2g}",
        floor=f"{SIZE_FLOOR} or more",
        cause="the audio is silent or constant",
        knob="data.path, whose recordings should be listened to",
    ),
    Rule(
        "overshot",
        lambda now, before: now["over_trivial"] > OVERSHOT_CEILING and now["peak"] > STEP_CEILING,
        seen="weights changed by {peak:.1%} in a step and loss at {over_trivial:.2f} of the trivial predictor's",
        floor=f"less than {STEP_CEILING:.0%} until below {OVERSHOT_CEILING}",
        cause="the learning rate is too high",
        knob=RATE,
    ),
    Rule(
        "overshot codes",
        lambda now, before: "diversity" in now and now["code_perplexity"] < CODES_FLOOR and now["peak"] > STEP_CEILING,
        seen="weights changed by {peak:.1%} in a step and code perplexity {code_perplexity:.1f}",
        floor=f"less than {STEP_CEILING:.0%}, and {CODES_FLOOR} or more",
        cause="the learning rate is too high",
        knob=RATE,
    ),
    Rule(
        "worse than trivial",
        lambda now, before: now["over_trivial"] > TRIVIAL_CEILING,
        seen="loss {over_trivial:.2f} times the trivial predictor's",
        floor=f"at most {TRIVIAL_CEILING}",
        cause="the learning rate is too high",
        knob=RATE,
    ),
    Rule(
        "false success",
        lambda now, before: now["accuracy"] > ACCURACY_CEILING and now["code_perplexity"] < ACCURACY_CODES,
        seen="accuracy {accuracy:.2f} with a code perplexity of {code_perplexity:.1f}",
        floor=f"{ACCURACY_CODES} codes or more above accuracy {ACCURACY_CEILING}",
        cause="the codes collapsed, which makes the task trivial",
        knob="a higher {objective}.diversity_weight, or other codes",
    ),
    Rule(
        "unused codes",
        lambda now, before: now["spread"] < SPREAD_FLOOR,
        seen="{spread:.0%} of the codebooks in use by probability",
        floor=f"{SPREAD_FLOOR:.0%} or more",
        cause="too little diversity is asked of the codes",
        knob="a higher {objective}.diversity_weight",
    ),
    Rule(
        "few codes",
        lambda now, before: "diversity" in now and now["code_perplexity"] < CODES_FLOOR,
        seen="code perplexity {code_perplexity:.1f}",
        floor=f"{CODES_FLOOR} or more",
        cause="too little diversity is asked of the codes",
        knob="a higher {objective}.diversity_weight",
    ),
    Rule(
        "few targets",
        lambda now, before: "cluster" in now and now["code_perplexity"] < CODES_FLOOR,
        seen="target codes of perplexity {code_perplexity:.1f}",
        floor=f"{CODES_FLOOR} or more",
        cause="the codebook does not tell the frames of this audio apart",
        knob="{objective}.codebook, or look into the recordings of data.path",
    ),
    Rule(
        "temperature",
        lambda now, before: now["temperature"] > TEMPERATURE_CEILING and now["temperature"] >= before["temperature"],
        seen="a Gumbel temperature that stays at {temperature:.3g}",
        floor=f"falling, or at most {TEMPERATURE_CEILING}",
        cause="the temperature is not annealed",
        knob="{objective}.temperature_decay below 1, as 0.999",
    ),
    Rule(
        "rank",
        lambda now, before: now["rank"] < RANK_FLOOR,
        seen="context frames of effective rank {rank:.1f}",
        floor=f"{RANK_FLOOR} or more",
        cause="the encoder answers every frame alike",
        knob=RATE,
    ),
    Rule(
        "gradient",
        lambda now, before: now["gradient_norm"] < GRADIENT_FLOOR,
        seen="gradient norm {gradient_norm:.1g}",
        floor=f"{GRADIENT_FLOOR} or more",
        cause="the objective is saturated or does not reach the encoder",
        knob="objective, or " + RATE,
    ),
    Rule(
        "nothing learned",
        lambda now, before: (
            now["progress"] >= HALF_WAY and now["step"] >= LEARNING_STEPS and now["over_trivial"] > LEARNED_CEILING
        ),
        seen="loss at {over_trivial:.2f} of the trivial predictor's after {progress:.0%} of the steps",
        floor=f"at most {LEARNED_CEILING} from {HALF_WAY:.0%} and {LEARNING_STEPS} steps on",
        cause="the learning rate is far too high or too low",
        knob="optimizer.learning_rate",
    ),
)
"""In the order of naming: of several that are broken at once the first is named."""


class Judge:
    """Figures of every objective in, step by step; a sentence out once a rule was broken `patience` times in a row.

    Nothing but an urgent rule counts before `grace_steps`. What the judge remembers can be kept and restored.
    """

    def __init__(self, grace_steps: int, patience: int):
        self.grace_steps, self.patience = grace_steps, patience
        self.strikes: dict[str, int] = {}
        self.before: dict[str, Figures] = {}

    def __call__(self, step: int, figures: Mapping[str, float]) -> str:
        """The verdict on the means since the last judgement, named as in metrics.csv without the first part."""
        for objective, now in by_objective(figures).items():
            before = self.before.get(objective, Figures())
            now["step"] = step
            now["peak"] = max(before.get("peak", 0.0), now["update"])
            self.before[objective] = now
            for rule in RULES:
                key = f"{objective}/{rule.name}"
                counts = rule.urgent or step >= self.grace_steps
                self.strikes[key] = self.strikes.get(key, 0) + 1 if counts and rule.broken(now, before) else 0
                if self.strikes[key] >= (1 if rule.urgent else self.patience):
                    place = f"objective.objectives.{objective}" if objective else "objective"
                    return (
                        f"stopped at step {step}: {rule.seen.format_map(now)}, where healthy is {rule.floor}; likely "
                        f"{rule.cause}; turn {rule.knob.format(objective=place)}, or switch the guard off "
                        "with health.guard=false"
                    )
        return ""


LOSSES = ("contrast", "masked", "visible", "cluster")


def by_objective(figures: Mapping[str, float]) -> dict[str, Figures]:
    """`contrastive/accuracy` is that objective's alone, `loss` everyone's; an objective that is alone has no name.

    Adds `over_trivial`, the best of its losses over the trivial predictor's, and `spread`, the share of codes in use.
    """
    shared = {name: value for name, value in figures.items() if "/" not in name}
    split: dict[str, Figures] = {}
    for objective in dict.fromkeys(name.split("/")[0] for name in figures if "/" in name) or {"": None}:
        own = {name.split("/")[1]: value for name, value in figures.items() if name.startswith(f"{objective}/")}
        now = split[objective] = Figures(shared | own)
        losses = [now[name] for name in LOSSES if name in now]
        now["over_trivial"] = min(losses) / now["trivial"] if losses and now["trivial"] > 0 else math.nan
        now["spread"] = 1 - now["diversity"]
    return split


def replay(rows: Iterable[Mapping[str, str]], max_steps: int, every_steps: int, judge: Judge) -> str:
    """What the guard would have said of the rows of a metrics.csv, judged on their means over `every_steps`."""
    windows: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for column, value in row.items():
            if value and column.startswith(("train/", "health/")):
                windows[int(row["step"]) // every_steps][column.split("/", 1)[1]].append(float(value))
    for number, window in windows.items():
        step = (number + 1) * every_steps
        figures = {name: sum(values) / len(values) for name, values in window.items()}
        verdict = judge(step, figures | {"progress": step / max_steps})
        if verdict:
            return verdict
    return ""


def effective_rank(frames: Float[Tensor, "S D"]) -> Tensor:
    """Exponential of the entropy of the normalized singular values, 1 … min(S, D) (Roy & Vetterli 2007); NaN of NaN."""
    if not bool(frames.isfinite().all()):
        return frames.new_tensor(math.nan)
    values = torch.linalg.svdvals(frames.float())
    shares = values / values.sum().clamp(min=1e-12)
    return torch.exp(-torch.xlogy(shares, shares).sum())


LOGGED = ("size", "gradient_norm", "rank", "update")
"""Figures that are ours; the others are logged by the objective."""

SAMPLED_WEIGHTS = 4096
"""Of each matrix so many weights are watched: a copy of all would cost as much memory as the model."""


def sampled(module: lightning.LightningModule) -> Tensor:
    """Some weights of each trained matrix in one vector, a copy."""
    trained = [local(p.detach()) for p in module.parameters() if p.requires_grad and p.ndim > 1]
    matrices = [weights.flatten()[:SAMPLED_WEIGHTS] for weights in trained]
    return torch.cat(matrices).float()


class Health(lightning.Callback):
    """Judges a pretraining run every `every_steps` optimizer steps, on the means since the last time.

    A run that breaks a rule is stopped (`Collapsed`) no later than `grace_steps` + `every_steps` × `patience` steps
    after the start, or `every_steps` × (`patience` + 1) after it goes wrong; one whose loss is no number within
    `every_steps`; one that stays at the trivial predictor half way, after 1,000 steps at least. The step's checkpoint
    is saved afterwards: keep `checkpoints.every_steps` a multiple. Without `guard` health.json says what was seen.
    """

    def __init__(self, folder: Path, every_steps: int, grace_steps: int, patience: int, guard: bool):
        self.folder, self.every_steps, self.guard = folder, every_steps, guard
        self.judge = Judge(grace_steps, patience)
        self.sums: dict[str, Tensor] = {}
        self.count, self.judged = 0, 0
        self.last: dict[str, float] = {}
        self.verdict = ""
        self.weights: Tensor | None = None

    def state_dict(self) -> dict:
        """For the checkpoint, so that a resumed run is judged like a whole one."""
        before = {name: dict(figures) for name, figures in self.judge.before.items()}
        sums = gathered({name: total.cpu() for name, total in self.sums.items()})
        window = {"sums_by_rank": sums, "count": self.count}
        return window | {
            "strikes": self.judge.strikes,
            "before": before,
            "judged": self.judged,
            "verdict": self.verdict,
            "last": self.last,
        }

    def load_state_dict(self, state_dict: dict) -> None:
        self.judge.strikes, self.judged = state_dict["strikes"], state_dict["judged"]
        self.judge.before = {name: Figures(figures) for name, figures in state_dict["before"].items()}
        self.verdict, self.last = state_dict["verdict"], state_dict["last"]
        sums, self.count = state_dict["sums_by_rank"], state_dict["count"]
        own, ranks = rank()
        if ranks == len(sums):
            self.sums = sums[own]
        else:  # of another number of ranks the mean is what is judged
            self.sums = {name: torch.stack([one[name] for one in sums]).mean(0) for name in sums[0]}

    def on_before_optimizer_step(self, trainer, module: Pretraining, optimizer) -> None:
        """Add up what is judged later: on the device, before the gradient is clipped."""
        seen: Seen | None = module.seen
        assert seen is not None
        norm = module.gradient_norm(optimizer)
        skipped = getattr(optimizer, "found_inf", norm.new_zeros(())).bool()  # by the guards: not judged
        figures = {"loss": seen.loss, "size": seen.size, "gradient_norm": norm, "counted": norm.new_ones(())}
        for name, value in {**figures, **seen.parts}.items():
            value = torch.where(skipped, torch.zeros_like(value), value)
            self.sums[name] = self.sums[name].to(value.device) + value if name in self.sums else value
        self.count += 1
        if (trainer.global_step + 1) % self.every_steps == 0:
            self.weights = sampled(module)

    def on_train_batch_end(self, trainer, module: Pretraining, outputs, batch, batch_index) -> None:
        if self.count and trainer.global_step % self.every_steps == 0 and self.weights is not None:
            self.judge_window(trainer, module)
        if is_logged(trainer, trainer.global_step):  # also where nothing is new, so that a resumed run does the same
            for name in LOGGED:
                if name in self.last:
                    module.log(f"health/{name}", self.last[name])

    def judge_window(self, trainer, module: Pretraining) -> None:
        """Measure, judge, and begin a new window; `Collapsed` where a rule is broken and the guard is on."""
        step, before = trainer.global_step, self.weights
        assert before is not None
        assert module.seen is not None
        after = sampled(module)
        own = {"rank": effective_rank(module.seen.context), "update": (after - before).norm() / after.norm()}
        counted = self.sums.pop("counted")
        measured = {name: total / counted for name, total in self.sums.items()} | own
        # One figure for all ranks, or one would stop and the others wait for it.
        values = trainer.strategy.reduce(torch.stack([v.to(module.device).float() for v in measured.values()]))
        self.last = dict(zip(measured, values.tolist(), strict=True))  # type: ignore[union-attr]
        self.sums, self.count, self.weights = {}, 0, None
        self.judged += 1
        verdict = self.judge(step, self.last | {"progress": step / trainer.max_steps})
        if verdict and not self.verdict:
            self.verdict = verdict
        if verdict and self.guard:
            self.write(trainer)
            raise Collapsed(verdict)

    def on_train_end(self, trainer, module) -> None:
        self.write(trainer)

    def write(self, trainer) -> None:
        """health.json and, where matplotlib is, report.html."""
        if not trainer.is_global_zero:
            return
        facts = {
            "healthy": not self.verdict,
            "verdict": self.verdict or "no rule was broken",
            "guard": self.guard,
            "step": trainer.global_step,
            "judgements": self.judged,
            "every_steps": self.every_steps,
            "grace_steps": self.judge.grace_steps,
            "patience": self.judge.patience,
            "last": {name: value if math.isfinite(value) else None for name, value in self.last.items()},
            "rules": [
                {"name": rule.name, "floor": rule.floor, "cause": rule.cause, "knob": rule.knob} for rule in RULES
            ],
        }
        staged = self.folder / "health.tmp"
        staged.write_text(json.dumps(facts, indent=1))
        replace_file(staged, self.folder / "health.json")
        write_health_report(self.folder)
