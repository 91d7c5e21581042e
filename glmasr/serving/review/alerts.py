"""Final captions in as they come, alerts out: what should not have been said, and what was not said in time."""

from collections import deque
from typing import TYPE_CHECKING, Any

from glmasr.serving.review.matches import Finder, Hit, is_about
from glmasr.serving.review.rules import Rule, Rules
from glmasr.serving.review.words import Unit, units_of

if TYPE_CHECKING:  # which needs torch, and alerts do not
    from glmasr.live import Caption


GRACE_SECONDS = 2.0
"""Speech may go on for so long before a caption tells of it."""


class Alerts:
    """The alerts of one stream, of the channel of `speaker`; None: of nobody known, whom all rules are about.

    Each alert is JSON: "type" is "alert", "kind" is "sensitive", "said" (a required phrase) or "missing" (its deadline,
    or the end, came without it). `language` counts where a caption names none.
    """

    def __init__(self, rules: Rules, speaker: str | None = None, language: str = ""):
        self.rules, self.speaker, self.language = rules, speaker or "", language
        self.finders: dict[str, Finder] = {}
        self.recent: deque[Unit] = deque()
        self.owed = [rule for rule in rules.required if is_about(rule, self.speaker)]
        self.speaking_since: float | None = None

    def hear(self, caption: "Caption") -> list[dict[str, Any]]:
        """What a final caption brings about, in the order of time; a partial one nothing, as it may be mended.

        A phrase may have begun in captions before it.
        """
        self.speaking_since = None if caption.is_final else caption.segment.start_seconds
        if not caption.is_final:
            return []
        language = caption.language or self.language or self.rules.language
        finder = self.finders.setdefault(language, Finder(self.rules, language))
        fresh = units_of([caption.segment], language, self.speaker)
        told = [self._told(hit) for hit in finder.find([*self.recent, *fresh]) if _ends_in(fresh, hit)]
        self._remember(fresh, 2 * finder.longest + finder.context_words)
        alerts = [alert for alert in told if alert] + self._missed(caption.segment.start_seconds)
        return sorted(alerts, key=lambda alert: alert["start"])

    def until(self, seconds: float) -> list[dict[str, Any]]:
        """Required phrases whose deadline has passed unsaid, `seconds` into the stream; each is told once.

        While somebody speaks it is not known what he said.
        """
        known = seconds - GRACE_SECONDS
        return self._missed(known if self.speaking_since is None else min(known, self.speaking_since))

    def finish(self, seconds: float) -> list[dict[str, Any]]:
        """Required phrases that were never said in a stream of `seconds`."""
        owed, self.owed = self.owed, []
        return [missing(rule, min(seconds, rule.by_seconds or seconds)) for rule in owed]

    def _told(self, hit: Hit) -> dict[str, Any] | None:
        if hit.rule in self.rules.sensitive:
            return as_alert("sensitive", hit)
        if hit.rule not in self.owed:
            return None
        self.owed.remove(hit.rule)
        return missing(hit.rule, hit.rule.by_seconds or 0.0) if hit.is_late else as_alert("said", hit)

    def _missed(self, known_seconds: float) -> list[dict[str, Any]]:
        late = [rule for rule in self.owed if rule.by_seconds is not None and rule.by_seconds < known_seconds]
        self.owed = [rule for rule in self.owed if rule not in late]
        return [missing(rule, rule.by_seconds or 0.0) for rule in late]

    def _remember(self, fresh: list[Unit], count: int) -> None:
        """As many units as a phrase and one that overlaps it may reach back, and what stands before them."""
        self.recent.extend(fresh)
        while len(self.recent) > count:
            self.recent.popleft()


def _ends_in(fresh: list[Unit], hit: Hit) -> bool:
    return bool(fresh) and hit.end_seconds > fresh[0].start_seconds


def as_alert(kind: str, hit: Hit) -> dict[str, Any]:
    """A hit as JSON."""
    return {**_alert(kind, hit.rule), **hit.as_json()}


def missing(rule: Rule, seconds: float) -> dict[str, Any]:
    """That a required phrase was not said, as JSON; `seconds` is the deadline, or the end."""
    return {**_alert("missing", rule), "phrase": rule.phrases[0], "start": round(seconds, 3)}


def _alert(kind: str, rule: Rule) -> dict[str, Any]:
    return {"type": "alert", "kind": kind, "rule": rule.name, "severity": rule.severity}
