"""Command line in, what it asks for out: `glmasr transcribe`, `compare`, `repeat`, `export`, `serve`, `review`.

Training has its own door, `make` and scripts/.
"""

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from glmasr.speech import InputError

FORMATS = ("txt", "srt", "vtt", "tsv", "words.tsv", "json")

SETTING = re.compile(r"decoding(?:\.(?P<name>\w+))?=(?P<value>.*)", re.DOTALL)
STREAM_SECONDS = 0.1
"""As a microphone would hand it over."""

DEMO_BUNDLE = "runs/demo/pretrained/bundle"
"""Where `make demo` leaves the better of its two."""

SERVE_EPILOG = """\
examples:
  glmasr serve --bundle runs/finetune/bundle            then open http://127.0.0.1:7860
  glmasr serve --system whisper:tiny.en --port 8000     another system through the same door
  curl -F file=@call.wav -F model=whisper-1 http://127.0.0.1:7860/v1/audio/transcriptions

limits, and what they are without --limit NAME=N:
  queue=64               recordings in flight (429)       upload_bytes=104857600   of one file (413)
  duration_seconds=7200  of one recording (422)           held_bytes=1073741824    of all that is sent at once (429)
  decode_seconds=120     to read a recording in (422)     decode_bytes=268435456   of memory to read it in (422)
  decoders=2             that read at a time              ahead=8                  recordings read before their turn
  streams=32             of live captions (429)           batch_seconds=30         that the model hears at a time
  head_seconds=10        to send a request's head in      body_seconds=120         to send all of it in (408)
  drain_seconds=300      for what is in flight when SIGTERM comes
"""

TRANSCRIBE_EPILOG = """\
examples:
  glmasr transcribe --bundle runs/finetune/bundle call.wav                     print what was said
  glmasr transcribe --bundle DIR lectures/ --format srt --output subtitles/    a folder; again: only what is new
  glmasr transcribe --bundle DIR --watch inbox/ --format srt                   whatever arrives there, until Ctrl-C
  glmasr transcribe --bundle DIR talk.mp3 --words                              when each word was said, how surely
  glmasr transcribe --bundle DIR talk.mp3 decoding=joint decoding.beam=20      another search, with its settings
  glmasr transcribe --bundle DIR talk.mp3 decoding=ctc_beam decoding.lm=news.arpa "decoding.hotwords=[格力, Anna]"
  glmasr transcribe --bundle DIR talk.mp3 --language yue --script traditional --numerals
  glmasr transcribe --bundle DIR talk.mp3 --stream                             as live captions would show it
  glmasr transcribe --bundle DIR call.wav --channels apart --format srt        each channel a speaker
  glmasr transcribe --bundle DIR whispered.m4a --gain                          quiet speech found, too

searches (conf/decoding/*.yaml has their settings):
  ctc_greedy  the fastest        ctc_beam  with a language model or hotwords     attention  the decoder alone
  joint       CTC and attention  rescore   ctc_beam put in order by attention    streaming  in chunks of 640 ms
No search writes punctuation that the bundle's training texts had not.
"""


def parser() -> argparse.ArgumentParser:
    """Everything `glmasr --help` teaches."""
    top = argparse.ArgumentParser(prog="glmasr", description="Transcribe speech with a bundle trained by glmasr.")
    verbs = top.add_subparsers(dest="verb", required=True)
    _transcribe_parser(verbs)
    _compare_parser(verbs)
    _repeat_parser(verbs)
    _export_parser(verbs)
    _serve_parser(verbs)
    _review_parser(verbs)
    return top


def _transcribe_parser(verbs) -> None:
    transcribed = verbs.add_parser(
        "transcribe",
        help="audio files → text, subtitles or JSON",
        description="Transcribe audio files (WAV, FLAC, MP3, OGG, M4A… of any rate and length) with a bundle.",
        epilog=TRANSCRIBE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    transcribed.add_argument("files", nargs="*", metavar="FILE", help="audio files, folders of them, or decoding=…")
    transcribed.add_argument(
        "--watch",
        metavar="FOLDER",
        help="transcribe what arrives here, beside it or into --output, until Ctrl-C; what is there already too",
    )
    transcribed.add_argument("--bundle", required=True, metavar="DIR", help="folder written by make finetune")
    transcribed.add_argument("--format", choices=FORMATS, help="output format (default: txt)")
    transcribed.add_argument("--words", action="store_true", help="short for --format words.tsv")
    transcribed.add_argument(
        "--output",
        metavar="DIR",
        help="write FILE's name + .FORMAT here instead of printing; what is there already and newer than FILE is kept",
    )
    transcribed.add_argument("--overwrite", action="store_true", help="write again what --output would keep")
    transcribed.add_argument("--decoding", metavar="NAME", help="search (default: ctc_greedy), as decoding=NAME")
    transcribed.add_argument(
        "--language", metavar="TAG", help="what is spoken: zh, yue, en (default: the bundle tells)"
    )
    transcribed.add_argument("--script", choices=("traditional", "simplified"), help="of Chinese (default: as trained)")
    transcribed.add_argument("--numerals", action="store_true", help="write numbers and dates in digits")
    transcribed.add_argument("--no-vad", action="store_true", help="transcribe also where nobody seems to speak")
    transcribed.add_argument("--gain", action="store_true", help="find quiet speech that is missed without")
    transcribed.add_argument(
        "--channels",
        choices=("mixed", "apart"),
        default="mixed",
        help="apart: each channel is a speaker of its own, as in a recorded call (default: mixed)",
    )
    transcribed.add_argument("--stream", action="store_true", help="print partial lines (…), then final ones")
    _add_device(transcribed)
    transcribed.set_defaults(run=transcribe)


def _add_device(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--device", default="cpu", help="torch device, e.g. cuda (default: cpu)")
    verb.add_argument(
        "--offload",
        action="store_true",
        help="keep the weights in main memory: for a model larger than the GPU that --device names",
    )


def _compare_parser(verbs) -> None:
    compared = verbs.add_parser(
        "compare",
        help="two benchmark reports → what changed",
        description="Say what changed between two reports of make benchmark, and whether chance explains it.",
        epilog="example: glmasr compare runs/monday/report/report.json runs/friday/report/report.json",
    )
    compared.add_argument("before", metavar="A", type=Path, help="report.json, or its folder")
    compared.add_argument("after", metavar="B", type=Path, help="the same of the report to compare with it")
    compared.add_argument("--json", action="store_true", help="print JSON instead of a table")
    compared.set_defaults(run=compare)


def _serve_parser(verbs) -> None:
    served = verbs.add_parser(
        "serve",
        help="a bundle → a web page, OpenAI's API and live captions on this machine",
        description="Serve a bundle to people and programs: /v1/audio/transcriptions as OpenAI's clients know it, live "
        "captions, a web page. One line says when it is ready.",
        epilog=SERVE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    served.add_argument("--bundle", metavar="DIR", help=f"written by make finetune (default: {DEMO_BUNDLE})")
    served.add_argument("--system", metavar="whisper:MODEL", help="a Whisper model instead: its folder, or its name")
    served.add_argument("--port", type=int, default=7860, help="0 takes a free one (default: 7860)")
    served.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for the whole network (default: 127.0.0.1)")
    served.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="whose first line every request must show (or GLMASR_API_KEY)"
    )
    served.add_argument("--decoding", default="ctc_greedy", metavar="NAME", help="search (default: ctc_greedy)")
    served.add_argument("--language", metavar="TAG", help="what is spoken, where a request says nothing")
    served.add_argument(
        "--no-gain",
        dest="gain",
        action="store_false",
        help="do not look for quiet speech, where a request says nothing",
    )
    _add_device(served)
    served.add_argument("--rules", metavar="YAML", help="what live captions raise an alert for, as in glmasr review")
    served.add_argument("--limit", action="append", default=[], metavar="NAME=N", help="see below; may be repeated")
    served.set_defaults(run=serve)


EXPORT_EPILOG = """\
examples:
  glmasr export --bundle DIR --format onnx OUT --int8       smaller and faster; glmasr transcribe --bundle OUT reads it
  glmasr export --bundle DIR --format onnx OUT --streaming  with the graph that hears chunk by chunk
  glmasr export --bundle DIR --format sherpa OUT            for phones, boards and browsers, through sherpa-onnx
  glmasr export --bundle DIR --format sherpa OUT --streaming  live as well; OUT/README.md has the call
  glmasr export --bundle DIR --format transformers OUT      weights and config for Hugging Face
"""


def _export_parser(verbs) -> None:
    exported = verbs.add_parser(
        "export",
        help="a bundle → ONNX, sherpa-onnx or transformers",
        description="Write a bundle for another runtime, once it has been heard to say the same.",
        epilog=EXPORT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    exported.add_argument("out", metavar="OUT", help="folder to write; one that was exported before is replaced")
    exported.add_argument("--bundle", required=True, metavar="DIR", help="folder written by make finetune")
    exported.add_argument(
        "--format", required=True, choices=("onnx", "sherpa", "transformers"), help="for what runtime"
    )
    exported.add_argument("--int8", action="store_true", help="matrices in eight bits")
    exported.add_argument("--streaming", action="store_true", help="also the graph for live captions")
    exported.add_argument(
        "--audio",
        action="append",
        default=[],
        metavar="FILE",
        help="recording or folder to compare on, may be repeated (default: the rhyme test)",
    )
    exported.set_defaults(run=export)


REVIEW_EPILOG = """\
examples:
  glmasr review --bundle DIR --rules conf/review/sales.yaml calls/ --output reviewed/
  glmasr review --system whisper:base --rules conf/review/service_zh.yaml call.wav --output reviewed/
  glmasr review --rules rules.yaml call.json --output reviewed/         a transcript that is there already

Two channels that differ are two speakers, named by the rules' `speakers`. Each call becomes NAME.review.html and .json,
all of them review.html and review.json. conf/review/ has examples of rules. Nothing leaves this machine, unless a rule
file names a chat model (llm) to write summaries.
"""


def _review_parser(verbs) -> None:
    reviewed = verbs.add_parser(
        "review",
        help="recorded calls → what was said that should not be, what was not said, how they talked",
        description="Review calls, or transcripts of them (JSON), by rules.",
        epilog=REVIEW_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reviewed.add_argument("files", nargs="+", metavar="FILE", help="audio files, folders of them, or transcripts")
    reviewed.add_argument("--rules", required=True, metavar="YAML", help="what to look for")
    reviewed.add_argument("--output", required=True, metavar="DIR", help="where the reviews go")
    reviewed.add_argument("--bundle", metavar="DIR", help="what hears audio files: a folder written by make finetune")
    reviewed.add_argument("--system", metavar="whisper:MODEL", help="or a Whisper model: its folder, or its name")
    reviewed.add_argument("--decoding", default="ctc_greedy", metavar="NAME", help="search (default: ctc_greedy)")
    reviewed.add_argument("--language", metavar="TAG", help="what is spoken (default: the bundle tells)")
    reviewed.add_argument("--gain", action="store_true", help="find quiet speech that is missed without")
    _add_device(reviewed)
    reviewed.set_defaults(run=review)


def _repeat_parser(verbs) -> None:
    repeated = verbs.add_parser(
        "repeat",
        help="a run's folder → the commands that do it again",
        description="Print the shell commands that repeat a run: its commit, its uncommitted changes, its settings.",
        epilog="example: glmasr repeat runs/pretrain",
    )
    repeated.add_argument("folder", metavar="RUN", type=Path, help="folder of a pretraining or fine-tuning")
    repeated.set_defaults(run=repeat)


def transcribe(args: argparse.Namespace) -> int:
    """Print or write each file's transcript; a file that cannot be read is named and the others go on."""
    from glmasr.transcriber import Transcriber

    form = "words.tsv" if args.words else args.format or "txt"
    decoding, files = _decoding_among(args.files, args.decoding, args.watch is not None)
    if args.watch and (files or args.stream):
        raise InputError("--watch takes what arrives in its folder: leave files and --stream out")
    jobs = _jobs(files, args.output, form)
    options = {"language": args.language, "script": args.script, "numerals": args.numerals, "vad": not args.no_vad}
    options["gain"] = args.gain
    if args.stream and args.channels == "apart":
        raise InputError("--stream hears one channel: leave --channels apart out, or --stream")
    transcriber = Transcriber(args.bundle, decoding=decoding, device=args.device, offload=args.offload, **options)
    if args.watch:
        return _watch(transcriber, args, form)
    waiting = [job for job in jobs if args.overwrite or not _is_done(*job)]
    if len(waiting) < len(jobs):
        kept = len(jobs) - len(waiting)
        print(f"glmasr: kept {kept} of {len(jobs)} transcripts (--overwrite writes them again)", file=sys.stderr)
    failed = 0
    for file, target in tqdm(waiting, disable=None if len(waiting) > 1 and args.output else True, unit="file"):
        try:
            if args.stream:
                _stream(transcriber, file)
            else:
                _tell(transcriber, file, target, form, args.channels == "apart")
        except InputError as error:
            print(f"glmasr: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


def _tell(transcriber, file: str, target: Path | None, form: str, apart: bool = False) -> None:
    from glmasr.channels import transcribe_apart
    from glmasr.text.subtitles import FORMATS as WRITERS

    with tqdm(disable=None if target is None else True, unit="s", unit_scale=True, leave=False) as bar:
        heard = (
            transcribe_apart(transcriber, file, bar.update) if apart else transcriber.transcribe_file(file, bar.update)
        )
        text = WRITERS[form](heard)
    if target is None:
        print(text.rstrip("\n"))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(target)


def _watch(transcriber, args: argparse.Namespace, form: str) -> int:
    """Transcribe what arrives in a folder until Ctrl-C or SIGTERM; a broken file is named, once for each time it
    changes, and a transcript that is there and newer than its file is kept."""
    from glmasr.frontend.audio import AUDIO_SUFFIXES, CONTAINER_SUFFIXES
    from glmasr.serving.watch import arrivals, owner

    suffixes, folder, seen = AUDIO_SUFFIXES + CONTAINER_SUFFIXES, Path(args.watch), set()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    written = failed = 0
    try:
        print(f"glmasr: watching '{folder}' (Ctrl-C ends it)", file=sys.stderr, flush=True)
        for file in arrivals(folder, suffixes):
            place = file.relative_to(folder).with_suffix("")
            target = Path(args.output or folder) / f"{place}.{form}"
            is_new = file not in seen
            seen.add(file)
            try:
                if (first := owner(file, suffixes)) != file:
                    raise InputError(f"'{file}' would be written to '{target}', as '{first}' is: rename it")
                if not (is_new and not args.overwrite and _is_done(str(file), target)):
                    _tell(transcriber, str(file), target, form, args.channels == "apart")
                    written += 1
                    print(target, flush=True)
            except (InputError, OSError) as error:
                print(f"glmasr: {_sentence(error)}", file=sys.stderr, flush=True)
                failed += 1
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
    broken = f", {failed} could not be" if failed else ""
    print(f"glmasr: stopped watching '{folder}': {written} transcripts written{broken}", file=sys.stderr)
    return 0


def _stream(transcriber, file: str) -> None:
    """As fast as it can be heard, chunk by chunk."""
    from glmasr.frontend.audio import read_blocks
    from glmasr.live import LiveTranscriber

    live = LiveTranscriber(transcriber)
    for block in read_blocks(file, STREAM_SECONDS):
        _show(live.hear(block))
    _show(live.finish())


def _show(captions) -> None:
    for caption in captions:
        segment = caption.segment
        place = f"[{segment.start_seconds:8.2f} {segment.end_seconds:8.2f}]"
        print(f"{place}{' ' if caption.is_final else ' … '}{segment.text}", flush=True)


def _decoding_among(
    words: list[str], named: str | None, is_watching: bool = False
) -> tuple[str | dict[str, Any], list[str]]:
    """The search that `decoding=…` and `decoding.x=…` words and --decoding ask for, and the words that are none."""
    from glmasr.decoding.search import SEARCHES
    from glmasr.transcriber import Streaming

    found = [SETTING.fullmatch(word) for word in words]
    files = [word for word, match in zip(words, found, strict=True) if match is None]
    if not files and not is_watching:
        raise InputError("no file is given: add audio files or a folder of them")
    name, settings = named or "ctc_greedy", {}
    for match in filter(None, found):
        try:
            value = yaml.safe_load(match["value"])
        except yaml.YAMLError as error:
            raise InputError(f"'{match[0]}' is not readable: write lists as [one, two] and text in quotes") from error
        if match["name"]:
            settings[match["name"]] = value
        else:
            name = str(value)
    classes = {**SEARCHES, "streaming": Streaming}
    if not settings or name not in classes:
        return name, files
    return {"_target_": f"{classes[name].__module__}.{classes[name].__qualname__}", **settings}, files


def _jobs(files: list[str], output: str | None, form: str) -> list[tuple[str, Path | None]]:
    """Each file and where its transcript goes; a folder's files keep their places in it.

    InputError for a folder without audio, and for two files whose transcripts would be one.
    """
    jobs: list[tuple[str, Path | None]] = []
    taken: dict[Path, str] = {}
    for file, inside in ((one, inside) for given in files for one, inside in _files_of(given)):
        target = Path(output) / f"{inside.with_suffix('')}.{form}" if output else None
        if target and target in taken:
            raise InputError(
                f"'{taken[target]}' and '{file}' would both be written to '{target}': rename one, or use two folders"
            )
        if target:
            taken[target] = file
        jobs.append((file, target))
    return jobs


def _files_of(given: str) -> Iterator[tuple[str, Path]]:
    """A file, or the audio files below a folder; and its place there."""
    from glmasr.frontend.audio import AUDIO_SUFFIXES, CONTAINER_SUFFIXES

    if not os.path.isdir(given):
        yield given, Path(Path(given).name)
        return
    found = sorted(
        path for path in Path(given).rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES + CONTAINER_SUFFIXES
    )
    if not found:
        raise InputError(f"there is no audio file ({', '.join(AUDIO_SUFFIXES[:4])}…) under '{given}'")
    yield from ((str(path), path.relative_to(given)) for path in found)


def _is_done(file: str, target: Path | None) -> bool:
    """Whether a transcript is there that is newer than what it was made from."""
    try:
        return target is not None and target.stat().st_mtime >= os.stat(file).st_mtime
    except OSError:
        return False


def compare(args: argparse.Namespace) -> int:
    """Print what changed from report A to report B, as a table in Markdown or as JSON."""
    from glmasr.evaluation.compare import differences, in_words

    found = differences(args.before, args.after)
    print(json.dumps(found.as_json(), ensure_ascii=False, indent=2) if args.json else in_words(found).rstrip("\n"))
    return 0


def serve(args: argparse.Namespace) -> int:
    """Answer requests until SIGTERM or Ctrl-C, and then those that are in flight."""
    from glmasr.serving.rest import build_app
    from glmasr.serving.review.rules import read_rules
    from glmasr.serving.server import serve as run
    from glmasr.serving.service import Service, can_stream, limits_of

    key = _key(args.api_key_file)
    if key is None and args.host not in ("127.0.0.1", "::1", "localhost"):
        print(
            f"glmasr: anybody who reaches {args.host} can use this: --api-key-file FILE asks for a key", file=sys.stderr
        )
    limits = limits_of(args.limit)
    rules = read_rules(args.rules) if args.rules else None
    system = _system(args)
    if rules and not can_stream(system):
        raise InputError(f"--rules are for live captions, which '{system.name}' cannot give: glmasr review takes files")
    service = Service(system, limits)
    app = build_app(service, key)
    app.state.rules = rules
    run(app, service, args.host, args.port)
    return 0


def _system(args: argparse.Namespace) -> Any:
    """What is to be served: the system that is named, the bundle, or the demo's."""
    if args.system:
        kind, _, model = args.system.partition(":")
        if kind != "whisper" or not model or args.bundle:
            raise InputError(
                f"'{args.system}' is no system to serve: say whisper:tiny.en or whisper:FOLDER, or --bundle"
            )
        from glmasr.evaluation.baselines import Whisper

        if args.offload:
            raise InputError("--offload is for bundles: Whisper's weights stay on its --device, so leave it out")
        return Whisper(model, language=args.language, device=args.device)
    from glmasr.transcriber import Transcriber

    if not args.bundle and not Path(DEMO_BUNDLE).is_dir():
        raise InputError(
            f"there is nothing to serve: give --bundle DIR (make finetune writes one), make the demo's {DEMO_BUNDLE} "
            "with 'make demo', or serve a Whisper model with --system whisper:tiny.en"
        )
    options = {"decoding": args.decoding, "device": args.device, "language": args.language, "gain": args.gain}
    options["offload"] = args.offload
    return Transcriber(args.bundle or DEMO_BUNDLE, **options)


def review(args: argparse.Namespace) -> int:
    """Write each call's review and that of all; a call that cannot be read is named and the others go on."""
    from glmasr.serving.review import call, report
    from glmasr.serving.review.rules import read_rules

    rules, output = read_rules(args.rules), Path(args.output)
    jobs = _jobs(args.files, args.output, "review.json")
    told = [file for file, _ in jobs if not call.is_transcript(file)]
    if told and not (args.bundle or args.system):
        raise InputError(f"nothing is named that could hear '{told[0]}': add --bundle DIR or --system whisper:tiny.en")
    system: Any = _system(args) if told else None
    entries, failed = [], []
    for file, target in tqdm(jobs, disable=None if len(jobs) > 1 else True, unit="call"):
        assert target is not None
        try:
            heard = call.read_transcript(file) if call.is_transcript(file) else call.hear(system, file)
            place = target.relative_to(output).as_posix().removesuffix(".review.json")
            reviewed = call.review(place, heard, rules)
            report.write_call(reviewed, output / place)
            entries.append(report.Entry(reviewed, f"{place}.review.html"))
        except InputError as error:
            print(f"glmasr: {error}", file=sys.stderr)
            failed.append((file, str(error)))
    report.write_batch(entries, failed, output)
    print(output / "review.html")
    return 1 if failed else 0


def _key(file: Path | None) -> str | None:
    """The key that requests must show, from a file or the environment; InputError for a file without one."""
    if file is None:
        return os.environ.get("GLMASR_API_KEY", "").strip() or None
    try:
        key = (file.read_text(encoding="utf-8").splitlines() or [""])[0].strip()
    except UnicodeDecodeError as error:
        raise InputError(f"'{file}' is no text: write the key on its first line") from error
    if not key:
        raise InputError(f"'{file}' has no key on its first line: write one there")
    return key


def export(args: argparse.Namespace) -> int:
    """Write what another runtime reads, and say how far it is from the bundle."""
    try:
        from glmasr.exporting.export import export as write

        write(args.bundle, args.format, args.out, args.int8, args.streaming, args.audio)
    except ModuleNotFoundError as error:
        raise InputError(f"export needs {error.name}: pip install 'glmasr[export,eval]'") from error
    size = sum(file.stat().st_size for file in Path(args.out).iterdir()) / 1e6
    print(f"{args.out}: {size:.1f} MB")
    return 0


def repeat(args: argparse.Namespace) -> int:
    """Print what `repeat_command` says."""
    from glmasr.training.record import repeat_command

    print(repeat_command(args.folder))
    return 0


def main() -> None:
    """Entry point: exit code 0, or 1 after one clear sentence."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reports to its maker unless it is told not to
    args = parser().parse_args()
    try:
        sys.exit(args.run(args))
    except (InputError, OSError) as error:
        sys.exit(f"glmasr: {_sentence(error)}")


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    return str(error)


if __name__ == "__main__":
    main()
